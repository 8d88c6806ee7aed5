"The recognition study from outside: killed and started again, refused when its recipe changed, and records with the names that others read."

import cv2
import numpy as np
import pandas as pd
import pytest

import facerec_nb.training
from facerec_nb.cli import facerec_study
from facerec_nb.crops import CropCfg
from facerec_nb.files import InputError, read_json
from facerec_nb.recognition import FaceEmbedder
from facerec_nb.recognition_study import RUNS, Recipe, Study, align_all, attribute_errors, calibrated_threshold, list_jobs, paired_difference, parse_job, summarise

SIDE, QUICK = 32, dict(epochs=3, batch_size=12, emb_dim=16, size=32, lr=5e-3)
ROLES = ["train"]*6 + ["unseen"]*8 + ["calibration"]*5 + ["wild_unseen"]*2 + ["lfw"]*4
NAMES = """top1_ce top1_arcface auc_unseen_ce auc_unseen_arcface auc_unseen_best auc_unseen_baseline tpr_at_fpr05_unseen rank1_unseen dir_at_fpir01_unseen
lfw_view1_accuracy lfw_view1_baseline""".split()


def coloured(seed=0):
    "25 'people' of 5 photographs: a coloured pattern each, under noise; the fifth photograph of those who are trained on is their test"
    rng = np.random.default_rng(seed); ids = np.arange(len(ROLES)).repeat(5)
    base = (rng.integers(50, 190, (len(ROLES), 4, 4, 3)) + np.array([40, 0, -40])).repeat(8, 1).repeat(8, 2)
    faces = np.clip(base[ids] + rng.normal(0, 25, (len(ids), SIDE, SIDE, 3)), 0, 255).astype(np.uint8); k = np.arange(len(ids)) % 5
    role = np.array(ROLES)[ids]; role = np.where((role == "train") & (k == 4), "test", role)
    names = [f"P_{i}_{j + 1:04d}.jpg" for i, j in zip(ids, k)]
    return pd.DataFrame(dict(source=role, image_id=names, identity=ids + 1, role=role, row=np.arange(len(ids)), box="given", align="points", sharpness=rng.random(len(ids)))), faces


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    "LFW's list of pairs: 12 of one person, 12 of two"
    folder = tmp_path_factory.mktemp("raw"); lfw = folder/"lfw-view1-devtest"; lfw.mkdir(); who = range(21, 25)
    same = [f"P_{w}\t{a}\t{b}" for w in who for a, b in ((1, 2), (3, 4), (2, 5))]; other = [f"P_{a}\t{i}\tP_{b}\t{i}" for i in (1, 2) for a in who for b in who if a < b]
    (lfw/"pairsDevTest.txt").write_text("\n".join(["12", *same, *other]) + "\n")
    return folder


@pytest.fixture(scope="module")
def study(raw, tmp_path_factory):
    recipes = {h: Recipe(h, seeds=(0, 1), **QUICK) for h in ("ce", "arcface")} | dict(triplet=Recipe("triplet", together=True, **QUICK))
    s = Study(*coloured(), tmp_path_factory.mktemp("runs"), recipes, raw)
    for name, seed in (("ce", 0), ("ce", 1), ("arcface", 0), ("arcface", 1), ("triplet", 0)): s.train(name, seed)
    return s


def test_a_killed_training_ends_with_the_same_weights(study, tmp_path, monkeypatch):
    again, save = Study(study.table, study.faces, tmp_path, study.recipes, study.raw), facerec_nb.training._save
    def killed(*args): save(*args); raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(facerec_nb.training, "_save", killed)
        with pytest.raises(KeyboardInterrupt): again.train("arcface", 0)
    assert again.trained("arcface") == [] and list_jobs(tmp_path, study.recipes).query("name == 'arcface' and seed == 0").state.item() == "begun"
    again.train("arcface", 0)
    a, b = (FaceEmbedder.load(s.runs/"arcface-0"/"best_af.pth").embed(study.faces[:8]) for s in (study, again))
    np.testing.assert_array_equal(a, b)


def test_a_changed_recipe_is_refused(study):
    other = Study(study.table, study.faces, study.runs, dict(ce=Recipe("ce", **QUICK | dict(lr=1e-3))), study.raw)
    with pytest.raises(InputError, match="another recipe"): other.train("ce", 0)
    less = Study(study.table[study.table.identity != 3], study.faces, study.runs, study.recipes, study.raw)
    with pytest.raises(InputError, match="other faces"): less.train("ce", 0)


def test_nobody_is_in_two_places(study):
    roles = study.table.copy(); roles.loc[roles.identity == 8, "identity"] = 1
    with pytest.raises(InputError, match="person 1 has 2 roles"): Study(roles, study.faces, study.runs)
    train, held = study.training(Recipe())[0], study.watched()[0]
    assert not set(train.identity) & set(held.identity) and not set(train.image_id) & set(study.part("test")[0].image_id)


def test_every_head_is_measured_and_its_threshold_kept(study):
    for name, path in (("ce", "best_ce.pth"), ("arcface", "best_af.pth"), ("triplet", "best_triplet.pth")):
        got, draws, curves = study.measure(name, 0, n_boot=20); stored = FaceEmbedder.load(study.runs/f"{name}-0"/path).threshold
        assert stored["threshold"] == got["threshold"]["value"] and stored["n_impostor"] == got["threshold"]["n"] == 250 and stored["low"] <= stored["threshold"] <= stored["high"]
        assert got["auc_unseen"]["n"] == 780 and got["top1"]["n"] == 6 and got["lfw_view1_accuracy"]["n"] == 24 and len(draws) == 20
        assert sum(curves["pictures"]["angles"]["own"]) == (0 if name == "triplet" else 5)


def test_records(study, tmp_path):
    study.write_run("triplet", tmp_path, 100)
    said = summarise(tmp_path, study.about())
    assert set(NAMES) <= set(said["metrics"]) and all(m["value"] is None for m in said["metrics"].values())
    rec = read_json(tmp_path/"triplet.json"); assert rec["data"]["images"]["unseen"] == 40 and rec["seeds"] == [0] and rec["curves"]["recipe"]["together"]
    diff = study.compare("triplet", "triplet", tmp_path, 100)["metrics"]["auc_unseen"]; assert diff["value"] == diff["low"] == diff["high"] == 0


def test_paired_difference_sees_what_is_there():
    rng = np.random.default_rng(0); shared = rng.normal(size=500)
    a, b = [pd.DataFrame(dict(auc=shared + 0.1, eer=shared + 0.1))], [pd.DataFrame(dict(auc=shared, eer=shared))]
    out = paired_difference(a, b, dict(auc=[0.1], eer=[0.1]), dict(auc=[0.], eer=[0.]))
    assert out["auc"]["p"] < 0.01 < 0.99 < out["eer"]["p"] and out["auc"]["high"] - out["auc"]["low"] < 1e-9


def test_threshold_and_attributes_by_hand():
    rng = np.random.default_rng(1); c = rng.normal(size=(30, 1, 16)); e = (c + 0.6*rng.normal(size=(30, 4, 16))).reshape(-1, 16); e /= np.linalg.norm(e, axis=1, keepdims=True)
    ids = np.arange(30).repeat(4); cut = calibrated_threshold(e, ids, 0.01); sim, same = e @ e.T, ids[:, None] == ids; up = np.triu(np.ones_like(same), 1)
    assert (sim[(up == 1) & ~same] >= cut["threshold"]).mean() == pytest.approx(cut["far"]) and cut["far"] <= 0.01
    all_ = attribute_errors(e, ids, np.ones(120, bool), cut["threshold"], 50)
    assert all_["with"]["fmr"][0] == pytest.approx(cut["far"]) and all_["with"]["fnmr"][0] == pytest.approx(1 - cut["tar"]) and all_["across"]["fmr"] == (None,)*3


class Average:
    "Stands for a landmark network: the average face in every box"
    crop, rim, fingerprint = CropCfg(32), 0, "average"
    def predict(self, crops): return np.tile(np.array([[10., 13], [21, 13], [15.5, 19], [11, 24], [20, 24]]), (len(crops), 1, 1)), np.ones(len(crops))


def test_faces_killed_and_gone_on_with_are_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0); rows = []
    for i in range(6):
        cv2.imwrite(str(tmp_path/f"{i}.png"), rng.integers(0, 256, (160, 128, 3), np.uint8))
        rows.append(dict(source="aligned" if i < 4 else "lfw", image_id=f"{i}.png", path=str(tmp_path/f"{i}.png"), identity=i, role="train" if i < 4 else "lfw", x1=12., y1=10., x2=116., y2=150.))
    rows = pd.DataFrame(rows); rows.loc[4:, ["x1", "y1", "x2", "y2"]] = np.nan; calls = []
    def none(img):
        calls.append(1)
        if len(calls) == 1: raise KeyboardInterrupt
        return np.zeros((0, 4)), np.zeros(0)
    with pytest.raises(KeyboardInterrupt): align_all(rows, Average(), tmp_path/"a", 32, none, block=2)
    table, faces = align_all(rows, Average(), tmp_path/"a", 32, none, block=2); _, whole = align_all(rows, Average(), tmp_path/"b", 32, none, block=4)
    np.testing.assert_array_equal(faces, whole)
    about = read_json(tmp_path/"a"/"faces.json"); assert about["box"]["lfw"]["whole"] == 2 and about["box"]["aligned"]["given"] == 4 and len(table) == 6
    (tmp_path/"a"/f"{about['key']}.npy").unlink()
    with pytest.raises(InputError, match="does not exist"): align_all(rows, Average(), tmp_path/"a", 32, none, block=2)


def test_register_and_command(capsys, tmp_path):
    assert RUNS["ce"].seeds == RUNS["arcface"].seeds == (0, 1, 2) and parse_job("base") == ("base", 0) and RUNS["course"].head_kw == dict(scale=30.0, margin=0.5, smoothing=0.1)

    assert facerec_study(str(tmp_path/"none"), str(tmp_path/"runs"), train="acrface:0") == 1
    assert "choose one of ce, arcface" in capsys.readouterr().err
    assert facerec_study(str(tmp_path/"none"), str(tmp_path/"runs"), faces=True) == 1 and "has no folder celeba-aligned-3000x5" in capsys.readouterr().err
    assert facerec_study(str(tmp_path/"none"), str(tmp_path/"runs"), state=True) == 0 and capsys.readouterr().out.count("missing") == sum(len(r.seeds) for r in RUNS.values())
