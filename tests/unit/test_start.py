"A training that starts from faces: what the head knows at first, what waits, what goes on exactly, what is refused"
import functools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from facerec_nb.apps import commands as cli
from facerec_nb.core.files import InputError, write_image
from facerec_nb.datasets.celeba_files import POINT_COLUMNS
from facerec_nb.evaluation.embedder_exam import evaluate
from facerec_nb.faces import recognition
from facerec_nb.faces.embedder import FaceEmbedder
from facerec_nb.faces.recognition import EmbedderCfg, train_embedder
from facerec_nb.models.backbones import Embedder
from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.models.heads import create_head
from facerec_nb.models.training import ArrayData, FitCfg, fit

PEOPLE, PHOTOS = 7, 6
QUICK = EmbedderCfg(start="faces", epochs=2, batch_size=7, lr=1e-3, precision="fp32", augment=None)


def patterns(side):
    "Seven 'people': each a coloured pattern under noise, three photographs to learn from; five are seen"
    rng = np.random.default_rng(0)
    ids = np.arange(PEOPLE).repeat(PHOTOS)
    base = rng.integers(50, 190, (PEOPLE, 5, 5, 3))[ids].repeat(side//5 + 1, 1).repeat(side//5 + 1, 2)[:, :side, :side]
    faces = np.clip(base + rng.normal(0, 25, base.shape), 0, 255).astype(np.uint8)
    return pd.DataFrame(dict(image_id=[f"{i:03d}.jpg" for i in range(len(ids))], identity=ids + 1,
                             split=["train", "train", "train", "val", "val", "test"]*PEOPLE,
                             people=np.where(ids < 5, "seen", "unseen"))), faces


@pytest.fixture(scope="module")
def data(): return patterns(150)


def folder_of(data, path, template):
    "What facerec_align would have written"
    table, faces = data
    for name, face in zip(table.image_id, faces): write_image(path/"faces_aligned"/name, face)
    table.assign(class_id=table.identity - 1, **dict.fromkeys([*POINT_COLUMNS, "confidence", "sharpness", "nme"], 1.)
                 ).to_csv(path/"aligned_pred_all.csv", index=False)
    (path/"aligned.json").write_text(json.dumps(dict(template=template, size=faces.shape[1])))
    return path


@pytest.mark.parametrize("head, kw", [("ce", {}), ("normface", {}), ("cosface", {}), ("arcface", {}), ("adaface", {}),
                                      ("arcface", dict(centres=3)), ("arcface", dict(sample=0.5)), ("triplet", {})])
def test_a_head_begins_with_what_the_backbone_knows(head, kw):
    g = torch.Generator().manual_seed(0)
    label = torch.arange(40).repeat(3)
    emb = torch.randn(40, 128, generator=g)[label] + 0.3*torch.randn(120, 128, generator=g) + 2 # all on one side
    head = create_head(head, 128, 40, **kw).eval()
    head.start_from(emb, label)
    if not head.classifies: return
    assert (head(emb).argmax(1) == label).all() and head.loss(emb, label).isfinite()
    others = label != 7
    with pytest.raises(InputError, match="class 7 has no photograph"): head.start_from(emb[others], label[others])


def test_frozen_means_frozen_and_the_head_knows_everybody(data, tmp_path):
    "The whole training frozen: the backbone ends with the public-domain weights, whatever the decay"
    out = train_embedder(data, tmp_path, QUICK, head="ce", frozen_steps=99, weight_decay=1.)
    ck, start = load_checkpoint(out["path"]), Embedder("dlib_resnet", 128, 150, "faces").state_dict()
    assert all(torch.equal(v, start[k]) for k, v in ck["weights"]["backbone"].items())
    assert (ck["start"], ck["preprocessing"]["template"], out["metrics"]["val_top1"]) == ("faces", "dlib", 1.)
    assert "start" not in ck["arch"]["backbone"] and FaceEmbedder.load(out["path"]).template == "dlib"


def test_a_run_stopped_while_frozen_ends_with_the_same_bits(data, tmp_path, monkeypatch):
    whole, halves, cfg = tmp_path/"whole", tmp_path/"halves", QUICK.with_settings(head="arcface", frozen_steps=1)
    train_embedder(data, whole, cfg)
    monkeypatch.setattr(recognition, "fit", functools.partial(fit, until=1))
    train_embedder(data, halves, cfg)
    monkeypatch.undo()
    train_embedder(data, halves, cfg, resume=True)
    a, b = (load_checkpoint(r/"last_af.pth")["weights"] for r in (whole, halves))
    assert all(torch.equal(v, b[part][k]) for part in a for k, v in a[part].items())
    with pytest.raises(InputError, match="trained with frozen_steps=1, asked is frozen_steps=0"):
        train_embedder(data, halves, cfg, resume=True, frozen_steps=0)


def toy():
    torch.manual_seed(0)
    return nn.ModuleDict(dict(backbone=nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)), head=nn.Linear(16, 1)))


def toy_run(**kw):
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    settings = dict(epochs=1, batch_size=16, lr=0.01, schedule="constant", warmup=0., precision="fp32", weight_decay=0.)
    model = toy()
    fit(model, lambda m, b: m["head"](m["backbone"](b["x"])).square().mean(), ArrayData(x=x), FitCfg(**settings | kw))
    def moved(k): return max((p - q).abs().max().item() for p, q in zip(model[k].parameters(), toy()[k].parameters()))
    return {k: moved(k) for k in model}


def test_the_body_learns_at_its_own_rate():
    "AdamW moves a weight by at most about its rate a step: four steps here, of which three may be frozen"
    even, slow, late = toy_run(), toy_run(body_lr=0.1), toy_run(frozen_steps=3)
    assert 0.02 < even["backbone"] < 0.05 and 0.02 < slow["head"] < 0.05
    assert 0.002 < slow["backbone"] < 0.005 and 0.009 < late["backbone"] < 0.0101
    assert toy_run(frozen_steps=4)["backbone"] == 0


def test_what_cannot_be_frozen_is_said(data, tmp_path):
    with pytest.raises(InputError, match="frozen_steps leaves nothing to learn"):
        train_embedder(data, tmp_path, QUICK, head="triplet", together=True, frozen_steps=1)
    assert QUICK.with_settings(head="triplet").fit_cfg(100).frozen_steps == 0 < QUICK.fit_cfg(500).frozen_steps


@pytest.mark.parametrize("settings, message", [
    (dict(start="faces"), "emb_dim 128 and faces of 150 pixels, not 128 and 112.*facerec_align --template dlib"),
    (dict(start="faces", backbone="tiny"), "start 'faces' is for dlib_resnet, not for 'tiny'"),
    (dict(start="imagenet", backbone="dlib_resnet"), "start 'imagenet' is for resnet18 or resnet50"),
    (dict(start="dlib"), "no start 'dlib': choose one of nothing, imagenet, faces")])
def test_a_start_that_there_is_not(settings, message, tmp_path):
    with pytest.raises(InputError, match=message): train_embedder(patterns(112), tmp_path, **settings)


def test_faces_on_another_template_are_refused_with_the_command(data, tmp_path, capsys):
    wrong, run = folder_of(data, tmp_path/"wrong", "arcface"), tmp_path/"run"
    assert cli.facerec_train_embedder(str(wrong), str(run), start="faces") == 1
    said = capsys.readouterr().err
    assert "aligned to the template 'arcface', needed is 'dlib': make them with facerec_align --template dlib" in said
    right = folder_of(data, tmp_path/"right", "dlib")
    assert cli.facerec_train_embedder(str(right), str(run), head="ce", start="faces", epochs=1, batch_size=12) == 0
    with pytest.raises(InputError, match="needed is 'dlib'"): evaluate(wrong, run, ("ce",), n_boot=10)
