"Faces into people: no giant person, nothing doubled, what a user decided stays, nothing leaves its folder."

import os
import shutil
import stat

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import AgglomerativeClustering

from facerec_nb.core.files import InputError, read_image, write_image
from facerec_nb.evaluation.clusters import bcubed
from facerec_nb.pipeline.answers import Face, Faces
from facerec_nb.pipeline.clustering import group_faces, group_similarity
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline import photo_groups
from facerec_nb.pipeline.gallery import Gallery
from facerec_nb.pipeline.photo_groups import apply_edits, cluster_photos, read_groups


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def toy(people, per, noise=0.6, dim=64, seed=0):
    "Embeddings of people, and who they are"
    rng = np.random.default_rng(seed)
    e = unit(rng.standard_normal((people, 1, dim))) + noise * rng.standard_normal((people, per, dim)) / np.sqrt(dim)
    return unit(e).reshape(-1, dim), np.repeat(np.arange(people), per)


def alike(a, b):
    return bcubed(a, b)[2] == 1


def linked(emb, cosine, linkage):
    settings = dict(n_clusters=None, distance_threshold=1 - cosine, metric="cosine", linkage=linkage)
    return AgglomerativeClustering(**settings).fit_predict(emb)


# the giant person

@pytest.fixture
def siblings():
    "Two alike people with 30 faces each, and a chain of 15 faces that leads from one to the other"
    rng = np.random.default_rng(1)
    a, b = unit(rng.standard_normal((2, 128)))
    b = unit(0.75 * a + np.sqrt(1 - 0.75**2) * unit(b - (a @ b) * a))
    path = [(1 - t) * a + t * b for t in np.linspace(0, 1, 17)[1:-1]]
    return unit(np.concatenate([np.repeat([a, b], 30, 0), path]) + 0.02 * rng.standard_normal((75, 128)))


def test_a_chain_between_siblings_makes_no_giant(siblings):
    glued = linked(siblings, 0.85, "single")
    assert np.bincount(glued).max() == 75, "the chain must be one that nearest pairs fall for"
    found = group_faces(siblings, np.arange(75), 0.85)
    assert len(set(found[:30])) == len(set(found[30:60])) == 1 and found[0] != found[30]


def squeezed(emb, towards=6):
    "The same people in a space where strangers have cosines near 0.85, as with the real network"
    return unit(emb + np.sqrt(towards) * unit(np.ones(emb.shape[1])))


def test_poor_faces_that_resemble_everybody_join_nobody():
    "Forty poor faces in the middle of everybody: told that they are poor, the grouping is as without them"
    good, who = toy(12, 10, noise=0.4)
    middle = np.repeat(good.mean(0, keepdims=True), 40, 0) + 0.1 * toy(40, 1, seed=5)[0]
    emb, poor = squeezed(np.concatenate([good, middle])), np.arange(160) >= 120
    found = group_faces(emb, np.arange(160), 0.95, poor)
    assert alike(found[:120], who) and not set(found[poor]) & set(found[~poor])
    near = group_faces(emb, np.arange(160), 0.95, poor, near=0.8)
    assert alike(near[:120], who) and not set(near[poor]) & set(near[~poor]), "near to all is clearly near to nobody"
    low = np.quantile(emb[:120] @ emb[-1], 0.1)
    glued = linked(emb, low, "single")
    assert np.bincount(glued).max() > 100, "nearest pairs at that cosine make the giant"


def test_a_poor_face_finds_its_person_once_per_photograph():
    good, who = toy(5, 6, noise=0.4)
    poor = unit(good[[0, 0, 6]] + 0.5 * toy(3, 1, seed=9)[0])
    photo = np.r_[np.arange(30), 50, 50, 51]
    found = group_faces(np.concatenate([good, poor]), photo, 0.5, np.arange(33) >= 30)
    assert found[32] == found[6] and (found[30:32] == found[0]).sum() == 1


# what is known beforehand

def test_equals_scikit_learn_where_nothing_is_known():
    for seed in range(3):
        emb, _ = toy(25, 7, noise=1.2, seed=seed)
        for cut in (0.2, 0.35, 0.5):
            assert alike(group_faces(emb, np.arange(len(emb)), cut), linked(emb, cut, "average"))


def test_two_faces_of_one_photograph_are_two_people():
    emb, _ = toy(1, 20, noise=0.1)
    found = group_faces(emb, np.arange(20) // 2, 0.5)
    assert all(found[i] != found[i + 1] for i in range(0, 20, 2)) and len(set(found)) < 5


def test_a_hundred_photographs_cannot_outvote_a_photograph_of_both():
    "Two who look the same, a hundred photographs of each, one of both"
    emb, _ = toy(1, 202, noise=0.3)
    photo = np.arange(202)
    photo[101] = photo[0]
    found = group_faces(emb, photo, 0.3)
    assert found[0] != found[101]


def test_old_groups_stay():
    emb, who = toy(8, 12, noise=0.5)
    rng = np.random.default_rng(0)
    seen = rng.permutation(96) < 40
    old = np.zeros(96, int)
    old[seen] = group_faces(emb[seen], np.arange(seen.sum()), 0.5)
    new = group_faces(emb, np.arange(96), 0.5, old=old)
    assert (new[seen] == old[seen]).all() and alike(new, who)
    wrong = np.where(seen, rng.integers(1, 4, 96), 0)
    assert (group_faces(emb, np.arange(96), 0.5, old=wrong)[seen] == wrong[seen]).all()


def test_too_many_faces_that_hang_together_are_refused():
    emb, _ = toy(1, 50, noise=0.1)
    with pytest.raises(InputError, match="50 faces hang together at the cosine 0.500, more than the 40"):
        group_faces(emb, np.arange(50), 0.5, limit=40)


def test_nobody_and_one():
    none = np.zeros((0, 8), np.float32)
    assert group_faces(none, np.zeros(0, int), 0.5).tolist() == []
    assert group_faces(np.eye(1, 8, dtype=np.float32), np.zeros(1, int), 0.5).tolist() == [1]
    assert group_faces(np.eye(2, 8, dtype=np.float32), np.arange(2), 0.5, np.ones(2, bool)).tolist() == [1, 2]
    assert np.isnan(group_similarity(np.eye(2), np.arange(2), np.zeros(2, bool))).all()


# the folder

class Patches(FacePipeline):
    "Each 32 px patch of a picture is a face; its colour is who it is"
    def __init__(self):
        super().__init__(None, None, None, "patches", threshold=0.8)
        self.looked = 0

    def stream(self, paths, progress=False):
        for p in paths:
            self.looked += 1
            try:
                img = read_image(p)
            except InputError as e:
                yield Faces(source=p, problem=str(e))
                continue
            yield Faces([self.face(x, img[:, x : x + 32]) for x in range(0, img.shape[1], 32)], p)

    def face(self, x, img):
        e = img.mean((0, 1)).astype(np.float32)
        points = x + np.array([[8, 8], [24, 8], [16, 16], [10, 24], [22, 24]], float)
        return Face(np.array([x, 0, x + 32, 32]), 0.9, points, 0.95, img, e / np.linalg.norm(e))


RED, GREEN = (220, 40, 40), (40, 220, 40)


def paint(path, *colours, seed=0):
    noise = np.random.default_rng(seed).integers(-15, 15, (32, 32 * len(colours), 3))
    patches = np.concatenate([np.full((32, 32, 3), c) for c in colours], 1)
    return write_image(path, np.clip(patches + noise, 0, 255).astype(np.uint8))


@pytest.fixture
def home(tmp_path):
    for i in range(3):
        paint(tmp_path / f"photos/red {i}.png", RED, seed=i)
        paint(tmp_path / f"photos/album/green {i}.png", GREEN, seed=10 + i)
    return tmp_path


def run(home, pipe=None, **more):
    return cluster_photos(pipe or Patches(), home / "photos", home / "out", **more)


def edit(home, change):
    path = home / "out/clusters.csv"
    t = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(t)
    t.to_csv(path, index=False)


def test_a_second_run_looks_at_nothing_and_changes_nothing(home):
    pipe = Patches()
    run(home, pipe)
    table, links = (home / "out/clusters.csv").read_bytes(), sorted((home / "out/people").rglob("*"))
    pipe.looked = 0
    g, told = run(home, pipe)
    assert pipe.looked == 0 and told["new"] == 0 and len(g.table) == 6
    assert (home / "out/clusters.csv").read_bytes() == table and sorted((home / "out/people").rglob("*")) == links


def test_the_output_may_lie_among_the_photographs(home):
    for _ in range(2):
        g, told = cluster_photos(Patches(), home / "photos", home / "photos/out")
    assert len(g.table) == 6 and not told["copies"]


def test_renamed_copied_replaced_and_removed(home):
    run(home)
    photos = home / "photos"
    (photos / "red 0.png").rename(photos / "moved.png")
    (photos / "copy.png").write_bytes((photos / "red 1.png").read_bytes())
    paint(photos / "red 2.png", GREEN, seed=99)
    (photos / "album/green 0.png").unlink()
    g, told = run(home)
    assert told["new"] == 1 and told["copies"] in (["red 1.png"], ["copy.png"])
    assert told["gone"] == ["album/green 0.png"] and sorted(g.people().faces) == [2, 4], "a replaced file is another"
    g, told = run(home, prune=True)
    assert sorted(g.people().faces) == [2, 3]
    assert run(home)[1]["gone"] == []


def test_names_cannot_leave_the_folder(home):
    run(home)
    for name in ("../../evil", "/etc/passwd", "..", "a\\b", "x" * 400, "нет/да", ".hidden", "CON: <1>"):
        edit(home, lambda t: t.loc.__setitem__((0, "name"), name))
        g = apply_edits(home / "out")
        assert name in set(g.table.name)
        out = os.path.realpath(home / "out")
        assert all(os.path.realpath(p).startswith(out) for p in (home / "out").rglob("*"))
        assert sorted(p.name for p in home.iterdir()) == ["out", "photos"]
        assert sum(p.is_file() for p in (home / "out/people").rglob("*")) == 6


def test_a_state_file_cannot_delete_outside(home):
    run(home)
    victim = home / "photos/red 0.png"
    path = home / "out/faces.npz"
    with np.load(path) as z:
        held = dict(z)
    held["links"] = np.array(["../photos/red 0.png"])
    np.savez(path, **held)
    with pytest.raises(InputError, match="points outside"):
        run(home)
    assert victim.exists()


def test_damaged_states_and_pickles_are_refused(home):
    run(home)
    path = home / "out/faces.npz"
    whole = path.read_bytes()
    for broken in (b"", whole[:200], whole[: len(whole) // 2], b"no zip at all"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="faces.npz is damaged"):
            read_groups(home / "out")
    np.savez(path, emb=np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="faces.npz is damaged"):
        read_groups(home / "out")


def test_the_state_is_for_its_owner(home):
    run(home)
    for name in ("faces.npz", "people.html"):
        assert stat.S_IMODE(os.stat(home / "out" / name).st_mode) == 0o600


def test_edits_stay_through_later_runs(home):
    run(home)
    def split(t):
        t.loc[t.photo == "red 1.png", ["person", "name"]] = ["77", "Rosa"]
    edit(home, split)
    paint(home / "photos/red 9.png", RED, seed=5)
    g, _ = run(home)
    assert g.table[g.table.photo == "red 1.png"][["person", "name"]].values.tolist() == [[77, "Rosa"]]
    assert g.table[g.table.photo == "red 0.png"].name.tolist() == [""]
    edit(home, lambda t: t.loc.__setitem__((t.photo == "red 0.png", "name"), "Rosa"))
    assert (apply_edits(home / "out").table.name == "Rosa").sum() == 4


def test_edits_that_contradict_themselves_change_nothing(home):
    run(home)
    state, table = (home / "out/faces.npz").read_bytes(), (home / "out/clusters.csv").read_bytes()
    wrong = {
        "line 2: person is ''": lambda t: t.loc.__setitem__((0, "person"), ""),
        "line 2: person is '-3'": lambda t: t.loc.__setitem__((0, "person"), "-3"),
        "line 3: face is 'x'": lambda t: t.loc.__setitem__((1, "face"), "x"),
        "is not known": lambda t: t.loc.__setitem__((0, "photo"), "else.png"),
        "stands on two lines": lambda t: t.loc.__setitem__(0, t.loc[1]),
        "has no column name": lambda t: t.pop("name"),
        "two names, Ada and Boris": lambda t: t.loc.__setitem__((t.person == "1", "name"), ["Ada", "Boris", ""]),
    }
    for says, change in wrong.items():
        edit(home, change)
        for do in (lambda: apply_edits(home / "out"), lambda: run(home)):
            with pytest.raises(InputError, match=says):
                do()
        assert (home / "out/faces.npz").read_bytes() == state
        (home / "out/clusters.csv").write_bytes(table)


def test_spreadsheets_may_sort_delete_and_mark(home):
    run(home)
    path = home / "out/clusters.csv"
    t = pd.read_csv(path, dtype=str, keep_default_na=False)[::-1].iloc[1:]
    t.person += ".0"
    for coded, between in (("utf-8-sig", ","), ("utf-8-sig", ";"), ("utf-16", "\t")):
        t.to_csv(path, index=False, encoding=coded, sep=between)
        assert sorted(apply_edits(home / "out").people().faces) == [3, 3]
    t.assign(name="Zoë").to_csv(path, index=False, encoding="cp1252", sep=";")
    with pytest.raises(InputError, match="save it as CSV UTF-8"):
        apply_edits(home / "out")


def test_a_gallery_names_first_and_takes_names(home):
    g, _ = run(home)
    edit(home, lambda t: t.loc.__setitem__((0, "name"), "Ada"))
    g = apply_edits(home / "out")
    with Gallery(home / "g.db", model="patches") as gallery:
        assert g.enroll(gallery) == {"Ada": 3} and g.enroll(gallery) == {}
        again, _ = cluster_photos(Patches(), home / "photos", home / "other", gallery=gallery)
        assert sorted(again.people().name) == ["", "Ada"]
        paint(home / "photos/both.png", RED, RED, seed=3)
        more, _ = cluster_photos(Patches(), home / "photos", home / "other", gallery=gallery)
        assert more.table[more.table.photo == "both.png"].person.nunique() == 2
    with Gallery(model="another") as foreign, pytest.raises(InputError, match="holds embeddings of model another"):
        run(home, gallery=foreign)


def test_enrolled_groups_and_enrolled_folders_are_the_same_photographs(home):
    "A photograph that a group brought into a gallery is there for facerec_enroll too, and the other way round"
    run(home)
    edit(home, lambda t: t.loc.__setitem__((0, "name"), "Ada"))
    g = apply_edits(home / "out")
    (home / "people").mkdir()
    (home / "photos/album").rename(home / "people/Ada")
    if g.table[g.table.name == "Ada"].photo.str.startswith("red").all():
        (home / "people/Ada").rename(home / "photos/album")
        shutil.copytree(home / "photos", home / "people/Ada", ignore=shutil.ignore_patterns("album"))
    with Gallery(home / "g.db", model="patches") as gallery:
        assert g.enroll(gallery) == {"Ada": 3}
        assert set(Patches().enroll(home / "people", gallery).status) == {"already"} and len(gallery.held()) == 3
    with Gallery(home / "other.db", model="patches") as gallery:
        Patches().enroll(home / "people", gallery)
        assert g.enroll(gallery) == {} and len(gallery.held()) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.timeout(20)
def test_a_pipe_and_an_empty_file_are_told_and_not_waited_for(home):
    os.mkfifo(home / "photos/pipe.jpg")
    for name in ("empty.jpg", "also empty.png"):
        (home / "photos" / name).touch()
    g, told = run(home)
    assert len(g.table) == 6 and len(told["unreadable"]) == 3 and not told["copies"]
    assert sum("pipe.jpg is not a file" in t for t in told["unreadable"]) == 1


def test_other_photographs_and_other_models_are_refused(home):
    run(home)
    paint(home / "elsewhere/1.png", RED, seed=42)
    with pytest.raises(InputError, match="holds none of its photographs"):
        cluster_photos(Patches(), home / "elsewhere", home / "out")
    pipe = Patches()
    pipe.model = "new"
    with pytest.raises(InputError, match="holds faces of model patches, not of new"):
        run(home, pipe)


def test_unreadable_photographs_are_told_and_tried_again(home):
    broken = home / "photos/x.png"
    broken.write_text("no picture")
    _, told = run(home)
    assert len(told["unreadable"]) == 1 and "x.png" in told["unreadable"][0]
    paint(broken, RED, seed=8)
    assert run(home)[1]["new"] == 1


def test_a_stopped_run_goes_on(home, monkeypatch):
    monkeypatch.setattr(photo_groups, "BLOCK", 2)

    class Stopped(Patches):
        def stream(self, paths, progress=False):
            for faces in super().stream(paths):
                if self.looked > 4:
                    raise KeyboardInterrupt
                yield faces

    with pytest.raises(KeyboardInterrupt):
        run(home, Stopped())
    with pytest.raises(InputError, match="holds faces of a run that was stopped"):
        apply_edits(home / "out")
    pipe = Patches()
    g, told = run(home, pipe)
    assert pipe.looked == 2 and len(g.table) == 6, "a block that was kept is kept"
    assert sorted(g.people().faces) == [3, 3]


def test_nobody_on_the_photographs(tmp_path):
    class Nobody(Patches):
        def stream(self, paths, progress=False):
            yield from (Faces([], p) for p in paths)

    paint(tmp_path / "photos/1.png", RED)
    for _ in range(2):
        g, told = run(tmp_path, Nobody())
    assert len(g.table) == 0 and told["new"] == 0 and "people.html" in {p.name for p in (tmp_path / "out").iterdir()}
    paint(tmp_path / "photos/2.png", RED, seed=3)
    assert len(run(tmp_path)[0].table) == 1


def test_own_files_among_the_links_stay(home):
    run(home)
    own = home / "out/people/0001/my notes.txt"
    own.write_text("mine")
    edit(home, lambda t: t.loc.__setitem__((0, "name"), "Ada"))
    apply_edits(home / "out")
    assert own.read_text() == "mine" and (home / "out/people/0001 Ada").is_dir()
