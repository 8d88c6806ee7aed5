"facerec_embed: the same rows whatever is killed, whatever the photographs come as, and whatever is among them."
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from facerec_nb.apps.embed import facerec_embed
from facerec_nb.core.files import InputError
from facerec_nb.core.installed import TRAIN
from facerec_nb.datasets.portraits import public_portraits
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.face_shards import FaceShards
from facerec_nb.pipeline.shard_workers import ENDED, EmbedShard, embed_photos, pool_spread

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """import sys
from facerec_nb.apps.embed import facerec_embed
if __name__ == '__main__': sys.exit(facerec_embed())
"""
PER = 3  # photographs in a shard


def draw(path, number=0, width=150):
    "A small portrait in the public domain, each number another one"
    path.parent.mkdir(parents=True, exist_ok=True)
    img = Image.fromarray(public_portraits()["Grace" if number % 2 else "Eileen"]).resize((width, width + number))
    img.rotate(number % 5, fillcolor="gray").save(path, quality=90)
    return path


def rows_of(out):
    "All rows of a folder that is whole, by photograph and face"
    shards = FaceShards(out)
    assert not shards.check()["wrong"]
    rows = [r for t in shards.tables() for r in t.to_pylist()]
    got = {(r["source"], r["face"]): r for r in rows}
    assert len(got) == len(rows)
    return got


def same(a, b):
    "Are the rows of two folders the same?"
    a, b = rows_of(a), rows_of(b)
    assert a.keys() == b.keys()
    for k, r in a.items():
        for c, v in r.items():
            if isinstance(v, list): assert np.allclose(v, b[k][c], atol=1e-4, equal_nan=True), (k, c)
            elif isinstance(v, float): assert v == pytest.approx(b[k][c], abs=1e-4), (k, c)
            else: assert v == b[k][c], (k, c)
    return True


@pytest.fixture(scope="module")
def pipe(): return FacePipeline.load(fast=True, threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "Twelve small portraits in two folders"
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12): draw(folder/f"{i % 2}/{i:02d}.jpg", i)
    return folder


@pytest.fixture(scope="module")
def undisturbed(pipe, photos, tmp_path_factory):
    "What a run makes that nobody disturbs"
    out = tmp_path_factory.mktemp("undisturbed")/"out"
    said = embed_photos(pipe, photos, out, per_shard=PER, workers=0)
    assert (said["photographs"], said["faces"], said["made"]) == (12, 12, 4)
    return out


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    "Starts the command in a process of its own"
    script = tmp_path_factory.mktemp("bin")/"facerec_embed"
    script.write_text(SCRIPT)

    def start(*args, **env):
        how = dict(env={**os.environ, "OMP_NUM_THREADS": "1", **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) # a shell's background ignores it
        return subprocess.Popen([sys.executable, script, *map(str, args)], **how, text=True)
    return start


def wait_for(what, seconds=60):
    "Wait until something is so"
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return got


def finished(out): return sum(p.name.startswith("part-") for p in (out/"shards").glob("*")) if out.exists() else 0


@pytest.mark.parametrize("what,said", [("photos", "photos is gone or empty, it was there"), ("photos/1", "since")])
def test_a_disk_that_is_gone_for_a_while_costs_nothing(pipe, photos, undisturbed, tmp_path, what, said):
    here = shutil.copytree(photos, tmp_path/"photos")

    def vanishing(work, shards, workers):
        for i, made in enumerate(map(work, shards)):
            if not i: (tmp_path/what).rename(tmp_path/"away")
            yield made

    with pytest.raises(InputError, match=said):
        embed_photos(pipe, here, tmp_path/"out", per_shard=PER, workers=0, spread=vanishing)
    (tmp_path/"away").rename(tmp_path/what)
    got = embed_photos(pipe, here, tmp_path/"out", per_shard=PER, workers=0)
    assert got["made"] in (2, 3) and got["unreadable"] == 0 and same(tmp_path/"out", undisturbed)


# --- killed

def test_a_killed_worker_costs_its_shard_only(pipe, photos, undisturbed, tmp_path):
    killed = []

    def killing(work, shards, workers):
        for i, made in enumerate(pool_spread(work, shards, workers)):
            if i == 1:
                os.kill(made["process"], signal.SIGKILL)
                killed.append(made["process"])
            yield made

    said = embed_photos(pipe, photos, tmp_path/"out", per_shard=PER, workers=2, spread=killing)
    assert killed and said["made"] == 4 and same(tmp_path/"out", undisturbed)
    assert not psutil.pid_exists(killed[0]) or psutil.Process(killed[0]).status() == psutil.STATUS_ZOMBIE


class Deadly(EmbedShard):
    "A photograph ends every process that looks at it"
    def __reduce__(self): return Deadly, (self.settings,)

    def rows(self, inputs):
        if any(i.source == "1/05.jpg" for i in inputs): os.kill(os.getpid(), signal.SIGKILL)
        return super().rows(inputs)


def test_a_photograph_that_ends_every_process_is_a_row(pipe, photos, undisturbed, tmp_path):
    (tmp_path/"list.txt").write_text("0/00.jpg\n1/05.jpg\n0/02.jpg\n")
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    said = embed_photos(pipe, tmp_path/"list.txt", tmp_path/"out", workers=1,
                        spread=lambda work, shards, n: pool_spread(Deadly(work.settings), shards, n))
    got, want = rows_of(tmp_path/"out"), rows_of(undisturbed)
    assert (said["faces"], said["unreadable"]) == (2, 1) and got["1/05.jpg", -1]["reason"] == ENDED
    assert np.allclose(got["0/02.jpg", 0]["embedding"], want["0/02.jpg", 0]["embedding"], atol=1e-4)


def test_ctrl_c_while_the_workers_begin_is_one_sentence(started, photos, tmp_path):
    "A terminal interrupts the command and all of its processes, however young they are"
    p = started(photos, tmp_path/"out", "--workers", 2, "--per_shard", PER, "--fast")
    young = wait_for(lambda: [c for c in psutil.Process(p.pid).children() if "spawn_main" in " ".join(c.cmdline())])
    for pid in (*(c.pid for c in young), p.pid): os.kill(pid, signal.SIGINT)
    assert p.communicate(timeout=60)[1].strip().splitlines() == ["facerec_embed: stopped"] and p.returncode == 130


@pytest.mark.parametrize("with_what,code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_killed_driver_goes_on_where_it_was(started, pipe, tmp_path, with_what, code):
    photos, out, calm = (tmp_path/n for n in ("photos", "out", "calm"))
    for i in range(60): draw(photos/f"{i}.jpg", i)
    p = started(photos, out, "--per_shard", PER, "--workers", 1, "--fast")
    wait_for(lambda: finished(out))
    workers = psutil.Process(p.pid).children(recursive=True)
    os.kill(p.pid, with_what)
    err = p.communicate(timeout=60)[1]
    assert p.returncode == code and "Traceback" not in err
    assert workers and not psutil.wait_procs(workers, timeout=30)[1], "a worker lives on without its parent"
    had = finished(out)
    said = embed_photos(pipe, photos, out, per_shard=PER, workers=0)
    embed_photos(pipe, photos, calm, per_shard=PER, workers=0)
    assert said["made"] == 20 - had and said["looked_at"] == 60 - PER*had and same(out, calm)


# --- again

def test_again_with_other_photographs(pipe, photos, undisturbed, tmp_path):
    folder, out = tmp_path/"photos", tmp_path/"out"
    for p in sorted(photos.rglob("*.jpg"))[:5]: (folder/p.name).parent.mkdir(exist_ok=True), shutil.copy(p, folder)
    first = embed_photos(pipe, folder, out, per_shard=2, workers=0)
    before = {p.name: p.stat().st_mtime_ns for p in (out/"shards").iterdir()}
    assert first["made"] == 3 and embed_photos(pipe, folder, out, per_shard=2, workers=0)["made"] == 0
    draw(folder/"aa.jpg", 8)
    said = embed_photos(pipe, folder, out, per_shard=2, workers=0)
    assert (said["new"], said["made"], said["looked_at"]) == (1, 1, 1)
    assert all((out/"shards"/n).stat().st_mtime_ns == t for n, t in before.items())
    names = sorted(p.name for p in folder.iterdir())
    (folder/names[1]).unlink(), draw(folder/names[2], 3, 170)
    said = embed_photos(pipe, folder, out, per_shard=2, workers=0, prune=True)
    assert (said["changed"], said["gone"], said["photographs"], said["made"]) == (1, 1, 5, 2)
    fresh = tmp_path/"fresh"
    embed_photos(pipe, folder, fresh, per_shard=2, workers=0)
    assert same(out, fresh)


def test_another_model_or_other_photographs_are_refused(photos, undisturbed, tmp_path, capsys):
    names = sorted(os.listdir(undisturbed/"shards"))
    assert facerec_embed(str(photos), str(undisturbed)) == 1
    assert "was made with model celeba-" in capsys.readouterr().err
    draw(tmp_path/"other/x.jpg")
    assert facerec_embed(str(tmp_path/"other"), str(undisturbed), fast=True) == 1
    assert "was made with photographs below" in capsys.readouterr().err
    assert sorted(os.listdir(undisturbed/"shards")) == names


# --- as what photographs come

def test_every_source_gives_the_same_faces(pipe, photos, undisturbed, tmp_path):
    files = sorted(photos.rglob("*.jpg"))
    data = [p.read_bytes() for p in files]
    names = [p.relative_to(photos).as_posix() for p in files]
    (tmp_path/"list.txt").write_text("\n".join(map(str, files)))
    pq.write_table(pa.table(dict(path=list(map(str, files)))), tmp_path/"paths.parquet")
    pq.write_table(pa.table(dict(bytes=data, source=names)), tmp_path/"bytes.parquet", row_group_size=5)
    for k in range(2):
        with tarfile.open(tmp_path/f"shard-{k}.tar", "w") as tar:
            for n, d in list(zip(names, data))[k::2]:
                m = tarfile.TarInfo(f"{n.replace('/', '_')}")
                m.size = len(d)
                tar.addfile(m, io.BytesIO(d))
                tar.addfile(tarfile.TarInfo(f"{n}.json"), io.BytesIO())
    fsspec.filesystem("memory").pipe({f"/test_embed/{n}": d for n, d in zip(names, data)})
    want = rows_of(undisturbed)
    hashes = sorted((r["sha256"], round(sum(r["embedding"]), 3)) for r in want.values())
    for k, source in enumerate([tmp_path/"list.txt", tmp_path/"paths.parquet", tmp_path/"bytes.parquet",
                                tmp_path/"shard-{0..1}.tar", tmp_path/"shard-*.tar", "memory://test_embed"]):
        embed_photos(pipe, str(source), tmp_path/f"out{k}", per_shard=5, workers=0)
        got = rows_of(tmp_path/f"out{k}")
        assert sorted((r["sha256"], round(sum(r["embedding"]), 3)) for r in got.values()) == hashes, source
    assert {s.partition("::")[0] for s, _ in rows_of(tmp_path/"out4")} == {"shard-0.tar", "shard-1.tar"}


# --- what is among them

def test_whatever_is_no_photograph_is_a_row(photos, tmp_path, capsys):
    folder, out = tmp_path/"photos", tmp_path/"out"
    good = ["good.jpg", "a b\nc.jpg", "Ünï-人.jpg", "quote'\".jpg", "slash\\n.jpg"]
    for i, n in enumerate(good): draw(folder/n, i)
    os.link(folder/"good.jpg", os.fsencode(folder) + b"/no\xfftext.jpg")
    (folder/"empty.jpg").touch()
    (folder/"text.jpg").write_text("no photograph")
    (folder/"dangling.jpg").symlink_to("nowhere")
    os.mkfifo(folder/"pipe.jpg")
    with open(folder/"huge.jpg", "wb") as f: f.truncate(1 << 30)
    (folder/"half.jpg").write_bytes((folder/"good.jpg").read_bytes()[:900])
    Image.new("RGB", (60, 60), "gray").save(folder/"nobody.jpg")
    assert facerec_embed(str(folder), str(out), fast=True, workers=2, per_shard=4, check=True, json=True) == 0
    said = capsys.readouterr()
    got = {s: r for (s, f), r in rows_of(out).items() if f < 0}
    assert {s for s, f in rows_of(out) if f == 0} == {*good, "no\\udcfftext.jpg"}
    whys = dict(empty="is not a readable image", text="is not a readable image", dangling="does not exist",
                pipe="is not a file", huge="has 1,073,741,824 bytes", half="is not a readable image",
                nobody="no face was found")
    assert got.keys() == {f"{k}.jpg" for k in whys}
    for k, why in whys.items(): assert got[f"{k}.jpg"]["reason"].startswith(why), got[f"{k}.jpg"]
    assert json.loads(said.out)["unreadable"] == 6 and json.loads(said.out)["no_face"] == 1
    assert "and 1 more" in said.err and re.search(r"^dangling.jpg: does not exist$", said.err, re.M)


def test_hostile_tars_write_nothing_and_hide_nothing(pipe, photos, tmp_path):
    data = draw(tmp_path/"a.jpg").read_bytes()
    with tarfile.open(tmp_path/"odd.tar", "w") as tar:
        for name, kind, size in (("../../up.jpg", tarfile.REGTYPE, len(data)), ("/abs.jpg", tarfile.REGTYPE, len(data)),
                                 ("soft.jpg", tarfile.SYMTYPE, 0), ("hard.jpg", tarfile.LNKTYPE, 0),
                                 ("dev.jpg", tarfile.CHRTYPE, 0), ("good.jpg", tarfile.REGTYPE, len(data)),
                                 ("zero.jpg", tarfile.REGTYPE, 0), ("ключ\n.jpg", tarfile.REGTYPE, len(data))):
            m = tarfile.TarInfo(name)
            m.type, m.size, m.linkname = kind, size, "/etc/passwd"
            tar.addfile(m, io.BytesIO(data[:size]))
        m = tarfile.TarInfo("huge.jpg")
        m.size = 1 << 40
        tar.fileobj.write(m.tobuf())
        tar.offset += 512
    before = sorted(tmp_path.rglob("*"))
    said = embed_photos(pipe, tmp_path/"odd.tar", tmp_path/"out", workers=0)
    assert [p for p in sorted(tmp_path.rglob("*")) if "out" not in p.parts] == before
    got = {s.partition("::")[2]: r["reason"] for (s, f), r in rows_of(tmp_path/"out").items()}
    assert {k for k, why in got.items() if why is None} == {"good.jpg", "ключ\n.jpg"}
    assert said["faces"] == 2 and got["../../up.jpg"] == "its name points outside of the tar"
    assert got["soft.jpg"] == got["hard.jpg"] == "is a link, not a photograph"
    assert got["dev.jpg"] == "is not a plain file" and "cannot be read to its end" in got[""]


def test_nothing_to_do_and_nothing_there(tmp_path, capsys):
    (tmp_path/"empty").mkdir()
    for source in (tmp_path/"empty", tmp_path/"none", "nothing://here", "ftp://me:word@host/x"):
        assert facerec_embed(str(source), str(tmp_path/"out"), fast=True) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "Traceback" not in err and ":word" not in err
    assert not (tmp_path/"out").exists()
    (tmp_path/"empty/text.jpg").write_text("x")
    assert facerec_embed(str(tmp_path/"empty"), str(tmp_path/"out"), fast=True, workers=0) == 1
    assert "1 unreadable" in capsys.readouterr().out


def test_a_damaged_shard_is_told_and_made_again(pipe, photos, undisturbed, tmp_path):
    out = tmp_path/"out"
    embed_photos(pipe, photos, out, per_shard=PER, workers=0)
    shard = sorted((out/"shards").iterdir())[1]
    shard.write_bytes(b"PAR1" + b"\0"*200)
    assert "is damaged" in FaceShards(out).check()["wrong"][0]
    with pytest.raises(InputError, match="delete it and run facerec_embed again"): list(FaceShards(out).faces())
    shard.unlink()
    assert embed_photos(pipe, photos, out, per_shard=PER, workers=0)["made"] == 1 and same(out, undisturbed)


def test_without_the_libraries_of_training(started, photos, undisturbed, tmp_path):
    "PyTorch and its company cannot be imported, in the workers neither"
    (tmp_path/"sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({TRAIN}))\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    p = started(photos, tmp_path/"out", "--fast", "--workers", 1, "--per_shard", PER, PYTHONPATH=path)
    err = p.communicate(timeout=100)[1]
    assert p.returncode == 0, err
    assert same(tmp_path/"out", undisturbed)
