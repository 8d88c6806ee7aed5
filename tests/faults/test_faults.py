"The table of faults on the training page, row by row: each is provoked, and what the table promises is what happens."

import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from facerec_nb.faces import alignment, crops
from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.faces.crops import CropCfg, read_crops
from facerec_nb.faces import aligned
from facerec_nb.core.files import InputError
from facerec_nb.datasets.recipes import BalancedIdentities
from facerec_nb.datasets.selected import prepare
from facerec_nb.datasets.synthetic import tiny_celeba
from facerec_nb.models.training import ArrayData, FitCfg, fit, read_log, seed_everything

ROOT = Path(__file__).resolve().parents[2]
rng = np.random.default_rng(0)
X = rng.normal(size=(64, 6))
Y = X @ rng.normal(size=6)
CFG = FitCfg(epochs=4, batch_size=16, lr=1e-2, precision="fp32")


def net():
    seed_everything(0)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1))


def mse(m, b):
    return (m(b["x"])[:, 0] - b["y"]).square().mean()


def train(run=None, model=None, y=Y, augment=None, **kw):
    model = model or net()
    return model, fit(model, mse, ArrayData(x=X, y=y), CFG, run, augment=augment, **kw)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def at(step, what):
    "An augmentation that does `what` in a step, counted from 0"
    calls = iter(range(10**6))
    return lambda b, generator: what(b) if next(calls) == step else b


@pytest.fixture(scope="module")
def whole():
    return train()[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("source")
    photos = load_celeba(tiny_celeba(tmp / "celeba", ids=4, per_id=6))
    prepare(
        photos,
        BalancedIdentities(n_ids=4, per_id=6, min_box=20, drop_blurry=False),
        tmp / "data",
        split=(4, 1, 1),
        unseen=0.25,
    )
    return tmp / "data"


@pytest.fixture
def prepared(source, tmp_path):
    return Path(shutil.copytree(source, tmp_path / "data"))


def test_every_row_of_the_table_has_its_test_and_every_test_its_row():
    page = json.loads((ROOT / "nbs/models/training.ipynb").read_text())
    table = "".join(next(s for c in page["cells"] if "## When things break" in (s := "".join(c["source"]))))
    rows = re.findall(r"\| `(\w+)` \|$", table, re.M)
    assert set(rows) == {
        k.removeprefix("test_") for k in globals() if k.startswith("test_") and "every_row" not in k
    } | {"a_killed_process_costs_one_epoch"}
    assert "def test_a_killed_process_costs_one_epoch(" in (ROOT / "tests/faults/test_training_parallel.py").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size stands in for the full disk")
def test_disk_full(tmp_path, whole):
    "A file may not grow over 16 kB: the second checkpoint ends in the middle"
    out = tmp_path / "run"
    train(out, until=1)
    before = (out / "last_model.pth").read_bytes()
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
        with pytest.raises(
            OSError,
            match=r"_model.pth was not written \(.*its disk has [\d,]+ MB left\): what was there before is untouched",
        ) as e:
            train(out, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert (
        isinstance(e.value, InputError)  # a command says it in one line
        and "\n" not in str(e.value)
        and (out / "last_model.pth").read_bytes() == before
        and sorted(p.name for p in out.iterdir()) == ["best_model.pth", "last_model.pth", "log.jsonl"]
    )
    assert load_checkpoint(out / "best_model.pth")["epoch"] == 1 and equal(train(out, resume=True)[0], whole)


def test_folder_gone_while_training(prepared, tmp_path, monkeypatch):
    "The photographs are deleted when the first epoch of a landmark training begins"
    monkeypatch.setattr(alignment, "fit", vanishing(alignment.fit, prepared / "images"))
    run = tmp_path / "run"
    found = alignment.train_landmarks(
        prepared, run, epochs=2, stacks=1, channels=8, depth=1, input_size=32, batch_size=4
    )
    assert (
        not (prepared / "images").exists()
        and found["n_train"] > 4
        and read_log(run).epoch.tolist() == [1, 2]
        and "val" in found
    )


def test_folder_gone_while_reading(prepared, tmp_path, monkeypatch):
    "It vanishes after the third photograph: no model is trained on three"
    calls, warp = iter(range(10**6)), crops.warp

    def vanish(*args, **kw):
        if next(calls) == 3:
            shutil.rmtree(prepared / "images")
        return warp(*args, **kw)

    monkeypatch.setattr(crops, "warp", vanish)
    with pytest.raises(InputError, match="images is gone or empty, it was there a moment ago") as e:
        alignment.train_landmarks(
            prepared, tmp_path / "run", epochs=1, stacks=1, channels=8, depth=1, input_size=32, n_workers=1
        )
    assert "\n" not in str(e.value) and not (tmp_path / "run").exists()


def vanishing(f, folder):
    "The function, called when the folder is gone"

    def g(*args, **kw):
        shutil.rmtree(folder, ignore_errors=True)
        return f(*args, **kw)

    return g


def test_folder_gone_while_aligning(prepared, tmp_path, monkeypatch):
    """It vanishes after the first batch: nothing is listed as skipped for good, and the second try ends where an
    undisturbed one does"""
    shutil.copytree(prepared, tmp_path / "copy")
    want = aligned.align(tmp_path / "copy", "small", tmp_path / "undisturbed", batch_size=4)
    calls, batch = iter(range(100)), aligned.align_batch

    def vanish(*args):
        if next(calls) == 1:
            (prepared / "images").rename(tmp_path / "elsewhere")
        return batch(*args)

    monkeypatch.setattr(aligned, "align_batch", vanish)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="images is gone or empty") as e:
        aligned.align(prepared, "small", out, batch_size=4)
    assert (
        "\n" not in str(e.value)
        and len(list(out.glob("progress/*/*.json"))) == 1
        and not (out / "aligned.json").exists()
    )
    monkeypatch.undo()
    (tmp_path / "elsewhere").rename(prepared / "images")
    pd.testing.assert_frame_equal(aligned.align(prepared, "small", out, batch_size=4), want)


def test_thread_dies(prepared, monkeypatch):
    """An exception that is not about a photograph (no memory, a bug) is not swallowed as a bad photograph: it
    arrives, and no thread hangs"""
    paths = sorted((prepared / "images").glob("*.jpg"))
    boxes = np.tile([20.0, 20, 80, 80], (len(paths), 1))
    threads = threading.active_count()
    calls = iter(range(10**6))

    def dies(*args, warp=crops.warp, **kw):
        if next(calls) == 3:
            raise MemoryError("no memory for a thread")
        return warp(*args, **kw)

    monkeypatch.setattr(crops, "warp", dies)
    with pytest.raises(MemoryError, match="no memory for a thread"):
        read_crops(paths, boxes, CropCfg(), n_workers=2)
    assert threading.active_count() <= threads + 1


def test_nan_in_a_row(tmp_path, whole):
    """Rows 5 and 40 are not numbers: the sentence names what it found in the first batch that holds one of them,
    and the weights are from before it"""
    bad = Y.copy()
    bad[[5, 40]] = np.nan
    model = net()
    with pytest.raises(
        FloatingPointError,
        match=r"the loss is nan in epoch 1, batch \d .*; "
        r"the training data is not finite in row (5|40|5, 40|40, 5): repair or remove it$",
    ):
        train(tmp_path / "run", model, y=bad)
    assert (
        all(p.isfinite().all() for p in model.parameters()) and not model.training and not (tmp_path / "run").exists()
    )
    out = tmp_path / "later"
    with pytest.raises(FloatingPointError, match="in epoch 3, batch 2 .*augmentation left row"):
        train(out, augment=at(2 * 4 + 1, lambda b: b | dict(x=b["x"] * np.nan)))
    assert equal(train(out, resume=True)[0], whole)


def test_ctrl_c(tmp_path, whole):
    "A true SIGINT in the third epoch"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

    def interrupt(b):
        os.kill(os.getpid(), signal.SIGINT)
        return b

    out, model = tmp_path / "run", net()
    with pytest.raises(
        KeyboardInterrupt,
        match=r"^model: stopped in epoch 3 of 4; .*last_model.pth holds epoch 2, go on with resume=True$",
    ):
        train(out, model, augment=at(2 * 4 + 1, interrupt))
    assert (
        not model.training
        and load_checkpoint(out / "last_model.pth")["epoch"] == 2
        and read_log(out).epoch.tolist() == [1, 2]
    )
    assert equal(train(out, resume=True)[0], whole) and read_log(out).epoch.tolist() == [1, 2, 3, 4]
