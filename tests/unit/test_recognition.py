"The recogniser from outside: what a checkpoint holds, what is refused, and that colours matter."

import json

import numpy as np
import pandas as pd
import pytest

from facerec_nb.models.checkpoint import load_checkpoint, save_checkpoint
from facerec_nb.evaluation.embedder_exam import evaluate, report
from facerec_nb.faces.embedder import FaceEmbedder, load_faces
from facerec_nb.core.files import InputError
from facerec_nb.core.metrics import auc, pair_scores
from facerec_nb.faces.recognition import EmbedderCfg, train_embedder

SIDE, PEOPLE, PHOTOS = 32, 12, 8
QUICK = EmbedderCfg(epochs=20, batch_size=14, lr=5e-3, emb_dim=32, precision="fp32", augment=None)


def coloured_people(seed=0):
    "Twelve 'people': each a coloured pattern, redder than blue, under noise; learned in seconds"
    rng = np.random.default_rng(seed)
    base = (rng.integers(50, 190, (PEOPLE, 4, 4, 3)) + np.array([40, 0, -40])).repeat(8, 1).repeat(8, 2)
    ids = np.arange(PEOPLE).repeat(PHOTOS)
    faces = np.clip(base[ids] + rng.normal(0, 25, (len(ids), SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    split = (["train"] * 4 + ["val"] * 2 + ["test"] * 2) * PEOPLE
    table = pd.DataFrame(
        dict(
            image_id=[f"{i:03d}.jpg" for i in range(len(ids))],
            identity=ids + 1,
            split=split,
            people=np.where(ids < 7, "seen", "unseen"),
        )
    )
    return table, faces


@pytest.fixture(scope="module")
def data():
    return coloured_people()


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    "CE and ArcFace, a few epochs each"
    run = tmp_path_factory.mktemp("run")
    for head in ("ce", "arcface"):
        train_embedder(data, run, QUICK, head=head)
    return run


def test_checkpoint_holds_what_its_user_needs(run):
    ck = load_checkpoint(run / "best_af.pth", "embedder")
    assert set(ck["weights"]) == {"backbone", "head"} and ck["weights"]["head"]["weight"].shape == (7, 32)
    assert ck["classes"] == [1, 2, 3, 4, 5, 6, 7] and ck["seed"] == 0 and len(ck["data"]) == 16
    assert (
        ck["preprocessing"]["colour"] == "RGB"
        and ck["preprocessing"]["size"] == SIDE
        and ck["preprocessing"]["template"] == "arcface"
    )
    assert (
        ck["threshold"]["n_impostor"] == 84
        and -1 <= ck["threshold"]["threshold"] <= 1
        and "cannot resolve" in ck["threshold"]["note"]
    )
    assert ck["metrics"]["val_top1"] > 0.5


def test_a_checkpoint_without_its_head_is_refused(run, tmp_path):
    ck = load_checkpoint(run / "best_af.pth")
    bare = {k: v for k, v in ck.items() if k not in ("schema", "versions")} | dict(
        weights=dict(backbone=ck["weights"]["backbone"])
    )
    save_checkpoint(tmp_path / "bare.pth", **bare)
    with pytest.raises(InputError, match="holds no head"):
        FaceEmbedder.load(tmp_path / "bare.pth")
    with pytest.raises(InputError, match="does not exist"):
        FaceEmbedder.load(tmp_path / "none.pth")


def test_same_seed_same_weights(data, run, tmp_path):
    train_embedder(data, tmp_path, QUICK, head="arcface")
    a, b = (FaceEmbedder.load(r / "best_af.pth").embed(data[1][:8]) for r in (run, tmp_path))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_colours_matter_and_their_exchange_is_refused(data, run):
    model, (table, faces) = FaceEmbedder.load(run / "best_ce.pth"), data
    with pytest.raises(InputError, match="red and blue seem exchanged"):
        model.embed(faces[..., ::-1])
    model.embed(faces[:1, ..., ::-1])  # one blue face may be stage light
    seen = (table.people == "seen").to_numpy()
    ids = table.identity.to_numpy()[seen]
    right, wrong = model.embed(faces[seen]), model.embed(faces[seen][..., ::-1], check_colour=False)
    other = ids[:, None] != ids

    def share_nearer(probe):
        return np.mean([(probe[i] @ right[i] > (right @ probe[i])[other[i]]).mean() for i in range(len(ids))])

    assert share_nearer(right) == 1 and share_nearer(wrong) < 0.9
    assert auc(*pair_scores(right, ids)) > 0.9


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t, f: (t, f[:, :16]), "square RGB faces"),
        (lambda t, f: (t, f[1:]), "rows need as many"),
        (lambda t, f: (t, f.astype(float)), "uint8"),
        (lambda t, f: (t[:0], f[:0]), "holds no aligned faces"),
        (lambda t, f: (t.drop(columns="people"), f), "no column people"),
        (lambda t, f: (t.assign(people=["seen", "unseen"] * (len(t) // 2)), f), "both seen and unseen"),
    ],
)
def test_tables_that_cannot_be_used(data, spoil, message):
    with pytest.raises(InputError, match=message):
        load_faces(spoil(*data))


def test_an_empty_folder_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        load_faces(tmp_path)


def test_too_few_to_train_or_evaluate(data, run, tmp_path):
    table, faces = data
    one = (table.identity == 1).to_numpy()
    with pytest.raises(InputError, match="at least 2 people"):
        train_embedder((table[one], faces[one]), tmp_path)
    seen = (table.people == "seen").to_numpy()
    alone = evaluate((table[seen], faces[seen]), run, n_boot=5)["metrics"]
    assert alone["top1_ce"]["value"] is not None and alone["auc_unseen_ce"]["value"] is None
    assert all(m["value"] is not None or m["why"] for m in alone.values())
    with pytest.raises(InputError, match="there is no head 'sphereface'"):
        train_embedder(data, tmp_path, head="sphereface")
    with pytest.raises(InputError, match="there is no setting margin: choose from head, backbone"):
        train_embedder(data, tmp_path, margin=0.5)
    assert not list(tmp_path.glob("*.pth"))


def test_report_is_one_page_and_plain_numbers(data, run):
    result = evaluate(data, run, n_boot=50)
    report(data, run, result=result, sections=[("People", {"<img src=x onerror=alert(1)>": 1})])
    page, rec = (run / "report.html").read_text(), json.loads((run / "report.json").read_text())
    assert (
        "<img src=x" not in page
        and "http" not in page
        and page.count("data:image/png;base64,") == len(list((run / "figures").iterdir()))
    )
    assert {
        "top1_ce",
        "top1_arcface",
        "auc_unseen_ce",
        "auc_unseen_arcface",
        "auc_unseen_baseline",
        "tpr_at_fpr05_unseen_arcface",
        "rank1_unseen_ce",
    } <= set(rec["metrics"])
    for name, m in rec["metrics"].items():
        assert m["n"] > 0, name
        if m["low"] is not None:
            assert m["low"] <= m["value"] <= m["high"], name


def test_only_people_held_out_give_a_law_for_galleries(tmp_path):
    "Enough people are watched in both trainings; those who were trained on lie too far apart to tell of strangers"
    rng = np.random.default_rng(0)
    ids = np.arange(48).repeat(4)
    faces = rng.integers(0, 256, (len(ids), SIDE, SIDE, 3), dtype=np.uint8)
    names, split = [f"{i:03d}.jpg" for i in range(len(ids))], ["train", "train", "val", "val"] * 48
    table = pd.DataFrame(dict(image_id=names, identity=ids + 1, split=split, people="seen"))
    out = ids >= 24
    seen, held = (table[~out], faces[~out]), (table[out].assign(people="unseen"), faces[out])
    for name, watched in dict(own=None, others=held).items():
        said = train_embedder(seen, tmp_path / name, QUICK, head="ce", epochs=1, held=watched)["threshold"]["note"]
        tail = load_checkpoint(tmp_path / name / "best_ce.pth")["tail"]
        assert (tail is None) == ("were trained on" in said) == (watched is None)
    assert tail["n_people"] == 24
