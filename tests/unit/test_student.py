"""A narrower network begins with the strongest channels of its teacher, and is told how far it is from it."""
import numpy as np
import torch
from facerec_nb.engines.dlib_onnx import dlib_graph, dlib_scales
from facerec_nb.engines.onnx_files import onnx_session
from facerec_nb.models.dlib_resnet import WIDTHS, DlibResNet
from studies.student import HALF, Lesson, narrowed, off, streams, teach
from studies.tuning import pixels


def teacher(seed=0):
    "A network with random weights in every convolution"
    torch.manual_seed(seed)
    net = DlibResNet()
    for b in net.blocks: torch.nn.init.normal_(b.b.weight, std=.01)
    return net


def faces(n, seed=0): return np.random.default_rng(seed).integers(0, 256, (n, 150, 150, 3), np.uint8)


def test_as_wide_as_its_teacher_it_is_its_teacher():
    net = teacher()
    with torch.no_grad(): assert torch.equal(narrowed(net, WIDTHS)(pixels(faces(1))), net(pixels(faces(1))))


def test_a_channel_stays_in_its_place_from_stage_to_stage():
    kept = streams(teacher(), HALF)
    assert [len(k) for k in kept] == list(HALF)
    for before, after in zip(kept, kept[1:]): assert after[:len(before)].tolist() == before.tolist()
    assert all(len(set(k.tolist())) == len(k) for k in kept)


def test_the_strongest_channels_are_kept():
    net = teacher()
    with torch.no_grad(): net.blocks[0].b.weight[[3, 30]] *= 100
    assert {3, 30} <= set(streams(net, HALF)[0].tolist())


def test_the_teachers_own_answers_are_not_off():
    t = torch.nn.functional.normalize(torch.randn(8, 16), dim=1)
    own, between = off(3*t, t)
    assert abs(own) < 1e-6 and between < 1e-6
    far = off(t.flip(0), t)
    assert far[0] > .5 and far[1] > .01


def test_a_lesson_brings_a_student_nearer():
    net, x = teacher(), faces(8)
    wanted = torch.nn.functional.normalize(net(pixels(x)).detach(), dim=1)
    cfg = Lesson(widths="8,8,8,16,16", epochs=15, batch=4, worse=0.)
    said, log = teach(x, np.arange(8), wanted, cfg, net, say=lambda *a, **k: None)
    assert log.shape == (30, 2) and log[-6:, 0].mean() < log[:6, 0].mean()
    assert said(pixels(x)).shape == (8, 128)


def test_a_narrow_network_answers_alike_as_an_onnx_graph():
    net, x = narrowed(teacher(), (8, 16, 16, 32, 32)), faces(2)
    with torch.no_grad(): wanted = net(pixels(x)).numpy()
    model = dlib_graph(net.give())
    got = onnx_session(model.SerializeToString(), 1).run(["raw"], dict(pixels=np.float32(x.transpose(0, 3, 1, 2))))[0]
    np.testing.assert_allclose(got, wanted, atol=1e-4*np.abs(wanted).max())
    eight = dlib_graph(net.give(), dlib_scales(net.give(), x))
    got = onnx_session(eight.SerializeToString(), 1).run(["raw"], dict(pixels=np.float32(x.transpose(0, 3, 1, 2))))[0]
    assert ((got*wanted).sum(1)/np.linalg.norm(got, axis=1)/np.linalg.norm(wanted, axis=1)).min() > .9
