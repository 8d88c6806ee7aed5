"A store that is whole or not there: killed, raced, damaged, hostile, too large for memory"
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from facerec_nb.datasets import face_store as module
from facerec_nb.datasets.face_store import face_store
from facerec_nb.core.files import InputError, read_image, write_image

N, SIDE = 300, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Three hundred little pictures and their table"
    out, rng = tmp_path_factory.mktemp("store")/"faces_aligned", np.random.default_rng(0)
    table = pd.DataFrame(dict(image_id=[f"{i:06}.jpg" for i in range(N)], identity=np.arange(N)//5))
    for i in table.image_id:
        write_image(out/i, np.repeat(np.repeat(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), 8, 0), 8, 1))
    return out, table


@pytest.fixture(scope="module")
def pixels(folder): return np.stack([read_image(folder[0]/i) for i in folder[1].image_id])


KILLED = """
import os, signal, sys, threading
import pandas as pd
from facerec_nb.datasets import face_store as m
images, path, after = sys.argv[1], sys.argv[2], sys.argv[3]
def dies(f, count=[0], lock=threading.Lock()):
    def g(*args, **kw):
        with lock: count[0] += 1
        if count[0] > int(after.split()[1]): os.kill(os.getpid(), signal.SIGKILL)
        return f(*args, **kw)
    return g
owner = m.os if after.split()[0] in ("rename", "fsync") else m
setattr(owner, after.split()[0], dies(getattr(owner, after.split()[0])))
m.face_store(images, pd.DataFrame(dict(image_id=sorted(os.listdir(images)))), path)
"""


@pytest.mark.parametrize("after", ["read_image 0", "read_image 290", "fsync 0", "write_csv 0", "rename 0"])
def test_killed_while_building(folder, pixels, tmp_path, after):
    "Half a store is never taken for a whole one, and what it leaves behind is cleared away"
    images, table = folder
    r = subprocess.run([sys.executable, "-c", KILLED, str(images), str(tmp_path/"s"), after])
    assert r.returncode == -signal.SIGKILL
    left = list((tmp_path/"s").iterdir())
    assert len(left) == 1 and left[0].name.startswith(".") # no folder that could be opened
    store = face_store(images, table, tmp_path/"s")
    # young: it could belong to a process that still works
    assert np.array_equal(store.faces, pixels) and left[0].is_dir()
    for p in (*left[0].iterdir(), left[0]): os.utime(p, (1, 1))
    turned = face_store(images, table.iloc[::-1], tmp_path/"s")
    assert not left[0].exists() and len(turned) == N


def test_opened_without_decoding(folder, pixels, tmp_path, monkeypatch):
    images, table = folder
    face_store(images, table, tmp_path/"s")
    monkeypatch.setattr(module, "read_image", lambda *_: pytest.fail("decoded again"))
    store = face_store(images, table.assign(identity=1), tmp_path/"s")
    rows = np.random.default_rng(0).permutation(N)[:64]
    assert (np.array_equal(store.batch(rows), pixels[rows]) and isinstance(store.faces, np.memmap)
            and set(store.table.identity) == {1})


def test_two_build_at_once(folder, pixels, tmp_path):
    "The second to finish keeps what the first one made"
    images, table = folder
    code = ("import os, sys, pandas as pd\nfrom facerec_nb.datasets.face_store import face_store\n"
            "names = pd.DataFrame(dict(image_id=sorted(os.listdir(sys.argv[1]))))\n"
            "face_store(sys.argv[1], names, sys.argv[2])")
    both = [subprocess.Popen([sys.executable, "-c", code, str(images), str(tmp_path/"s")]) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert (len(list((tmp_path/"s").iterdir())) == 1 and np.array_equal(face_store(images, table, tmp_path/"s").faces,
                                                                        pixels))


@pytest.mark.parametrize("damage", ["objects", "floats", "short", "empty", "rows", "csv", "gone"])
def test_a_damaged_store_is_made_again(folder, pixels, tmp_path, damage):
    images, table = folder
    path = face_store(images, table, tmp_path/"s").path
    npy = path/"faces.npy"
    if damage == "objects":  # must never be unpickled
        np.save(npy, np.array([print, {}], dtype=object), allow_pickle=True)
    if damage == "floats": np.save(npy, pixels.astype(np.float32))
    if damage == "short": os.truncate(npy, npy.stat().st_size - 1)
    if damage == "empty": npy.write_bytes(b"")
    if damage == "rows": np.save(npy, pixels[:-1])
    if damage == "csv": (path/"skipped.csv").write_text("x\n1\n")
    if damage == "gone": npy.unlink()
    store = face_store(images, table, tmp_path/"s")
    assert np.array_equal(store.faces, pixels) and not len(store.skipped)


def test_bad_pictures_are_left_out_and_counted(folder, tmp_path):
    images, table = tmp_path/"faces", folder[1]
    images.mkdir()
    for p in folder[0].iterdir(): os.link(p, images/p.name) if p.name != table.image_id[5] else None
    for name, data in {table.image_id[0]: b"", table.image_id[7]: b"\xff\xd8\xff no",
                       table.image_id[9]: (folder[0]/table.image_id[9]).read_bytes()[:300]}.items():
        (images/name).unlink()
        (images/name).write_bytes(data)
    write_image(tmp_path/"other.jpg", np.zeros((20, 30, 3), np.uint8))
    (images/table.image_id[11]).unlink()
    (tmp_path/"other.jpg").rename(images/table.image_id[11])
    (tmp_path/"secret.jpg").write_bytes((images/table.image_id[1]).read_bytes())
    names = [*table.image_id[:-1], "../secret.jpg"]
    store = face_store(images, table, tmp_path/"s", names)
    bad = [0, 5, 7, 9, 11, N - 1]
    assert list(store.skipped.name) == [names[i] for i in bad] and len(store) == len(store.table) == N - len(bad)
    assert list(store.table.image_id) == [i for k, i in enumerate(table.image_id) if k not in bad]
    assert (np.array_equal(store.faces[3], read_image(images/table.image_id[4]))
            and store.skipped.reason.str.len().min() > 10)
    with pytest.raises(InputError, match="none of the 2 pictures"):
        face_store(images, table[:2], tmp_path/"t", ["a.jpg", "../secret.jpg"])
    assert list((tmp_path/"t").iterdir()) == []


def test_a_folder_of_other_things_is_left_alone(folder, tmp_path):
    (tmp_path/"s/photos").mkdir(parents=True)
    (tmp_path/"s/photos/faces.npy").touch()
    with pytest.raises(InputError, match="other things than a face store"): face_store(*folder, tmp_path/"s")
    with pytest.raises(InputError, match="is not a folder"): face_store(tmp_path/"nowhere", folder[1], tmp_path/"t")
    assert (tmp_path/"s/photos/faces.npy").exists() and not (tmp_path/"t").exists()


def aligned(folder, out):
    "What `align` would have written, around the little pictures"
    from facerec_nb.faces.aligned import ALIGNED_COLUMNS
    images, table = folder
    (out/"faces_aligned").mkdir(parents=True)
    for p in images.iterdir(): os.link(p, out/"faces_aligned"/p.name)
    table = table.assign(class_id=table.identity, split="train", people="seen")
    table.assign(**{c: 1. for c in ALIGNED_COLUMNS
                    if c not in table})[ALIGNED_COLUMNS].to_csv(out/"aligned_pred_all.csv", index=False)
    return out


def test_read_aligned_decodes_once(folder, pixels, tmp_path, monkeypatch):
    from facerec_nb.faces import aligned as alignment
    out = aligned(folder, tmp_path/"dfr")
    # few faces: not worth a file
    assert np.array_equal(alignment.read_aligned(out)[1], pixels) and not Path(f"{out}.store").exists()
    table, faces = alignment.read_aligned(out, store=True)
    monkeypatch.setattr(module, "read_image", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr(alignment, "read_image", module.read_image)
    again = alignment.read_aligned(out, store=True)
    assert (np.array_equal(faces, pixels) and np.array_equal(again[1], pixels) and again[0].equals(table)
            and sorted(p.name for p in out.iterdir()) == ["aligned_pred_all.csv", "faces_aligned"])


def test_read_aligned_names_what_is_missing_or_cannot_be_written(folder, pixels, tmp_path, monkeypatch):
    from facerec_nb.faces import aligned as alignment
    out = aligned(folder, tmp_path/"dfr")
    def full(*args): raise OSError(28, "No space left on device")
    with monkeypatch.context() as m, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        m.setattr(module.os, "fsync", full)
        assert np.array_equal(alignment.read_aligned(out, store=True)[1], pixels)
        assert "No space left" in str(said[0].message) and list(Path(f"{out}.store").iterdir()) == []
    (out/"faces_aligned"/folder[1].image_id[3]).unlink()
    with pytest.raises(InputError, match=f"1 of {N} aligned faces cannot be used.*{folder[1].image_id[3]}"):
        alignment.read_aligned(out, store=True)
