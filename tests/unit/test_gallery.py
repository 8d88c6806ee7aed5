"The gallery: nothing acknowledged is lost, nothing removed stays, nothing foreign gets in."

import importlib.util
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from facerec_nb.core.files import InputError
from facerec_nb.pipeline.gallery import Gallery

ROOT = Path(__file__).resolve().parents[2]


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def some(n, dim=64, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def bench(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_disk(path):
    return b"".join(p.read_bytes() for p in path.parent.glob(path.name + "*"))


def outside(code, *args):
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1])\n" + code, str(ROOT), *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
    )


ADD = """
import numpy as np
from facerec_nb.pipeline.gallery import Gallery
g, tag, n = Gallery(sys.argv[2], model='m'), sys.argv[3], int(sys.argv[4])
rng = np.random.default_rng(ord(tag))
for i in range(n):
    e = rng.standard_normal((3, 64))
    g.add(f'{tag}{i}', e/np.linalg.norm(e, axis=1, keepdims=True))
    print(i, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_enrolments_lose_nothing_and_show_nobody_half(place):
    count = 15 if isinstance(place, Path) else 8
    total = bench("kills").kills(lambda i: place, count, seed=1, longest=0.3)
    assert total["kills"] == count and total["acknowledged"] > 0
    assert (total["lost"], total["half_written"], total["seen_half_written"]) == (0, 0, 0), total


@pytest.mark.parametrize("dim", [64, 512])
def test_removed_people_are_in_no_file(tmp_path, dim):
    "Embeddings, names and sources of everybody who leaves, while others come and another connection reads"
    rng, path = np.random.default_rng(dim), tmp_path / "g.db"
    gallery, alive = Gallery(path, model="m"), {}

    def arrive(i):
        e, tag = some(int(rng.integers(1, 20)), dim, i), rng.bytes(8).hex()
        alive[f"name-{tag}"] = [
            f"name-{tag}".encode(),
            *(f"source-{tag}-{j}.jpg".encode() for j in range(len(e))),
            *(v.tobytes()[a : a + 32] for v in e for a in (0, 2 * dim, 4 * dim - 32)),
        ]
        gallery.add(f"name-{tag}", e, [f"source-{tag}-{j}.jpg" for j in range(len(e))])

    for i in range(60 if dim == 64 else 25):
        arrive(i)
    with Gallery(path) as reader:
        for i in range(60, 100 if dim == 64 else 75):
            if i % 2:
                arrive(i)
            name = list(alive)[int(rng.integers(len(alive)))]
            marks = alive.pop(name)
            reader.search(some(1, dim))
            before = on_disk(path)
            assert all(m in before for m in marks)
            gallery.remove(name)
            after = on_disk(path)
            assert not any(m in after for m in marks), f"{name} is still on the disk"
        left = on_disk(path)
        assert all(m in left for marks in alive.values() for m in marks) and reader.people().keys() == alive.keys()
    gallery.close()


def test_old_names_and_merged_people_leave_no_second_copy(tmp_path):
    path, e = tmp_path / "g.db", some(6)
    with Gallery(path, model="m") as g:
        for i in range(50):
            g.add(f"filler {i}", some(3, seed=i + 9))
        g.add("Anna Former", e[:3])
        g.add("Anna Other", e[3:])
        g.rename("Anna Former", "Anna")
        assert b"Anna Former" not in on_disk(path)
        g.merge("Anna Other", "Anna")
        assert (
            b"Anna Other" not in on_disk(path)
            and g.people()["Anna"] == 6
            and all(on_disk(path).count(v.tobytes()) == 1 for v in e)
        )
        g.remove("Anna")
        assert not any(v.tobytes() in on_disk(path) for v in e)


@pytest.fixture
def connections(monkeypatch):
    "Every connection that is made, none of which waits long for another program"
    made, connect = [], sqlite3.connect

    def impatient(*args, **kwargs):
        made.append(connect(*args, **{**kwargs, "timeout": 0.05}))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", impatient)
    return made


def test_a_reader_that_stays_is_named_not_ignored(tmp_path, connections):
    path, e = tmp_path / "g.db", some(2)
    with Gallery(path, model="m") as g:
        g.add("a", e[:1])
        g.add("b", e[1:])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT * FROM people").fetchall()
        with pytest.raises(InputError, match="another program keeps .* busy .* call compact"):
            g.remove("a")
        assert list(g.people()) == ["b"]
        other.execute("COMMIT")
        other.close()
        g.compact()
        assert e[0].tobytes() not in on_disk(path) and e[1].tobytes() in on_disk(path)


def test_two_processes_add_while_this_one_searches(place):
    path = place
    with Gallery(path, model="m") as g:
        g.add("first", some(1))
        writers = [outside(ADD, path, tag, 25) for tag in "xy"]
        while any(w.poll() is None for w in writers):
            assert g.search(some(1))[0][0].name == "first"
            assert set(g.people().values()) <= {1, 3}, "a half-written person"
        assert [w.communicate()[0].split()[-1] for w in writers] == ["24", "24"]
        assert len(g) == 51
        for tag in "xy":
            rng = np.random.default_rng(ord(tag))
            for i in range(25):
                assert g.search(unit(rng.standard_normal((3, 64))), k=1)[2][0].name == f"{tag}{i}"


def test_one_gallery_made_by_many_at_once(place):
    writers = [outside(ADD, place, tag, 3) for tag in "abcd"]
    assert [w.wait(120) for w in writers] == [0] * 4
    with Gallery(place) as g:
        assert len(g) == 12 and set(g.people().values()) == {3}


def test_threads_add_search_remove_and_rename(place):
    g, errors, stop = Gallery(place, model="m"), [], threading.Event()
    e = some(400)
    g.add("stays", e[0])

    def search():
        while not stop.is_set():
            try:
                if g.search(e[0], k=3)[0][0].name != "stays":
                    errors.append("wrong answer")
            except Exception as error:
                errors.append(repr(error))

    def change(t):
        try:
            for i in range(12):
                n = 1 + 12 * t + i
                g.add(f"p{n}", e[n])
                assert g.search(e[n], k=1)[0][0].name == f"p{n}"
                if i % 3 == 0:
                    g.remove(f"p{n}")
                    assert g.search(e[n], k=1)[0][0].name != f"p{n}"
                if i % 3 == 1:
                    g.rename(f"p{n}", f"q{n}")
                    assert g.search(e[n], k=1)[0][0].name == f"q{n}"
        except Exception as error:
            errors.append(repr(error))

    searchers, changers = (
        [threading.Thread(target=search) for _ in range(2)],
        [threading.Thread(target=change, args=(t,)) for t in range(3)],
    )
    for t in searchers + changers:
        t.start()
    for t in changers:
        t.join()
    stop.set()
    for t in searchers:
        t.join()
    assert not errors, errors[:3]
    assert len(g) == 1 + 3 * 8
    g.close()


def test_a_large_gallery_has_two_stages_and_the_same_answers(tmp_path):
    "With the border between the modes set low: the names and the cosines of the exact search"
    rng = np.random.default_rng(0)
    mu = some(250, seed=5)
    photo = lambda p: unit(0.8 * mu[p] + 0.6 * unit(rng.standard_normal((len(p), 64))))
    path = tmp_path / "g.db"
    with Gallery(path, model="m") as g:
        for i in range(250):
            g.add(f"p{i}", photo([i] * 20))
    full, two, q = Gallery(path), Gallery(path, exact=1000), photo(np.arange(60))
    want = full.search(q, 10)
    two.search(q, 1)
    two.index.build()
    assert two.index.coded == 5000 and full.index.coded == 0
    got = two.search(q, 10)
    assert [[m.name for m in r] for r in got] == [[m.name for m in r] for r in want]
    assert np.allclose([[m.similarity for m in r] for r in got], [[m.similarity for m in r] for r in want], atol=1e-6)
    two.add("late", some(1, seed=99))
    assert (
        two.search(some(1, seed=99), 1)[0][0].name == "late" and full.search(some(1, seed=99), 1)[0][0].name == "late"
    )
    two.remove("p3")
    assert "p3" not in [m.name for m in two.search(photo([3]), 10)[0]]
    for i in range(4, 150):
        full.remove(f"p{i}")
    assert two.search(photo([200]), 1)[0][0].name == "p200" and len(two.index) == 20 * len(range(150, 250)) + 3 * 20 + 1
    full.close()
    two.close()


@pytest.fixture(scope="module")
def master(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "g.db"
    with Gallery(path, model="m") as g:
        for i in range(150):
            g.add(f"p{i}", some(3, seed=i), [f"{i}/{j}" for j in range(3)])
    return path


@pytest.fixture
def filled(master, tmp_path):
    return Path(shutil.copy(master, tmp_path / "g.db"))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_refused_in_one_sentence_or_read_whole(filled, seed):
    "Cut, overwritten or bit-flipped: `InputError`, or plain answers when nothing was hit that can be checked"
    rng, data = np.random.default_rng(seed), bytearray(filled.read_bytes())
    where = int(rng.integers(len(data)))
    if seed % 3 == 0:
        data = data[:where]
    if seed % 3 == 1:
        data[where : where + 600] = rng.bytes(min(600, len(data) - where))
    if seed % 3 == 2:
        for p in rng.integers(0, 4096 if seed % 2 else len(data), 20):
            data[p] ^= 1 << int(rng.integers(8))
    filled.write_bytes(data)
    try:
        with Gallery(filled, model="m") as g:
            g.search(some(4), 3)
            g.people()
            repr(g)
            g.references("p1")
            g.add("new", some(1))
            g.remove("p7")
            g.export(filled.with_suffix(".zip"))
            g.compact()
    except InputError as e:
        assert "\n" not in str(e) and len(str(e)) < 600


@pytest.fixture(scope="module")
def shared(server):
    with Gallery(server.database("module"), model="m") as g: yield g


@pytest.fixture(params=["memory", "server"])
def fresh(request):
    "A gallery with nobody in it"
    if request.param == "memory":
        with Gallery(model="m") as g: yield g
    else:
        g = request.getfixturevalue("shared")
        for name in g.people(): g.remove(name)
        yield g


@pytest.mark.parametrize("seed", range(40))
def test_damaged_exports_are_refused_and_leave_nothing(filled, seed, fresh):
    rng = np.random.default_rng(seed)
    with Gallery(filled) as g:
        data = bytearray(g.export(filled.with_suffix(".zip"), [f"p{i}" for i in range(9)]).read_bytes())
    where = int(rng.integers(len(data)))
    if seed % 2:
        data = data[:where]
    else:
        for p in rng.integers(0, len(data), 8):
            data[p] ^= 1 << int(rng.integers(8))
    filled.with_suffix(".zip").write_bytes(data)
    try:
        assert fresh.import_file(filled.with_suffix(".zip")) == 9 and len(fresh) == 9
    except InputError as e:
        assert "\n" not in str(e) and len(fresh) == 0


def test_an_import_is_measured_before_it_is_read(tmp_path, fresh):
    "A promise of a terabyte, JSON without end, and members that point outside"

    def zipped(members):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
            for name, data in members.items():
                z.writestr(name, data)
        return fresh.import_file(tmp_path / "x.zip", merge=True)

    head = lambda **k: json.dumps(
        dict(
            format="facerec_nb gallery 1",
            model="m",
            dim=64,
            people=[dict(name="a", references=[["s", "2026-01-31T12:00:00Z"]])],
        )
        | k
    )
    assert zipped({"gallery.json": head(), "embeddings.f32": some(1).tobytes()}) == 1
    for members in (
        {"gallery.json": head(dim=65536), "embeddings.f32": b""},
        {"gallery.json": "[" * 100_000, "embeddings.f32": b""},
        {"gallery.json": "{", "embeddings.f32": b""},
        {"gallery.json": head(), "embeddings.f32": some(2).tobytes()},
        {
            "gallery.json": head(people=[dict(name="a", references=[["s", "\ud800"]])]),
            "embeddings.f32": some(1).tobytes(),
        },
        {"gallery.json": head(people=[dict(name="a", references=[[1, 2]])]), "embeddings.f32": some(1).tobytes()},
        {
            "gallery.json": head(people=[dict(name=7, references=[["s", "2026-01-31T12:00:00Z"]])]),
            "embeddings.f32": some(1).tobytes(),
        },
        {"gallery.json": head(dim=True), "embeddings.f32": b"0000"},
        {"gallery.json": head(), "../embeddings.f32": some(1).tobytes()},
        {"gallery.json": "[]", "embeddings.f32": b""},
        {},
    ):
        with pytest.raises(InputError, match="x.zip is not a whole export"):
            zipped(members)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_a_gallery_of_the_first_version_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / "old.db")
    db.executescript(
        "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL); INSERT INTO meta VALUES('model', 'm');"
        "PRAGMA application_id=0x46414345; PRAGMA user_version=1"
    )
    db.close()
    with pytest.raises(InputError, match="old.db is a gallery of version 1, this version of facerec_nb reads 2 and 3"):
        Gallery(tmp_path / "old.db", model="m")


def test_a_full_or_locked_disk_is_one_sentence(tmp_path, connections):
    def at_most(pages):
        for db in connections:
            db.execute(f"PRAGMA max_page_count={pages}")

    with Gallery(tmp_path / "g.db", model="m") as g:
        g.add("a", some(1))
        at_most(12)
        with pytest.raises(InputError, match="full.*make room"):
            g.add("b", some(400, 512)[:, :64] / np.linalg.norm(some(400, 512)[:, :64], axis=1, keepdims=True))
        assert g.people() == {"a": 1}
        at_most(100000)
        other = sqlite3.connect(tmp_path / "g.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="locked.*try again"):
            g.add("b", some(1, seed=1))
        other.execute("ROLLBACK")
        other.close()
        assert g.add("b", some(1, seed=1)) == 1
