"Options at their edges: a run, or one sentence with the true cause."
import numpy as np
import onnx
import pandas as pd
import pytest
from fastcore import script
from onnx import helper, numpy_helper

from facerec_nb.apps import commands as cli
from facerec_nb.engines.onnx_embedder import OnnxEmbedder

SMALL = dict(channels=16, stacks=1, input_size=64, epochs=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Six people with six photographs each, two of them held out"
    home = tmp_path_factory.mktemp("six")
    assert cli.facerec_synth(str(home/"data"), ids=6, per_id=6) == 0
    choice = dict(ids=6, per_id=6, min_box=30, keep_blurry=True, unseen=0.34)
    assert cli.facerec_prepare(str(home/"data"), str(home/"dfa"), **choice) == 0
    assert cli.facerec_align(str(home/"dfa"), str(home/"dfr"), model="small") == 0
    return home


@pytest.fixture
def embedder(home, tmp_path, capsys):
    def train(code=0, run=tmp_path, **how):
        assert cli.facerec_train_embedder(str(home/"dfr"), str(run), **dict(epochs=1, batch_size=8) | how) == code
        said = capsys.readouterr()
        assert code == 0 or said.err.count("\n") == 1
        return said.err
    return train


def test_six_photographs_a_person_are_enough(home, embedder):
    rows = pd.read_csv(home/"dfa/selected_images.csv")
    seen = rows[rows.people == "seen"]
    assert seen.groupby(["identity", "split"]).size().unstack().to_numpy().tolist() == [[1, 3, 2]]*4
    embedder()


def test_a_step_needs_two_faces(home, embedder, tmp_path, capsys):
    for head in ("arcface", "ce", "triplet"):
        assert "--batch_size 1 leaves one row" in embedder(1, head=head, batch_size=1)
    assert cli.facerec_train_landmarks(str(home/"dfa"), str(tmp_path/"run"), **SMALL, batch_size=1) == 1
    assert capsys.readouterr().err.count("--batch_size 1 leaves one row") == 1
    embedder(batch_size=2)
    embedder(batch_size=1000)


@pytest.mark.parametrize("head", ["arcface", "ce", "triplet"])
def test_too_high_a_learning_rate_is_named(embedder, head):
    assert "the learning rate is too high" in embedder(1, head=head, lr=1000.)


def test_a_loss_that_is_not_finite_is_one_sentence(home, tmp_path, capsys):
    assert cli.facerec_train_landmarks(str(home/"dfa"), str(tmp_path), **SMALL | dict(epochs=2), lr=1e30) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "lower the learning rate" in err


def test_resume_goes_on_or_says_why_not(embedder):
    embedder(epochs=2)
    why = embedder(1, epochs=3, resume=True)
    assert "with --epochs 2, asked is --epochs 3, which the learning rate follows" in why and "without resume" in why
    embedder(epochs=2, resume=True)
    embedder(epochs=3)


@pytest.mark.parametrize("typed", ["--batch-size", "--batch_size"])
def test_options_are_spelled_as_the_shell_does(typed):
    sep = "_" if hasattr(script, "Param") else "-"
    assert cli.one_spelling(["in-put", typed, "1", f"{typed}=2", "-x_y"]) == [
        "in-put", f"--batch{sep}size", "1", f"--batch{sep}size=2", "-x_y"]


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_embedders_of_any_precision(tmp_path, kind):
    "As converters write them: input, weights and answers in half or single precision"
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    weights = np.random.default_rng(0).standard_normal((12, 8)).astype(kind)/10
    nodes = [helper.make_node("AveragePool", ["data"], ["small"], kernel_shape=[56, 56], strides=[56, 56]),
             helper.make_node("Flatten", ["small"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["fc1"])]
    takes = helper.make_tensor_value_info("data", number, ["n", 3, 112, 112])
    gives = helper.make_tensor_value_info("fc1", number, ["n", 8])
    graph = helper.make_graph(nodes, "g", [takes], [gives], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path/"e.onnx")
    faces = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), np.uint8)
    emb = OnnxEmbedder(tmp_path/"e.onnx", threads=1).embed(faces)
    assert emb.dtype == np.float32 and emb.shape == (5, 8)
    assert np.abs(np.linalg.norm(emb, axis=1) - 1).max() < 1e-5
