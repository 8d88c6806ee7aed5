"The recognition study from outside: killed and started again, refused when its recipe changed, and its records' names."
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import facerec_nb.models.training
from facerec_nb.evaluation.calibration import calibrated_threshold
from facerec_nb.faces.crops import CropCfg
from facerec_nb.faces.embedder import FaceEmbedder
from facerec_nb.core.files import InputError, read_json
from facerec_nb.core.records import metric, record, write_record
from studies.recognition import FACES, RUNS, Recipe, Study, align_all, attribute_errors, list_jobs, main
from studies.recognition import paired_difference, parse_job, summarise
from studies.recognition_faces import of_photographs, one_place
from studies.recognition_measures import triplet_share

SIDE, QUICK = 32, dict(epochs=3, batch_size=12, emb_dim=16, size=32, lr=5e-3)
ROLES = ["train"]*6 + ["unseen"]*8 + ["calibration"]*5 + ["wild_unseen"]*2 + ["lfw"]*4
NAMES = """top1_ce top1_arcface auc_unseen_ce auc_unseen_arcface auc_unseen_best auc_unseen_baseline tpr_at_fpr05_unseen
rank1_unseen dir_at_fpir01_unseen lfw_view1_accuracy lfw_view1_baseline top1_start_faces top1_ce_faces
top1_arcface_faces top1_course_ce_faces top1_course_arcface_faces auc_unseen_ce_faces auc_unseen_arcface_faces
tpr_at_fpr05_faces lfw_view1_accuracy_faces rank1_faces dir_at_fpir01_faces triplet_share_faces""".split()

ABOUT = dict(name="none", fingerprint="0", n_images=1, n_people=1)


def coloured(seed=0):
    "25 'people' of 5 photographs: a coloured pattern each, under noise; the fifth of those who train is their test"
    rng, n = np.random.default_rng(seed), len(ROLES)
    ids, k = np.arange(n).repeat(5), np.tile(np.arange(5), n)
    base = (rng.integers(50, 190, (n, 4, 4, 3)) + np.array([40, 0, -40])).repeat(8, 1).repeat(8, 2)
    faces = np.clip(base[ids] + rng.normal(0, 25, (len(ids), SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    role = np.array(ROLES)[ids]
    role = np.where((role == "train") & (k == 4), "test", role)
    names = [f"P_{i}_{j + 1:04d}.jpg" for i, j in zip(ids, k)]
    table = dict(source=role, image_id=names, identity=ids + 1, role=role, row=np.arange(len(ids)), box="given")
    return pd.DataFrame(table | dict(align="points", sharpness=rng.random(len(ids)))), faces


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    "LFW's list of pairs: 12 of one person, 12 of two"
    folder, who = tmp_path_factory.mktemp("raw"), range(21, 25)
    (folder/"lfw-view1-devtest").mkdir()
    same = [f"P_{w}\t{a}\t{b}" for w in who for a, b in ((1, 2), (3, 4), (2, 5))]
    other = [f"P_{a}\t{i}\tP_{b}\t{i}" for i in (1, 2) for a in who for b in who if a < b]
    (folder/"lfw-view1-devtest/pairsDevTest.txt").write_text("\n".join(["12", *same, *other]) + "\n")
    return folder


@pytest.fixture(scope="module")
def study(raw, tmp_path_factory):
    recipes = {h: Recipe(h, seeds=(0, 1), **QUICK) for h in ("ce", "arcface")}
    recipes["triplet"] = Recipe("triplet", together=True, **QUICK)
    s = Study(*coloured(), tmp_path_factory.mktemp("runs"), recipes, raw)
    for name, seed in (("ce", 0), ("ce", 1), ("arcface", 0), ("arcface", 1), ("triplet", 0)): s.train(name, seed)
    return s


def test_a_killed_training_ends_with_the_same_weights(study, tmp_path, monkeypatch):
    again = Study(study.table, study.faces, tmp_path, study.recipes, study.raw)
    save = facerec_nb.models.training.save_checkpoint
    def killed(path, *args, **kw):
        save(path, *args, **kw)
        if "last" in Path(path).name: raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(facerec_nb.models.training, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt): again.train("arcface", 0)
    jobs = list_jobs(tmp_path, study.recipes)
    assert again.trained("arcface") == []
    assert jobs.query("name == 'arcface' and seed == 0").state.item() == "begun"
    again.train("arcface", 0)
    a, b = (FaceEmbedder.load(s.runs/"arcface-0"/"best_af.pth").embed(study.faces[:8]) for s in (study, again))
    np.testing.assert_array_equal(a, b)


def test_a_changed_recipe_is_refused(study):
    other = Study(study.table, study.faces, study.runs, dict(ce=Recipe("ce", **QUICK | dict(lr=1e-3))), study.raw)
    with pytest.raises(InputError, match="another recipe"): other.train("ce", 0)
    less = Study(study.table[study.table.identity != 3], study.faces, study.runs, study.recipes, study.raw)
    with pytest.raises(InputError, match="other faces"): less.train("ce", 0)


def test_nobody_is_in_two_places(study):
    roles = study.table.copy()
    roles.loc[roles.identity == 8, "identity"] = 1
    with pytest.raises(InputError, match="person 1 has 2 roles"): Study(roles, study.faces, study.runs)
    train, held, test = study.training(Recipe())[0], study.watched()[0], study.part("test")[0]
    assert not set(train.identity) & set(held.identity) and not set(train.image_id) & set(test.image_id)


@pytest.mark.parametrize("name, file", dict(ce="best_ce", arcface="best_af", triplet="best_triplet").items())
def test_every_head_is_measured_and_its_threshold_kept(study, name, file):
    got, draws, curves = study.measure(name, 0, n_boot=20)
    stored = FaceEmbedder.load(study.runs/f"{name}-0"/f"{file}.pth").threshold
    assert stored["threshold"] == got["threshold"]["value"] and stored["n_impostor"] == got["threshold"]["n"] == 250
    assert stored["low"] <= stored["threshold"] <= stored["high"]
    assert [got[k]["n"] for k in ("auc_unseen", "top1", "lfw_view1_accuracy")] == [780, 6, 24] and len(draws) == 20
    assert sum(curves["pictures"]["angles"]["own"]) == (0 if name == "triplet" else 5)


def test_records(study, tmp_path):
    study.write_run("triplet", tmp_path, 100)
    said = summarise(tmp_path, study.about())
    assert set(NAMES) <= set(said["metrics"]) and all(m["value"] is None for m in said["metrics"].values())
    rec = read_json(tmp_path/"triplet.json")
    assert said["curves"]["best_faces"] is None and rec["command"] == "python -m studies.recognition"
    assert rec["data"]["images"]["unseen"] == 40 and rec["seeds"] == [0] and rec["curves"]["recipe"]["together"]
    diff = study.compare("triplet", "triplet", tmp_path, 100)["metrics"]["auc_unseen"]
    assert diff["value"] == diff["low"] == diff["high"] == 0


def test_the_best_from_faces_is_chosen_on_the_calibration_people(tmp_path):
    for name, tar in (("start_faces", 0.9), ("ce_faces", 0.8), ("course_ce_faces", 0.95)):
        numbers = dict(tar_at_threshold_calibration=metric(tar), lfw_view1_accuracy=metric(1 - tar))
        write_record(tmp_path/f"{name}.json", record(name, "c", ABOUT, numbers))
    said = summarise(tmp_path, ABOUT)
    assert said["curves"]["best_faces"] == "start_faces"
    assert said["metrics"]["lfw_view1_accuracy_faces"]["value"] == pytest.approx(0.1)


def test_other_people_train_at_the_ratio_of_the_course(study):
    rows = study.table.assign(source=study.table.source.replace(dict(calibration="wild", wild_unseen="wild")))
    other = one_place(of_photographs(rows, split=(3, 0, 2), n_watched=2))
    count = other.role.value_counts().to_dict()
    assert count == dict(train=21, test=14, unseen=40, lfw=20, spare=20, calibration=10)
    assert set(other[other.role.isin(["train", "test"])].source) == {"wild"}
    recipes = dict(few=Recipe(photographs=True), many=Recipe())
    both = Study(rows, study.faces, study.runs, recipes, study.raw)
    assert both.playing("many") is both and both.playing("few").about()["people"]["train"] == 7


def test_all_triplets_are_counted():
    ids = np.array([0, 0, 1, 1, 2])
    e = np.array([[1, 0], [0.8, 0.6], [0, 1], [1, 0], [-1, 0]], float)
    assert triplet_share(e, ids)[:4] == pytest.approx([2/3, 2/3, 0, 1/3]) and np.isnan(triplet_share(e, ids)[4])


def test_paired_difference_sees_what_is_there():
    shared = np.random.default_rng(0).normal(size=500)
    a, b = [pd.DataFrame(dict(auc=shared + 0.1, eer=shared + 0.1))], [pd.DataFrame(dict(auc=shared, eer=shared))]
    out = paired_difference(a, b, dict(auc=[0.1], eer=[0.1]), dict(auc=[0.], eer=[0.]))
    assert out["auc"]["p"] < 0.01 < 0.99 < out["eer"]["p"] and out["auc"]["high"] - out["auc"]["low"] < 1e-9


def test_threshold_and_attributes_by_hand():
    rng, ids = np.random.default_rng(1), np.arange(30).repeat(4)
    e = (rng.normal(size=(30, 1, 16)) + 0.6*rng.normal(size=(30, 4, 16))).reshape(-1, 16)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    cut, sim, same = calibrated_threshold(e, ids, 0.01), e @ e.T, ids[:, None] == ids
    impostor = sim[np.triu(~same, 1)]
    assert (impostor >= cut["threshold"]).mean() == pytest.approx(cut["far"]) and cut["far"] <= 0.01
    everybody = attribute_errors(e, ids, np.ones(120, bool), cut["threshold"], 50)
    assert everybody["with"]["fmr"][0] == pytest.approx(cut["far"])
    assert everybody["with"]["fnmr"][0] == pytest.approx(1 - cut["tar"]) and everybody["across"]["fmr"] == (None,)*3
    some = attribute_errors(e, ids, ids < 15, np.median(impostor), 50)
    assert some["times"]["fmr"][0] == pytest.approx(some["with"]["fmr"][0]/some["without"]["fmr"][0])
    assert some["times"]["fmr"][1] <= some["times"]["fmr"][0] <= some["times"]["fmr"][2]


class Average:
    "Stands for a landmark network: the average face in every box"
    crop, rim, fingerprint = CropCfg(32), 0, "average"
    points = np.array([[10., 13], [21, 13], [15.5, 19], [11, 24], [20, 24]])
    def predict(self, crops): return np.tile(self.points, (len(crops), 1, 1)), np.ones(len(crops))


def noise(folder, n=6):
    "Pictures of noise: four with a box, two without"
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        cv2.imwrite(str(folder/f"{i}.png"), rng.integers(0, 256, (160, 128, 3), np.uint8))
        source, role = ("aligned", "train") if i < 4 else ("lfw", "lfw")
        rows.append(dict(source=source, image_id=f"{i}.png", path=str(folder/f"{i}.png"), identity=i, role=role))
    rows = pd.DataFrame(rows).assign(x1=12., y1=10., x2=116., y2=150.)
    rows.loc[4:, ["x1", "y1", "x2", "y2"]] = np.nan
    return rows


def test_faces_killed_and_gone_on_with_are_the_same_bytes(tmp_path):
    rows, calls = noise(tmp_path), []
    def none(img):
        calls.append(1)
        if len(calls) == 1: raise KeyboardInterrupt
        return np.zeros((0, 4)), np.zeros(0)
    def aligned(folder, block): return align_all(rows, Average(), tmp_path/folder, 32, none, block=block)
    with pytest.raises(KeyboardInterrupt): aligned("a", 2)
    (table, faces), (_, whole) = aligned("a", 2), aligned("b", 4)
    np.testing.assert_array_equal(faces, whole)
    about = read_json(tmp_path/"a"/"faces.json")
    assert about["box"]["lfw"]["whole"] == 2 and about["box"]["aligned"]["given"] == 4 and len(table) == 6
    (tmp_path/"a"/f"{about['key']}.npy").unlink()
    with pytest.raises(InputError, match="does not exist"): aligned("a", 2)


def test_register():
    assert RUNS["ce"].seeds == RUNS["arcface"].seeds == (0, 1, 2) and parse_job("base") == ("base", 0)
    assert all(n.endswith("_faces") and r.start == "faces" for n, r in FACES.items()) and not set(FACES) & set(RUNS)
    for k in ("", "course_"):
        ce, arcface = FACES[f"{k}ce_faces"], FACES[f"{k}arcface_faces"]
        assert ce.seeds == arcface.seeds == (0, 1, 2) and (ce.epochs, ce.lr) == (arcface.epochs, arcface.lr)
    assert RUNS["course"].head_kw == dict(scale=30.0, margin=0.5, smoothing=0.1) and RUNS["course"].head == "arcface"


def test_command(capsys, tmp_path):
    where = ["--data", str(tmp_path/"none"), "--runs", str(tmp_path/"runs")]
    assert main([*where, "--train", "acrface:0"]) == 1
    assert "choose one of ce, arcface" in capsys.readouterr().err
    assert main([*where, "--faces"]) == 1
    assert "has no folder celeba-aligned-3000x5" in capsys.readouterr().err
    for start, recipes in (("nothing", RUNS), ("faces", FACES)):
        assert main([*where, "--state", "--start", start]) == 0
        assert capsys.readouterr().out.count("missing") == sum(len(r.seeds) for r in recipes.values())


def test_a_recipe_without_all_of_its_seeds_keeps_its_record(monkeypatch, tmp_path):
    study, written, trained = Study.__new__(Study), [], dict(ce=[0], arcface=[0])
    study.recipes = dict(ce=Recipe("ce", seeds=(0, 1)), arcface=Recipe())
    monkeypatch.setattr(Study, "trained", lambda self, name: trained[name])
    monkeypatch.setattr(Study, "write_run", lambda self, name, out, n_boot: written.append(name))
    monkeypatch.setattr(Study, "about", lambda self: ABOUT)
    study.write_records(tmp_path)
    assert written == ["pixels", "arcface"]
