"What every gallery does, in a file and on a server: one test for both."
import json
import sqlite3

import numpy as np
import pytest

from facerec_nb.core.files import InputError
from facerec_nb.pipeline.gallery import Gallery, Source


def unit(x): return (x/np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


RNG = np.random.default_rng(0)
FACES = unit(RNG.normal(size=(30, 1, 64)) + 0.6*RNG.normal(size=(30, 5, 64)))
BOBBY = "Robert'); DROP TABLE people; --"


@pytest.fixture
def g(place):
    with Gallery(place, model="m1") as gallery:
        gallery.add_many((f"p{i:02d}", FACES[i, :3], [f"{i}/{j}.jpg" for j in range(3)]) for i in range(20))
        yield gallery


def test_everybody_is_found_by_a_new_photograph(g):
    assert [m[0].name for m in g.search(FACES[:20, 4])] == [f"p{i:02d}" for i in range(20)]
    assert (len(g), g.size, g.dim, g.model) == (20, (20, 60), 64, "m1")
    assert len(g.search(FACES[0, 4], k=100)[0]) == 20
    m = g.search(FACES[3, 1])[0][0]
    assert m.source == "3/1.jpg" and m.nearest == pytest.approx(1, abs=1e-5) and m.similarity < 1


def test_ranks_are_those_of_the_mean_reference(g):
    mean = unit(FACES[:20, :3].mean(1))
    for q in FACES[:20, 4]:
        want = np.argsort(-(mean @ q))[:5]
        found = g.search(q)[0]
        assert [m.name for m in found] == [f"p{i:02d}" for i in want]
        assert np.allclose([m.similarity for m in found], (mean @ q)[want], atol=1e-5)


def test_a_crowd_hides_nobody(place):
    with Gallery(place, model="m") as g:
        g.add("many", unit(FACES[0, 0] + 0.05*RNG.normal(size=(300, 64))))
        g.add("one", FACES[1, 0])
        assert [m.name for m in g.search(FACES[0, 0])[0]] == ["many", "one"]


def test_another_model_is_refused_by_name(g, place):
    with pytest.raises(InputError, match="holds embeddings of model m1, not of m2"): Gallery(place, model="m2")
    with pytest.raises(InputError, match="model m1, not of m2"): g.add("x", FACES[0, 0], model="m2")
    with pytest.raises(InputError, match="model m1, not of m2"): Gallery.load(place, "m2")
    with Gallery.load(place, "m1") as same: assert same.people() == g.people()


@pytest.mark.parametrize("wrong,said", [
    (FACES[0, 0]*2, "length 2, not 1"), (np.full(64, np.nan), "normalise"),
    (unit(np.ones(32)), "64 numbers, these have 32")])
def test_wrong_embeddings_leave_nothing(g, wrong, said):
    with pytest.raises(InputError, match=said): g.add_many([("new", FACES[25, :1], ["a"]), ("newer", [wrong], ["b"])])
    with pytest.raises(InputError, match=said): g.add("new", wrong)
    assert len(g) == 20


def test_names_are_names_and_not_sql(g):
    for i, name in enumerate([BOBBY, "100 % ?", "%s %(a)s", "Ünï 名前 😀", "a\"b\\c"]):
        g.add(name, FACES[20 + i, 0], f"{name}.jpg")
        assert g.search(FACES[20 + i, 0])[0][0].name == name and g.sources(name) == {f"{name}.jpg"}
    g.rename(BOBBY, "Robert")
    g.merge("Robert", "p00")
    assert g.people()["p00"] == 4 and len(g) == 24
    g.remove("100 % ?")
    assert "100 % ?" not in g.people() and len(g) == 23


def test_people_are_sorted_alike_everywhere(place):
    with Gallery(place, model="m") as g:
        for i, n in enumerate(["b", "A", "a", "Z", "ä", "_", "名"]): g.add(n, FACES[i, 0])
        assert list(g.people()) == ["A", "Z", "_", "a", "b", "ä", "名"]


def test_renamed_merged_removed(g, place):
    with Gallery(place) as other:
        g.rename("p01", "Änne")
        assert other.search(FACES[1, 4])[0][0].name == "Änne"
        with pytest.raises(InputError, match="call merge if both are one person"): g.rename("p02", "Änne")
        g.merge("p02", "Änne")
        assert other.people()["Änne"] == 6 and other.search(FACES[2, 0])[0][0].name == "Änne"
        for f in (lambda: g.rename("nobody", "x"), lambda: g.merge("nobody", "Änne"), lambda: g.remove("nobody")):
            with pytest.raises(InputError, match="nobody called 'nobody'"): f()
        with pytest.raises(InputError, match="one person already"): g.merge("Änne", "Änne")
        g.remove("p05")
        assert all(m.name != "p05" for x in (g, other) for m in x.search(FACES[5, 4], 30)[0])
        g.compact()
        assert len(other) == 18


def test_single_references(place):
    with Gallery(place, model="m") as g:
        g.add("a", FACES[0, :2], [Source("1.jpg", "c1", "o"), Source("2.jpg", "c2", "o")])
        g.add("b", FACES[1, 0], "3.jpg")
        g.add("a", FACES[0, 2], Source("1.jpg", "c3", "o"), instead=[1])
        assert [(r.id, r.person, r.source, r.content) for r in g.held()] == [
            (2, "a", "2.jpg", "c2"), (3, "b", "3.jpg", ""), (4, "a", "1.jpg", "c3")]
        g.relocate({2: Source("new.jpg", "c2", "p")})
        assert g.held()[0][2:] == ("new.jpg", g.held()[0].added, "c2", "p")
        assert (g.drop([3, 4]), g.people()) == (1, {"a": 1})
        assert g.search(FACES[1, 0])[0][0].name == "a"


def test_a_photograph_of_a_person_is_added_once(place):
    "The same enrolment may run twice at once: each asked what there is before the other had written"
    two = [Source("1.jpg", "c1", "o"), Source("2.jpg", "c2", "o")]
    with Gallery(place, model="m") as g, Gallery(place) as other:
        for one in (g, other): one.add_many([("a", FACES[0, :2], two)])
        assert other.add("a", FACES[0, 2:4], [Source("1.jpg", "c1", "p"), Source("3.jpg", "c3", "p")]) == 3
        for _ in range(2): g.add("b", FACES[0, :2], [two[0], Source("no hash.jpg")])
        assert g.people() == {"a": 3, "b": 3}


def test_thresholds_are_kept(g, place):
    g.threshold, g.fpir, g.quality, g.prior = 0.4, 0.02, 0.3, 0.5
    with Gallery(place) as other:
        assert (other.threshold, other.fpir, other.quality, other.prior) == (0.4, 0.02, 0.3, 0.5)
    with pytest.raises(InputError, match="1.5 of the gallery"): g.threshold = 1.5


def aged(place, person, time):
    if isinstance(place, str):
        import psycopg

        with psycopg.connect(place) as db:
            db.execute("UPDATE facerec.refs SET added=%s WHERE person=(SELECT id FROM facerec.people WHERE name=%s)",
                       (time, person))
        return
    db = sqlite3.connect(place)
    db.execute("UPDATE refs SET added=? WHERE person=(SELECT id FROM people WHERE name=?)", (time, person))
    db.commit()
    db.close()


def test_a_rule_forgets_what_is_old(g, place):
    g.keep_for("1y")
    assert g.kept_for == 365 and len(g) == 20
    aged(place, "p03", "2001-01-31T12:00:00Z")
    with Gallery(place) as again:
        assert again.just_forgotten == (3, 1) and "p03" not in again.people()
        assert [r[1:] for r in again.forgotten] == [[3, 1]]
    g.keep_for("never")
    assert g.kept_for is None


def test_people_move_between_the_kinds(g, database, tmp_path):
    "A zip file from one kind into the other and back, with times and contents"
    out = g.export(tmp_path/"two.zip", ["p03", "p04"])
    other = database if not isinstance(g.path, str) else tmp_path/"other.db"
    with Gallery(other, model="m1") as o:
        assert o.import_file(out) == 2 and o.references("p03") == g.references("p03")
        assert o.search(FACES[3, 4])[0][0] == pytest.approx(g.search(FACES[3, 4])[0][0])
        with pytest.raises(InputError, match="is in the gallery"): o.import_file(out)
        assert o.import_file(out, merge=True) == 2 and o.people() == {"p03": 6, "p04": 6}
        with pytest.raises(InputError, match="is in the gallery"): g.import_file(o.export(tmp_path/"back.zip"))
    with Gallery(model="m2") as foreign, pytest.raises(InputError, match="embeddings of model m1"):
        foreign.import_file(out)


def test_a_table_of_people(g, fresh_place, tmp_path):
    "Parquet: anybody can read it, and it comes back the same"
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    out = g.export(tmp_path/"people.parquet")
    table = pd.read_parquet(out)
    assert list(table.name) == [h.person for h in g.held()] and len(table.embedding[0]) == 64
    assert np.allclose(np.stack(table.embedding), FACES[:20, :3].reshape(-1, 64))
    with Gallery(fresh_place, model="m1") as o:
        assert o.import_file(out) == 20 and [h[1:5] for h in o.held()] == [h[1:5] for h in g.held()]
        with pytest.raises(InputError, match="is in the gallery"): o.import_file(out)
    with Gallery(model="m2") as foreign, pytest.raises(InputError, match="embeddings of model m1"):
        foreign.import_file(out)


@pytest.fixture(params=["file", "server"])
def fresh_place(request, tmp_path):
    if request.param == "file": return tmp_path/"fresh.db"
    server = request.getfixturevalue("server")
    return server.database(f"fresh{np.random.default_rng().integers(10**9)}")


def test_a_copy_is_the_same_whatever_its_kind(g, fresh_place):
    g.threshold = 0.4
    g.relocate({2: Source("2.jpg", "c2", "folder")})
    with Gallery.load(fresh_place if g.save(fresh_place) else "", "m1") as copy:
        assert (copy.people(), copy.threshold) == (g.people(), 0.4)
        assert [h[1:] for h in copy.held()] == [h[1:] for h in g.held()]
        assert [m.name for m in copy.search(FACES[7, 4])[0]] == [m.name for m in g.search(FACES[7, 4])[0]]


def test_a_failed_change_leaves_nothing(g):
    with pytest.raises(ZeroDivisionError), g._change() as db:
        db.execute("DELETE FROM people")
        raise ZeroDivisionError
    assert len(g) == 20


def test_the_words_of_a_gallery(g, place):
    assert "20 people, 60 references of 64 numbers, model m1" in repr(g) and "p00" in g._repr_html_()
    said = json.dumps(dict(path=str(g.path)))
    assert str(place).split("?")[0].split("@")[0] in said or "postgresql://" in said
