"""Two processes on a CPU train like one: the same curve, every row counted once, one writer, and a process that is
killed costs one epoch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_training import scene, train

from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.models.training import read_log

HERE, BIN = Path(__file__).parent, Path(sys.executable).parent
TOLERANCE = 1e-4  # relative, of losses and sums of weights: float32 added up in another order, for 20 updates


def launch(*command, out):
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")} | dict(
        OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore"
    )
    r = subprocess.run([*map(str, command), str(out)], capture_output=True, text=True, timeout=120, env=env)
    assert r.returncode == 0, (r.stdout + r.stderr)[-6000:]
    return [json.loads((out / f"seen-{k}.json").read_text()) for k in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    scene(out)
    return out, json.loads((out / "seen-0.json").read_text())


@pytest.fixture(scope="module")
def torchrun(tmp_path_factory):
    out = tmp_path_factory.mktemp("torchrun")
    return out, launch(
        BIN / "torchrun", "--nproc_per_node", 2, "--standalone", HERE / "parallel_training.py", "scene", out=out
    )


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    out = tmp_path_factory.mktemp("notebook")
    return out, launch(sys.executable, HERE / "parallel_training.py", "notebook", out=out)


def close(a, b):
    assert a == pytest.approx(b, rel=TOLERANCE, abs=TOLERANCE)


def test_two_processes_give_the_curve_of_one(alone, torchrun):
    """Also with accumulated batches, a clipped gradient and a body that waits; what a row contributes to the log
    does not depend on who saw it"""
    for seen in torchrun[1]:
        assert seen["world"] == 2
        for run in ("plain", "accumulated", "frozen"):
            for k in ("lr", "loss", "first", "held_loss"):
                close(seen["logs"][run][k], alone[1]["logs"][run][k])
        close(seen["sum"], alone[1]["sum"])
    assert alone[1]["logs"]["plain"]["loss"][-1] < 0.6 * alone[1]["logs"]["plain"]["loss"][0], (
        "it learns, so that the curve is one"
    )


def test_notebook_launcher_gives_the_same_curve(alone, notebook):
    "Although the notebook had trained something before"
    for k in ("loss", "held_loss"):
        close(notebook[1][1]["logs"]["plain"][k], alone[1]["logs"]["plain"][k])
    assert [s["world"] for s in notebook[1]] == [2, 2]


def test_rows_that_do_not_divide_evenly_count_once(alone, torchrun):
    for seen in (*torchrun[1], alone[1]):
        assert seen["uneven"] == {"7": [0, 1, 2, 3, 4, 5, 6], "1": [0], "0": []} and seen["mean"] == 3
        assert set(seen["logs"]["plain"]["held_rows"]) == {23}


def test_only_the_first_process_writes(torchrun):
    out, (first, second) = torchrun
    assert second["wrote"] == [] and {"best_plain.pth", "last_plain.pth", "last_normed.pth"} <= set(first["wrote"])
    assert sorted(p.name for p in out.iterdir() if "seen" not in p.name) == sorted(
        [
            *(
                f"{k}_{n}.pth"
                for k in ("best", "last")
                for n in ("plain", "accumulated", "frozen", "normed", "split", "sampled", "half")
            ),
            "log.jsonl",
        ]
    )
    assert read_log(out, "plain").epoch.tolist() == [1, 2, 3, 4]


def test_all_processes_end_with_the_same_model(torchrun):
    "Weights, the averages of the batch normalisation, and the log; in eval mode"
    first, second = ({k: v for k, v in s.items() if k not in ("rank", "wrote", "split")} for s in torchrun[1])
    assert first == second and not first["training"]


def test_batch_normalisation_is_each_process_s_own(alone, torchrun):
    """As the page says: it normalises with the rows of its process, so the curve is near that of one process, but
    not the same"""
    one, two = (s["logs"]["normed"]["loss"] for s in (alone[1], torchrun[1][0]))
    assert one != pytest.approx(two, rel=TOLERANCE) and one[-1] == pytest.approx(two[-1], rel=0.3)


def test_a_killed_process_costs_one_epoch(alone, notebook):
    """The launcher ends the other one, no half file stays, and the run goes on: here with one process, to the
    result of the uninterrupted run"""
    run = notebook[0] / "died"
    assert (
        "exitcode  : -9" in (text := (notebook[0] / "died.txt").read_text()) or "Signal 9" in text or "SIGKILL" in text
    ), text
    assert load_checkpoint(run / "last_model.pth")["epoch"] == 2 and sorted(p.name for p in run.iterdir()) == [
        "best_model.pth",
        "last_model.pth",
        "log.jsonl",
    ]
    model, log = train(run, resume=True)
    close(log.loss.tolist(), alone[1]["logs"]["plain"]["loss"])
    close([p.double().sum().item() for p in model.parameters()], alone[1]["sum"])
    assert torch.is_tensor(load_checkpoint(run / "last_model.pth")["weights"]["head"]["weight"])


def test_a_split_head_is_the_whole_head(torchrun):
    """Two processes with 25 and 26 of 51 centres: loss, the gradients of embeddings and centres, the saved weights,
    the logits"""
    for seen, held in zip(torchrun[1], (25, 26)):
        for name, found in seen["split"].items():
            assert found.pop("held") == held and found.pop("norm") > 0.1
            assert max(found.values()) < 1e-5, (name, found)


def test_a_split_head_trains_saves_and_goes_on_like_the_whole_one(alone, torchrun):
    """The curve of the whole head in one process; its checkpoint holds all centres and their averages; one process
    goes on from it"""
    out, (first, second) = torchrun
    want = alone[1]["logs"]["plain"]
    for seen in (first, second, alone[1]):
        for k in ("loss", "held_loss"):
            close(seen["logs"]["split"][k], want[k])
        assert seen["logs"]["sampled"]["loss"][-1] < 0.7 * seen["logs"]["sampled"]["loss"][0]
    split, plain = (load_checkpoint(out / f"last_{k}.pth") for k in ("split", "plain"))
    assert split["weights"]["head"]["weight"].shape == plain["weights"]["head"]["weight"].shape and {
        k: {n: v.shape for n, v in s.items()} for k, s in split["optimiser"]["state"].items()
    } == {k: {n: v.shape for n, v in s.items()} for k, s in plain["optimiser"]["state"].items()}
    model, log = train(out, name="half", head=dict(split=True), resume=True)
    close(log.loss.tolist(), want["loss"])
    close([p.double().sum().item() for p in model.parameters()], alone[1]["sum"])
