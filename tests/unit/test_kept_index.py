"What lies beside a large gallery for its next start: used when it is exactly what was written, gone with whoever goes"
import os
import shutil

import numpy as np
import pytest

from facerec_nb.pipeline.gallery import Gallery
from facerec_nb.pipeline.kept_index import index_path

pytest.importorskip("faiss")
EXACT, N, DIM = 2000, 3000, 32


def unit(x): return (x/np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


FACES = unit(np.random.default_rng(0).normal(size=(N, DIM)))


def opened(path): return Gallery(path, "m", exact=EXACT)


def loaded(path):
    "How an open gallery came by its vectors, and its answers to some faces"
    with opened(path) as g:
        restored = bool(g.index.coded)  # without a first stage that was kept, the background has hardly begun
        g.index.build()
        return restored, [[(m.name, round(m.similarity, 5)) for m in found] for found in g.search(FACES[:20], 3)]


@pytest.fixture(autouse=True)
def no_background(monkeypatch):
    "A first stage only where a test asks for it"
    from facerec_nb.pipeline.vector_index import Nearest
    monkeypatch.setattr(Nearest, "_build_soon", lambda self: None)


@pytest.fixture
def path(tmp_path):
    "A gallery that is kept for the next start"
    with opened(tmp_path/"a.db") as g:
        g.add_many((f"p{i}", FACES[i:i + 3], [f"{k}.jpg" for k in range(3)]) for i in range(0, N, 3))
        g.prepare()
    assert index_path(tmp_path/"a.db").exists()
    return tmp_path/"a.db"


def test_the_next_start_uses_it_and_answers_the_same(path):
    kept = loaded(path)
    assert kept[0] and os.stat(index_path(path)).st_mode & 0o077 == 0
    index_path(path).unlink()
    assert loaded(path) == (False, kept[1])


def test_new_references_are_read_from_the_gallery(path):
    new = unit(np.random.default_rng(1).normal(size=(1, DIM)))
    with opened(path) as g: g.add("late", new)
    assert loaded(path)[0]
    with opened(path) as g:
        assert g.index.coded == N and len(g.index) == N + 1
        assert g.search(new)[0][0].name == "late" and g.size == (N//3 + 1, N + 1)
        g.prepare()
    with opened(path) as g: assert g.index.coded == N + 1


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_not_used(path, share):
    kept, data = index_path(path), index_path(path).read_bytes()
    want = loaded(path)[1]
    kept.write_bytes(data[:int(len(data)*share)])
    assert loaded(path) == (False, want)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9999])
def test_a_damaged_file_is_not_used(path, share):
    kept, data = index_path(path), bytearray(index_path(path).read_bytes())
    want = loaded(path)[1]
    data[int(len(data)*share)] ^= 64
    kept.write_bytes(data)
    assert loaded(path)[1] == want
    if share > 0.01: assert not loaded(path)[0]


def test_the_file_of_another_gallery_is_not_used(path, tmp_path):
    other = tmp_path/"b.db"
    with opened(other) as g:
        g.add_many((f"q{i}", FACES[::-1][i:i + 3], ["x"]*3) for i in range(0, N, 3))
        g.prepare()
    want = loaded(other)[1]
    shutil.copy(index_path(path), index_path(other))
    assert loaded(other) == (False, want)


def test_a_backup_that_was_put_back_does_not_use_a_newer_file(path, tmp_path):
    shutil.copy(path, tmp_path/"backup.db")
    with opened(path) as g:
        g.add("new", FACES[:1])
        g.prepare()
    shutil.copy(tmp_path/"backup.db", path)
    with opened(path) as g: g.add("another", -FACES[:1])
    restored, answers = loaded(path)
    assert not restored and "new" not in {name for found in answers for name, _ in found}
    with opened(path) as g: assert g.search(-FACES[:1])[0][0].name == "another"


def test_garbage_in_the_gallery_about_it_is_not_believed(path):
    want = loaded(path)[1]
    for said in ("", "0", "0 abc", "x y z"):
        with opened(path) as g: g._set("index", said)
        assert loaded(path) == (False, want)


@pytest.mark.parametrize("change", [lambda g: g.remove("p0"), lambda g: g.drop([1]), lambda g: g.merge("p0", "p3"),
                                    lambda g: g.rename("p0", "P")])
def test_it_goes_when_anybody_goes(path, tmp_path, change):
    also = tmp_path/"also"
    os.link(index_path(path), also)
    with opened(path) as g: change(g)
    assert not index_path(path).exists() and not any(also.read_bytes())
    assert not loaded(path)[0]


def test_one_who_was_removed_by_another_program_is_not_found(path):
    import sqlite3
    db = sqlite3.connect(path)
    db.execute("PRAGMA foreign_keys=ON")
    db.execute("DELETE FROM people WHERE name='p0'")
    db.commit()
    db.close()
    restored, answers = loaded(path)
    assert not restored and "p0" not in {name for found in answers for name, _ in found}


def test_nothing_is_kept_with_somebody_who_has_gone_in_memory(path):
    with opened(path) as g:
        g.index.build()
        g.remove("p0")
        g.prepare()
        assert not index_path(path).exists()
    with opened(path) as g: g.prepare()
    assert loaded(path)[0]


def test_somebody_removed_while_it_is_written_does_not_stay(path, monkeypatch):
    from facerec_nb.pipeline import gallery_file
    write = gallery_file.write_kept

    def meanwhile(temp, arrays):
        with opened(path) as other: other.remove("p3")
        return write(temp, arrays)
    index_path(path).unlink()
    monkeypatch.setattr(gallery_file, "write_kept", meanwhile)
    with opened(path) as g: g.prepare()
    assert not index_path(path).exists() and not list(path.parent.glob(".*-index"))


def test_what_a_killed_program_left_goes_too(path):
    kept = index_path(path)
    left = kept.with_name(f".{kept.stem}-123-abcd{kept.suffix}")
    left.write_bytes(b"faces")
    with opened(path) as g: g.remove("p0")
    assert not left.exists()


def test_a_rule_about_time_reads_the_gallery(path):
    with opened(path) as g: g.keep_for("1y")
    assert not loaded(path)[0]


def test_a_small_gallery_and_one_in_memory_keep_nothing(tmp_path):
    with opened(tmp_path/"s.db") as g:
        g.add("a", FACES[:5])
        g.prepare()
    assert not index_path(tmp_path/"s.db").exists()
    Gallery(model="m", exact=2).prepare()
