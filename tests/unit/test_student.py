"""A narrower network begins near its teacher, and is told how far it is from it."""
import numpy as np
import torch
from facerec_nb.engines.dlib_onnx import dlib_graph, dlib_scales
from facerec_nb.engines.onnx_files import onnx_session
from facerec_nb.models.dlib_resnet import WIDTHS, DlibResNet
from facerec_nb.models.dlib_weights import STAGES
from studies.student import HALF, Lesson, fitted, narrowed, off, teach
from studies.tuning import pixels


def teacher(seed=0):
    "A network with random weights in every convolution"
    torch.manual_seed(seed)
    net = DlibResNet()
    for b in net.blocks: torch.nn.init.normal_(b.b.weight, std=.01)
    return net


BLOCKS = [w for w, n in STAGES for _ in range(n)]


def cosines(a, b): return torch.nn.functional.cosine_similarity(a, b)
def faces(n, seed=0): return np.random.default_rng(seed).integers(0, 256, (n, 150, 150, 3), np.uint8)


def test_as_wide_as_its_teacher_it_is_its_teacher():
    net, x = teacher(), pixels(faces(12))
    with torch.no_grad(): assert cosines(narrowed(net, WIDTHS, x)(x), net(x)).min() > .999


def test_half_as_wide_inside_it_begins_near_its_teacher():
    net, x = teacher(), pixels(faces(24))
    with torch.no_grad():
        begun, bare = narrowed(net, HALF, x), DlibResNet(inner=HALF)
        assert [len(b.a.weight) for b in begun.blocks] == [w//2 for w in BLOCKS]
        wanted = net(x)
        assert cosines(begun(x), wanted).mean() > cosines(bare(x), wanted).mean() + .1


def test_what_a_block_no_longer_has_is_made_up_for():
    h = torch.rand(6, 4, 9, 9)
    conv = torch.nn.Conv2d(4, 3, 3, padding=1)
    with torch.no_grad(): weight, bias = fitted(h, conv(h), ridge=1e-9)
    assert (weight - conv.weight).abs().max() < 1e-3 and (bias - conv.bias).abs().max() < 1e-3


def test_the_teachers_own_answers_are_not_off():
    t = torch.nn.functional.normalize(torch.randn(8, 16), dim=1)
    own, between = off(3*t, t)
    assert abs(own) < 1e-6 and between < 1e-6
    far = off(t.flip(0), t)
    assert far[0] > .5 and far[1] > .01


def test_a_lesson_brings_a_student_nearer():
    net, x = teacher(), faces(8)
    wanted = torch.nn.functional.normalize(net(pixels(x)).detach(), dim=1)
    cfg = Lesson(inner="8,8,8,16,16", epochs=15, batch=4, worse=0., begin=8, lr=1e-3)
    said, log = teach(x, np.arange(8), wanted, cfg, net, say=lambda *a, **k: None)
    assert log.shape == (30, 2) and log[-6:, 0].mean() < log[:6, 0].mean()
    assert said(pixels(x)).shape == (8, 128)


def test_a_narrow_network_answers_alike_as_an_onnx_graph():
    net, x = DlibResNet(widths=(8, 16, 16, 32, 32), inner=(4, 8, 8, 16, 16)), faces(2)
    for b in net.blocks: torch.nn.init.normal_(b.b.weight, std=.05)
    with torch.no_grad(): wanted = net(pixels(x)).numpy()
    model = dlib_graph(net.give())
    got = onnx_session(model.SerializeToString(), 1).run(["raw"], dict(pixels=np.float32(x.transpose(0, 3, 1, 2))))[0]
    np.testing.assert_allclose(got, wanted, atol=1e-4*np.abs(wanted).max())
    eight = dlib_graph(net.give(), dlib_scales(net.give(), x))
    got = onnx_session(eight.SerializeToString(), 1).run(["raw"], dict(pixels=np.float32(x.transpose(0, 3, 1, 2))))[0]
    assert ((got*wanted).sum(1)/np.linalg.norm(got, axis=1)/np.linalg.norm(wanted, axis=1)).min() > .9
