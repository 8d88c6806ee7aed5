"ONNX files answer as torch does; one that is not ours or not whole is refused in one sentence"

import copy
import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from facerec_nb.apps import commands as cli
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.models.backbones import Embedder
from facerec_nb.models.checkpoint import save_checkpoint
from facerec_nb.core.files import InputError
from facerec_nb.models.heads import create_head
from facerec_nb.models.hourglass import StackedHourglass
from facerec_nb.engines import onnx_export
from facerec_nb.engines.engine import open_network
from facerec_nb.engines.onnx_export import OPSET, export_onnx
from facerec_nb.engines.onnx_files import seal, set_about
from facerec_nb.engines.onnx_embedder import OnnxEmbedder
from facerec_nb.engines.onnx_landmarks import OnnxLandmarks
from facerec_nb.engines.onnx_net import OnnxNet
from facerec_nb.faces.embedder import FaceEmbedder


def trained_like(net):
    "Random statistics in the batch norms: a fresh network ignores much of what it computes, and then everything agrees"
    g = torch.Generator().manual_seed(1)
    for m in net.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for t, low, high in (
                (m.running_mean, -0.2, 0.2),
                (m.running_var, 0.5, 2),
                (m.weight.data, 0.5, 1.5),
                (m.bias.data, -0.2, 0.2),
            ):
                t.copy_(low + (high - low) * torch.rand(t.shape, generator=g))
    return net.eval()


def hourglass(path, **arch):
    torch.manual_seed(0)
    net = trained_like(StackedHourglass(**arch))
    for s in net.stacks:
        nn.init.normal_(s.head.weight, std=0.2)
    return save_checkpoint(
        path,
        "landmarks",
        dict(model=net.state_dict()),
        net.arch,
        dict(size=arch["input_size"], shrink=0.05, square=True, flip=True, colour="RGB"),
    )


def embedder(path, name="tiny", head="ce", emb_dim=64):
    torch.manual_seed(0)
    net, h = trained_like(Embedder(name, emb_dim)), create_head(head, emb_dim, 3)
    pre = dict(
        size=112,
        colour="RGB",
        range="0..255",
        mean=net.mean,
        std=net.std,
        template="arcface",
        colour_mean=[140.0, 110.0, 90.0],
    )
    return save_checkpoint(
        path,
        "embedder",
        dict(backbone=net.state_dict(), head=h.state_dict()),
        dict(backbone=net.arch, head=h.arch),
        pre,
        classes=[5, 6, 7],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "Two checkpoints and their files, in a folder with a difficult name"
    home = tmp_path_factory.mktemp("a run with späces")
    hourglass(home / "best_stacked_hg.pth", stacks=2, channels=16, depth=3, input_size=64)
    embedder(home / "best_af.pth")
    assert cli.facerec_export_onnx(str(home), str(home / "onnx")) == 0
    return home


def networks(folder):
    for name, arch in dict(
        one=dict(stacks=1, channels=12, depth=2, input_size=64),
        two=dict(stacks=2, channels=16, depth=4, input_size=128),
    ).items():
        path = hourglass(folder / f"{name}.pth", **arch)
        net = LandmarkModel.load(path, "cpu").net
        yield path, lambda x, net=net: net(x)[-1], "heatmaps"
    for name in ("tiny", "resnet18"):
        path = embedder(folder / f"{name}.pth", name)
        net = FaceEmbedder.load(path, "cpu").model["backbone"]
        yield path, lambda x, net=net: net.embed(x, flip=False), "embedding"


def test_every_network_answers_as_torch_does(tmp_path):
    for checkpoint, torch_net, name in networks(tmp_path):
        done = export_onnx(checkpoint, tmp_path / "a.onnx")
        assert done["difference"] < 1e-4 and done["opset"] == OPSET
        session, ours = (
            ort.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"]),
            OnnxNet(tmp_path / "a.onnx", threads=1),
        )
        for n in (1, 5):
            x = torch.randint(0, 256, (n, 3, done["size"], done["size"]), dtype=torch.uint8)
            with torch.no_grad():
                want = torch_net(x).numpy()
            (got,) = session.run([name], dict(pixels=x.numpy().astype(np.float32)))
            assert got.shape == want.shape and np.abs(want).max() > 0.1 and np.abs(got - want).max() < 1e-4, (
                checkpoint.name,
                n,
            )
            assert np.abs(ours.answer(x.numpy(), name) - want).max() < 1e-4


def test_the_file_says_what_a_user_must_know(run):
    for stem, own in dict(
        best_stacked_hg=dict(kind="landmarks", size=64, shrink=0.05, square=True, flip=True),
        best_af=dict(kind="embedder", size=112, template="arcface"),
    ).items():
        path = run / "onnx" / f"{stem}.onnx"
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        said = {p.key: json.loads(p.value) for p in model.metadata_props if p.key != "sha256"}
        want = own | dict(colour="RGB", range="0..255", layout="NCHW", mean=[127.5] * 3, std=[127.5] * 3, opset=OPSET)
        assert {k: said[k] for k in want} == want and "inside the graph" in said["normalisation"]
        assert (
            said["fingerprint"]
            == (LandmarkModel if own["kind"] == "landmarks" else FaceEmbedder)
            .load(run / f"{stem}.pth", "cpu")
            .fingerprint
        )
        assert [o.version for o in model.opset_import if not o.domain] == [OPSET]
        for v in [*model.graph.input, *model.graph.output]:
            first, *rest = v.type.tensor_type.shape.dim
            assert first.dim_param and all(d.dim_value for d in rest), v.name


def test_it_stands_where_the_network_stood(run):
    rng = np.random.default_rng(0)
    photo, boxes = (
        rng.integers(0, 256, (200, 300, 3), dtype=np.uint8),
        [[20, 20, 120, 150], [100, 50, 180, 160], [150, 10, 280, 190]],
    )
    slow = LandmarkModel.load(run / "best_stacked_hg.pth", "cpu")
    fast = OnnxLandmarks(run / "onnx" / "best_stacked_hg.onnx", threads=1)
    for a, b in zip(fast.points(photo, boxes), slow.points(photo, boxes)):
        np.testing.assert_allclose(a, b, atol=0.05)
    assert fast.points(photo, [])[0].shape == (0, 5, 2)
    slow = FaceEmbedder.load(run / "best_af.pth", "cpu")
    fast = OnnxEmbedder(run / "onnx" / "best_af.onnx", threads=1)
    faces = rng.integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    for flip in (False, True):
        np.testing.assert_allclose(
            fast.embed(faces, flip=flip),
            slow.embed(faces, flip=flip, check_colour=False),
            atol=1e-5,
        )
    assert fast.embed(faces[:0]).shape == (0, 64)


def test_two_files_of_one_shape_have_two_names(run, tmp_path):
    one = OnnxNet(run / "onnx" / "best_af.onnx")
    embedder(tmp_path / "b.pth", head="arcface")
    export_onnx(tmp_path / "b.pth", tmp_path / "b.onnx")
    assert one.sha256 != OnnxNet(tmp_path / "b.onnx").sha256
    shutil.copy(run / "best_af.pth", tmp_path / "b.pth")
    with pytest.raises(InputError, match="was made from another checkpoint"):
        open_network("embedder", tmp_path / "b.pth")


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((3, 112, 112)),
        np.zeros((1, 3, 64, 64)),
        np.zeros((1, 112, 112, 3)),
        np.zeros((1, 3, 112, 112), bool),
        np.full((1, 3, 112, 112), "a"),
        5,
        None,
    ],
    ids=lambda x: f"{getattr(x, 'dtype', x)} {tuple(getattr(x, 'shape', ()))}",
)
def test_other_input_is_refused(run, x):
    with pytest.raises(InputError, match=r"takes RGB pixels as numbers \(N, 3, 112, 112\)"):
        OnnxNet(run / "onnx" / "best_af.onnx", threads=1).answer(x, "embedding")


def test_no_damage_goes_unnoticed(run, tmp_path):
    "Flipped bits, cut ends and appended bytes, anywhere in the file"
    whole, path, rng = (
        (run / "onnx" / "best_stacked_hg.onnx").read_bytes(),
        tmp_path / "bad.onnx",
        np.random.default_rng(0),
    )
    cases = [whole[:k] for k in (0, 1, 100, len(whole) // 2, len(whole) - 80, len(whole) - 1)] + [
        whole + b"\0",
        whole + whole,
        whole[::-1],
    ]
    for at in rng.integers(0, len(whole), 60):
        bad = bytearray(whole)
        bad[at] ^= 1 << int(rng.integers(8))
        cases.append(bytes(bad))
    for bad in cases:
        path.write_bytes(bad)
        with pytest.raises(InputError) as e:
            OnnxNet(path)
        assert "bad.onnx" in str(e.value) and "\n" not in str(e.value)


def graph(model, **props):
    model = copy.deepcopy(model)
    set_about(model, props)
    return seal(model.SerializeToString())


def test_foreign_and_forged_files_are_refused(run, tmp_path):
    "Files of other programs, and files that say they are ours: one sentence each, whatever they hold"
    tensor, f32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["x"], ["y"])],
            "g",
            [tensor("x", f32, ["n", 3, 112, 112])],
            [tensor("y", f32, ["n", 3, 112, 112])],
        )
    )
    ours = onnx.load(run / "onnx" / "best_af.onnx")
    about = {p.key: json.loads(p.value) for p in ours.metadata_props if p.key != "sha256"}
    away = copy.deepcopy(ours)
    away.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    away.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    away.graph.initializer[0].ClearField("raw_data")
    cases = dict(
        text=(b"I am a text", "not an ONNX file"),
        noise=(np.random.default_rng(0).bytes(5000), "not an ONNX file"),
        foreign=(foreign.SerializeToString(), "was not written by"),
        claims=(graph(foreign, **about), "cannot be run"),
        empty=(graph(ours, kind="embedder", fingerprint="x"), "cannot be run"),
        odd=(graph(ours, **about | dict(kind=[1])), "cannot be run"),
        words=(graph(ours, **about | dict(arch="tiny")), "cannot be run"),
        external=(graph(away, **about), "weights from other files"),
    )
    for name, (data, why) in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(InputError, match=why) as e:
            OnnxNet(path)
        assert path.name in str(e.value) and "\n" not in str(e.value)
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(InputError, match="does not exist"):
            OnnxNet(path)


def test_what_differs_is_not_written(run, tmp_path, monkeypatch):
    out = tmp_path / "a.onnx"
    out.write_bytes(b"from before")
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *_: float("nan"))
    with pytest.raises(InputError, match="differs from torch by nan, allowed is less than 0.0001: nothing was written"):
        export_onnx(run / "best_af.pth", out)
    assert out.read_bytes() == b"from before" and [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_the_command(run, tmp_path, capsys):
    assert sorted(p.name for p in (run / "onnx").iterdir()) == ["best_af.onnx", "best_stacked_hg.onnx"]
    capsys.readouterr()
    assert cli.facerec_export_onnx(str(run / "best_af.pth"), str(tmp_path / "emb.onnx"), json=True) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (
        said["kind"] == "embedder"
        and said["difference"] < 1e-4
        and OnnxNet(tmp_path / "emb.onnx", "embedder").about["fingerprint"] == said["fingerprint"]
    )
    for args, why in (
        ((run, tmp_path / "emb.onnx"), "give a folder"),
        ((run / "best_af.pth", tmp_path), "does not end with .onnx"),
        ((tmp_path, tmp_path / "x"), "holds no best_"),
        ((run / "none.pth", tmp_path / "x.onnx"), "does not exist"),
    ):
        assert cli.facerec_export_onnx(*map(str, args)) == 1
        err = capsys.readouterr().err
        assert why in err and err.count("\n") == 1


def test_the_packaged_weights_have_an_onnx_form(tmp_path):
    "Their preprocessing holds tensors, which metadata must be able to say; the packaged file is of these very weights"
    from facerec_nb.core.installed import packaged

    done = export_onnx(packaged("landmarks_big"), tmp_path / "big.onnx")
    assert done["difference"] < 1e-4 and np.shape(OnnxNet(tmp_path / "big.onnx", threads=1).about["upright"]) == (5, 2)
    for path in packaged("landmarks_big").parent.glob("landmarks_*.pth"):
        model = LandmarkModel.load(path, "cpu")
        fast = open_network("landmarks", path, threads=1, engine="onnx")
        crops = np.random.default_rng(0).integers(
            0, 256, (2, *[model.crop.size + 2 * model.rim] * 2, 3), dtype=np.uint8
        )
        for a, b in zip(fast.predict(crops), model.predict(crops)):
            np.testing.assert_allclose(a, b, atol=0.05)
