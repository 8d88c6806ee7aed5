"Every loss by name, from the recogniser and the command line: it learns, it is saved whole, and it goes on exactly."

import functools

import numpy as np
import pandas as pd
import pytest
import torch

from facerec_nb.apps import commands as cli
from facerec_nb.faces import recognition
from facerec_nb.datasets.celeba_files import POINT_COLUMNS
from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.core.files import write_image
from facerec_nb.models.heads import HEADS
from facerec_nb.core.metrics import auc, pair_scores
from facerec_nb.faces.embedder import FaceEmbedder
from facerec_nb.evaluation.embedder_exam import evaluate
from facerec_nb.faces.recognition import train_embedder
from facerec_nb.models.training import fit

SIDE, PEOPLE, PHOTOS = 32, 9, 8
QUICK = dict(batch_size=10, lr=5e-3, emb_dim=32, precision="fp32", augment=None)


@pytest.fixture(scope="module")
def data():
    "Nine 'people': each a coloured pattern under noise; five of them are trained on"
    rng = np.random.default_rng(0)
    base = rng.integers(50, 190, (PEOPLE, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    ids = np.arange(PEOPLE).repeat(PHOTOS)
    faces = np.clip(base[ids] + rng.normal(0, 25, (len(ids), SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    split = (["train"] * 4 + ["val"] * 2 + ["test"] * 2) * PEOPLE
    return pd.DataFrame(
        dict(
            image_id=[f"{i:03d}.jpg" for i in range(len(ids))],
            identity=ids + 1,
            split=split,
            people=np.where(ids < 5, "seen", "unseen"),
        )
    ), faces


@pytest.mark.parametrize(
    "head, kw",
    [*((h, {}) for h in HEADS), ("arcface", dict(centres=3)), ("triplet", dict(mining="random"))],
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_every_head_learns_and_is_saved_whole(head, kw, data, tmp_path):
    out = train_embedder(data, tmp_path, head=head, epochs=25, head_kw=kw, **QUICK)
    name = "af" if head == "arcface" else head
    assert out["path"] == str(tmp_path / f"best_{name}.pth")
    ck, model = load_checkpoint(out["path"], "embedder"), FaceEmbedder.load(out["path"])
    assert ck["arch"]["head"]["name"] == head and all(ck["arch"]["head"][k] == v for k, v in kw.items())
    assert set(ck["weights"]["head"]) == set(model.model["head"].state_dict())
    seen = (data[0].people == "seen").to_numpy()
    assert auc(*pair_scores(model.embed(data[1][seen]), data[0].identity[seen].to_numpy())) > 0.9
    if model.model["head"].classifies:
        assert (model.classify(data[1][seen]) == data[0].identity[seen]).mean() > 0.8


def test_heads_are_evaluated_by_name(data, tmp_path):
    for head in ("adaface", "triplet"):
        train_embedder(data, tmp_path, head=head, epochs=2, **QUICK)
    metrics = evaluate(data, tmp_path, ("adaface", "triplet"), n_boot=20)["metrics"]
    assert 0 <= metrics["auc_unseen_adaface"]["value"] <= 1 and metrics["top1_triplet"]["n"] == 10


def test_adaface_resumes_exactly(data, tmp_path, monkeypatch):
    "Stopped after two of five epochs and resumed, the running averages and all weights end with the same bits"
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_embedder(data, whole, head="adaface", epochs=5, **QUICK)
    monkeypatch.setattr(recognition, "fit", functools.partial(fit, until=2))
    train_embedder(data, halves, head="adaface", epochs=5, **QUICK)
    stopped = load_checkpoint(halves / "last_adaface.pth")["weights"]["head"]
    monkeypatch.undo()
    train_embedder(data, halves, head="adaface", epochs=5, resume=True, **QUICK)
    a, b = (load_checkpoint(r / "last_adaface.pth")["weights"] for r in (whole, halves))
    assert stopped["batches"] == 4 and a["head"]["batches"] == 10 and a["head"]["norm_std"] > 0
    assert all(torch.equal(v, b[part][k]) for part in a for k, v in a[part].items())


def test_the_command_takes_every_name(data, tmp_path, capsys):
    "`facerec_train_embedder --head NAME`, and a wrong name is answered with the right ones"
    table, faces = data
    for name, face in zip(table.image_id, faces):
        write_image(tmp_path / "faces_aligned" / name, face)
    table.assign(
        class_id=table.identity - 1, **dict.fromkeys([*POINT_COLUMNS, "confidence", "sharpness", "nme"], 1.0)
    ).to_csv(tmp_path / "aligned_pred_all.csv", index=False)
    for head in HEADS:
        assert (
            cli.facerec_train_embedder(
                str(tmp_path), str(tmp_path / "run"), head=head, epochs=1, batch_size=16, emb_dim=16
            )
            == 0
        )
        assert (tmp_path / "run" / f"best_{'af' if head == 'arcface' else head}.pth").exists()
    assert cli.facerec_train_embedder(str(tmp_path), str(tmp_path / "run"), head="sphereface") == 1
    assert "choose one of ce, normface, cosface, arcface, adaface, triplet" in capsys.readouterr().err
