"Selections, splits, and a folder that is the same after any number of kills"

import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from facerec_nb.datasets.celeba_files import ATTRIBUTES, BOX_COLUMNS, POINT_COLUMNS, CelebA
from facerec_nb.core.files import InputError, read_json, write_image
from facerec_nb.datasets.recipes import INFORMATIVE, AttributeRich, BalancedIdentities, Chain, Having, Usable
from facerec_nb.datasets.selected import add_splits, check_selected, prepare, read_selected, split_counts
from facerec_nb.datasets.preparation import compare_attributes

RECORD = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "results/annotations/selection.json"
)


def table(n_people=60, per_id=12, seed=0):
    rng = np.random.default_rng(seed)
    n = n_people * per_id
    t = pd.DataFrame(rng.random((n, 40)) < 0.15, columns=ATTRIBUTES)
    t = t.assign(image_id=[f"{i:06d}.jpg" for i in range(n)], identity=np.repeat(np.arange(n_people) * 7 + 3, per_id))
    t = t.assign(
        path="img/" + t.image_id,
        x_1=0,
        y_1=0,
        width=rng.integers(80, 200, n),
        height=200,
        **dict.fromkeys(POINT_COLUMNS, 40),
    )
    return t[["image_id", "path", "identity", *BOX_COLUMNS, *POINT_COLUMNS, *ATTRIBUTES]]


@pytest.fixture
def data(tmp_path):
    "Forty small photographs of five people"
    t = table(5, 8)
    rng = np.random.default_rng(0)
    for p in t.path:
        write_image(tmp_path / "celeba" / p, rng.integers(0, 255, (24, 20, 3), dtype=np.uint8))
    return CelebA(t, pd.DataFrame(columns=["kind", "image_id", "file", "detail", "action"]), tmp_path / "celeba")


EVERYTHING = Usable(min_box=0, drop_blurry=False)


def content(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# ---------------------------------------------------------------- recipes
def test_balanced():
    t = table()
    r = BalancedIdentities(20, 6, min_box=100).select(t)
    assert r.identity.value_counts().tolist() == [6] * 20 and r.width.min() >= 100 and not r.Blurry.any()
    assert r.equals(BalancedIdentities(20, 6, min_box=100).select(t.sample(frac=1, random_state=1)))


def test_too_few_people_says_how_many():
    t = table()
    recipe = BalancedIdentities(50, 11, min_box=100)

    def count(n, box, blurry):
        return int((t[(t.width >= box) & ((~t.Blurry) | blurry)].identity.value_counts() >= n).sum())

    with pytest.raises(InputError) as e:
        recipe.select(t)
    for part in (
        f"{count(11, 100, False)} have that many",
        f"{count(10, 100, False)} with 10 images",
        f"{count(11, 90, False)} with min_box=90",
        f"{count(11, 100, True)} with drop_blurry=False",
    ):
        assert part in str(e.value), (part, str(e.value))


def test_attribute_rich_lifts_the_rare():
    t = table(200, 20)
    r = AttributeRich(50, (5, 8), 320, target=0.3).select(t)
    n = r.identity.value_counts()
    assert len(r) == 320 and len(n) == 50 and n.between(5, 8).all() and r.width.min() >= 100
    assert r[INFORMATIVE].mean().mean() > t[INFORMATIVE].mean().mean() + 0.05
    exact = AttributeRich(50, (5, 8), 320, attributes=("Male", "Smiling"), target=dict(Male=0.4, Smiling=0.1)).select(t)
    assert abs(exact.Male.mean() - 0.4) < 0.02 and abs(exact.Smiling.mean() - 0.1) < 0.02


def test_attribute_rich_uses_people_with_room():
    t = table(40, 12)  # half of the people have five images only
    keep = (t.identity % 2 == 0) | (t.image_id.str[:6].astype(int) % 12 < 5)
    r = AttributeRich(30, (5, 10), 200, min_box=0).select(t[keep])
    assert len(r) == 200 and r.identity.nunique() == 30


def test_scale():
    "Nine seconds at 202,599 rows, says the record"
    m = read_json(RECORD)["metrics"]
    assert m["seconds"]["value"] < 30 and m["seconds"]["n"] > 202599 and m["rich_images"]["value"] == 20000


def test_any_recipe(data, tmp_path):
    @dataclass(frozen=True)
    class First:
        "The first `n` images of everybody"

        n: int = 3

        def select(self, table):
            return table.groupby("identity").head(self.n)

    assert len(prepare(data, First(2), tmp_path / "a")) == 10
    assert len(prepare(data, Chain((First(4), Having("Male", False))), tmp_path / "b")) <= 20

    class Foreign:
        def select(self, table):
            return table.assign(image_id=table.image_id[::-1].to_numpy() + "x")

    with pytest.raises(InputError, match="must select rows of the table"):
        prepare(data, Foreign(), tmp_path / "c")
    with pytest.raises(InputError, match="selects no image"):
        prepare(data, Usable(min_box=5000), tmp_path / "d")


# ---------------------------------------------------------------- splits
@pytest.mark.parametrize("per_id", [1, 2, 3, 7, 20, 25, 30])
def test_splits(per_id):
    t = table(10, per_id)
    r = add_splits(t, unseen=0.2)
    assert r.groupby("identity").people.nunique().max() == 1 and r[r.people == "unseen"].identity.nunique() == 2
    for _, p in r.groupby("identity"):
        assert [(p.split == s).sum() for s in ("train", "val", "test")] == split_counts(per_id).tolist()
    assert (
        sorted(r.class_id.unique()) == list(range(10))
        and r.equals(add_splits(t, unseen=0.2))
        and not r.equals(add_splits(t, unseen=0.2, seed=1))
    )


def test_course_split():
    assert split_counts(25).tolist() == [18, 4, 3] and split_counts(1000).tolist() == [720, 160, 120]


def test_check_selected():
    r = add_splits(table(6, 5))
    r = r.assign(**r[ATTRIBUTES].astype(int))
    check_selected(r)
    with pytest.raises(InputError, match="no column 'split'"):
        check_selected(r.drop(columns="split"))
    with pytest.raises(InputError, match="does not number"):
        check_selected(r.assign(class_id=r.class_id + 1))


def test_compare_attributes():
    t = table()
    c = compare_attributes(t, t[t.Male]).set_index("attribute")
    assert c.loc["Male", "after"] == 1 and c.loc["Male", "diff"] == pytest.approx(1 - t.Male.mean())
    assert (c["low"] <= c["diff"] + 1e-12).all() and (c["diff"] <= c["high"] + 1e-12).all()


# ---------------------------------------------------------------- the folder
def test_written(data, tmp_path):
    out = tmp_path / "out"
    rows = prepare(data, EVERYTHING, out, zip=True, unseen=0.4)
    assert read_selected(out).equals(pd.read_csv(out / "selected_images.csv")) and len(rows) == 40
    assert (out / "selected_image_ids.txt").read_text().split() == rows.image_id.tolist()
    assert pd.read_csv(out / "selected_images_with_classes.csv").columns.tolist() == [
        "image_id",
        "class_id",
    ] and not len(pd.read_csv(out / "skipped.csv"))
    assert all((out / "images" / i).read_bytes() == data.path(i).read_bytes() for i in rows.image_id)
    with zipfile.ZipFile(tmp_path / "out.zip") as z:
        assert z.testzip() is None and len([n for n in z.namelist() if n.startswith("out/images/")]) == 40


def test_copies_where_links_are_impossible(data, tmp_path, monkeypatch):
    prepare(data, EVERYTHING, tmp_path / "links")

    def no(*a):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", no)
    prepare(data, EVERYTHING, tmp_path / "copies")
    assert content(tmp_path / "copies") == content(tmp_path / "links")
    image = next((tmp_path / "copies/images").iterdir())
    assert image.stat().st_nlink == 1


def test_unreadable_photos_are_listed(data, tmp_path):
    victims = data.table.image_id[[3, 17]].tolist()
    for v in victims:
        data.path(v).write_bytes(data.path(v).read_bytes()[:200])
    rows = prepare(data, EVERYTHING, tmp_path / "out")
    skipped = pd.read_csv(tmp_path / "out/skipped.csv")
    assert (
        len(rows) == 38
        and skipped.image_id.tolist() == victims
        and skipped.reason.str.contains("not a readable image").all()
    )
    assert not set(victims) & set(os.listdir(tmp_path / "out/images"))


def test_folder_belongs_to_a_plan(data, tmp_path):
    out = tmp_path / "out"
    prepare(data, EVERYTHING, out)
    prepare(data, BalancedIdentities(3, 2, min_box=0, drop_blurry=False), out)
    assert len(os.listdir(out / "images")) == 6 == len(read_selected(out))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="was not made by"):
        prepare(data, EVERYTHING, tmp_path / "theirs")
    with pytest.raises(InputError, match="inside the CelebA folder"):
        prepare(data, EVERYTHING, data.root / "out")
    with pytest.raises(InputError, match="unseen=2"):
        prepare(data, EVERYTHING, tmp_path / "x", unseen=2)
    assert os.listdir(tmp_path / "theirs") == ["thesis.txt"] and not (tmp_path / "x").exists()


def test_names_cannot_escape(data, tmp_path):
    data.table.loc[0, "image_id"] = "../../escaped.jpg"
    with pytest.raises(InputError, match="points outside"):
        prepare(data, EVERYTHING, tmp_path / "deep/out")
    assert not (tmp_path / "escaped.jpg").exists()


def test_annotations_alone_are_refused(data, tmp_path):
    data.table["path"] = ""
    with pytest.raises(InputError, match="read without photographs"):
        prepare(data, EVERYTHING, tmp_path / "out")


SLOW = """
import sys, time
from facerec_nb.datasets import selected
from facerec_nb.datasets.celeba_files import CelebA
from facerec_nb.datasets.recipes import Usable
import pandas as pd
table = pd.read_pickle(sys.argv[1]); delay = float(sys.argv[3])
# every step takes a while, so that the kill meets each
for name in ("place_photo", "write_csv", "write_zip", "claim_folder"):
    def slow(*a, real=getattr(selected, name)):
        time.sleep(delay)
        out = real(*a)
        time.sleep(delay)
        return out
    setattr(selected, name, slow)
recipe = Usable(min_box=0, drop_blurry=False)
selected.prepare(CelebA(table, None, sys.argv[4]), recipe, sys.argv[2], zip=True, n_workers=2)
"""


def test_killed_and_started_again(data, tmp_path):
    "kill -9 at nine moments: the same bytes in the end, the main table only when all is there, nothing left over"
    data.table.to_pickle(tmp_path / "table.pkl")
    prepare(data, EVERYTHING, tmp_path / "calm/out", zip=True)
    out, kills, partial = tmp_path / "killed/out", 0, 0
    for images in (0, 1, 5, 13, 24, 33, 39, 40, 40):
        p = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(tmp_path / "table.pkl"), str(out), "0.01", str(data.root)],
            stderr=subprocess.DEVNULL,
        )
        while p.poll() is None and (not (out / "prepare.json").exists() or len(os.listdir(out / "images")) < images):
            time.sleep(0.002)
        if images == 40:
            time.sleep(0.02 * kills / 8)
        if p.poll() is None:
            p.send_signal(signal.SIGKILL)
            kills += 1
        p.wait()
        if (out / "selected_images.csv").exists():
            assert len(read_selected(out)) == 40
        else:
            partial += 1
    assert kills >= 7 and partial >= 6
    prepare(data, EVERYTHING, out, zip=True)
    assert content(out.parent) == content(tmp_path / "calm")


def test_no_photograph_is_read_twice(data, tmp_path, monkeypatch):
    "What was placed before the end came is neither decoded nor linked again"
    from facerec_nb.datasets import selected

    read, calls, most = selected.read_image, [], 17

    def dies(path):
        if len(calls) >= most:
            raise KeyboardInterrupt
        calls.append(path)
        return read(path)

    monkeypatch.setattr(selected, "read_image", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(data, EVERYTHING, tmp_path / "killed", n_workers=1)
    assert len(os.listdir(tmp_path / "killed/images")) == 17 and not (tmp_path / "killed/selected_images.csv").exists()
    most = 1000
    prepare(data, EVERYTHING, tmp_path / "killed", n_workers=1)
    assert len(calls) == len(set(calls)) == 40
    prepare(data, EVERYTHING, tmp_path / "killed", n_workers=1)
    prepare(data, EVERYTHING, tmp_path / "calm", n_workers=1)
    assert len(calls) == 80 and content(tmp_path / "killed") == content(tmp_path / "calm")
