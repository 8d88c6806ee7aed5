"The same answer on every processor: an 8-bit file that a processor would add wrongly is seen and not used"
import shutil
import warnings

import cv2
import numpy as np
import pytest
import torch

from facerec_nb.core.installed import packaged
from facerec_nb.models.untrained import untrained_embedder
from facerec_nb.engines import onnx_embedder, onnx_net, proof
from facerec_nb.engines.engine import open_network
from facerec_nb.engines.onnx_embedder import open_embedder
from facerec_nb.engines.onnx_export import TorchAnswers, export_onnx, network_of
from facerec_nb.engines.onnx_files import get_about, read_onnx, seal, set_about
from facerec_nb.engines.onnx_net import OnnxNet
from facerec_nb.engines.proof import WrongAnswers
from facerec_nb.engines.quantise import INT16, eight_bits, largest_pair, quantise_onnx
from facerec_nb.core.geometry import align_face
from facerec_nb.faces.detection import CenterFace
from facerec_nb.faces.embedder import FaceEmbedder
from facerec_nb.faces.points import WAYS
from facerec_nb.datasets.synthetic import sample_faces
from saturating import Saturating


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "A recogniser in 32 bits, in 8 bits with full-range weights (on purpose), and as the project writes it"
    home, s = tmp_path_factory.mktemp("processors"), sample_faces(20, 4, seed=1)
    faces = np.stack([align_face(p, q) for p, q in zip(s["images"], s["points"])])
    x = faces.transpose(0, 3, 1, 2).astype(np.float32)
    export_onnx(untrained_embedder(home/"float.pth"), home/"float.onnx")
    wide = eight_bits(home/"float.onnx", x[::2], full_range=True)
    about = read_onnx(home/"float.onnx")[2] | dict(int8=40)
    set_about(wide, {k: v for k, v in about.items() if k != "sha256"})
    (home/"wide.onnx").write_bytes(seal(wide.SerializeToString()))
    set_about(wide, {k: v for k, v in (about | dict(float="float.onnx")).items() if k != "sha256"})
    (home/"twin.onnx").write_bytes(seal(wide.SerializeToString()))
    quantise_onnx(home/"float.onnx", faces, home/"seven.onnx", least=0.9)
    for name in ("wide", "seven"): shutil.copy(home/"float.pth", home/f"{name}.pth")
    return home


@pytest.fixture
def old_processor(monkeypatch):
    "Files with 8-bit convolutions are added up as without VNNI"
    usual = onnx_net.onnx_session
    def opened(data, threads=None):
        session = usual(data, threads)
        return Saturating(session, data) if b"_quantized" in data else session
    for module in (onnx_net, onnx_embedder): monkeypatch.setattr(module, "onnx_session", opened)
    monkeypatch.setattr(proof, "KNOWN", {})


def test_only_full_range_weights_overflow(files):
    wide, seven = map(largest_pair, (files/"wide.onnx", files/"seven.onnx"))
    assert wide > INT16 >= seven > 0


def test_the_stub_adds_as_the_runtime_does_where_nothing_is_cut_off(files):
    net = OnnxNet(files/"wide.onnx", threads=1)
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 112, 112)).astype(np.float32)
    want, = net.session.run(["embedding"], dict(pixels=x))
    got, = Saturating(net.session, (files/"wide.onnx").read_bytes(), most=2**30).run(["embedding"], dict(pixels=x))
    assert (got*want).sum(1).min() > 0.999


def test_a_saturating_file_is_not_used(files, old_processor):
    with pytest.raises(WrongAnswers, match="wide.onnx does not answer on this processor as was recorded"):
        open_network("embedder", files/"wide.pth", 1, engine="onnx")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert isinstance(open_network("embedder", files/"wide.pth", 1), FaceEmbedder)
    said, = (str(w.message) for w in said)
    assert "its checkpoint is used instead" in said and "\n" not in said


def test_an_embedder_without_checkpoint_has_its_twin(files, old_processor):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = open_embedder(files/"twin.onnx", 1)
    said, = (str(w.message) for w in said)
    assert got.path.name == "float.onnx" and "float.onnx beside it is used instead" in said
    wide = onnx_embedder.OnnxEmbedder(files/"twin.onnx", 1)
    assert got.fingerprint == open_embedder(files/"float.onnx", 1).fingerprint != wide.fingerprint


def test_seven_bits_are_right_there_too(files, old_processor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = open_network("embedder", files/"seven.pth", 1)
    assert chosen.path.name == "seven.onnx" and isinstance(chosen.session, Saturating)


def test_the_detector_is_right_there_too():
    path, photo = packaged("centerface_8.onnx"), sample_faces(1, 1, seed=3)["images"][0]
    assert 0 < largest_pair(path) <= INT16
    net = CenterFace(threads=1)
    photo = cv2.resize(photo, (96, 128), interpolation=cv2.INTER_AREA)
    want = net(photo)
    net.session = Saturating(net.session, path.read_bytes())
    got = net(photo)
    assert len(got) == len(want) == 1
    np.testing.assert_allclose(got, want, atol=0.5)


@pytest.mark.parametrize("name", ["big", "small", *WAYS])
def test_every_packaged_network_carries_its_proof(name):
    about = get_about(read_onnx(packaged(f"landmarks_{name}.onnx"))[1])
    assert len(about["proof"]["answers"]) == 3


def test_the_checkpoint_gives_the_recorded_answers():
    from facerec_nb.faces.landmarks import LandmarkModel
    models = {f"landmarks_{n}": LandmarkModel.load(n, "cpu") for n in ("big", "small", *WAYS)}
    for name, model in models.items():
        about = get_about(read_onnx(packaged(f"{name}.onnx"))[1])
        answers = TorchAnswers(*network_of(model))
        proof.check_proof(name, about, about["proof"], lambda x, a=answers: a(torch.from_numpy(x))[0])


@pytest.mark.parametrize("name", WAYS)
def test_points_in_eight_bits_are_right_there_too(name, old_processor):
    path = packaged(f"landmarks_{name}.onnx")
    assert INT16 >= largest_pair(path) > 0
    found = open_network("landmarks", path, 1, engine="onnx")  # proved with the sums of an old processor
    assert isinstance(found.net.session, Saturating) and found.net.prove() < 0.3
