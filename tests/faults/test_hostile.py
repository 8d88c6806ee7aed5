"""Hundreds of hostile and odd inputs at every door.

None crashes, hangs, executes or writes outside; each gets one sentence or is read right.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hostile
import pytest

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    "Everything in order, made once, and watched to the end: whatever the inputs do, their surroundings stay the same"
    scene = hostile.Scene(tmp_path_factory.mktemp("hostile"))
    before = hostile.snapshot(scene.home)
    yield scene
    made = [
        scene.home / n
        for n in ("photos", "checkpoints", "galleries", "tables", "tables of others", "mixed", "whole.db", "out")
    ]
    assert hostile.changes(before, hostile.snapshot(scene.home, *made)) == []
    shutil.rmtree(scene.home)


@pytest.fixture(scope="module")
def photos(scene):
    return hostile.photographs(scene)


@pytest.fixture(scope="module")
def values(scene):
    return list(hostile.values(scene))


@pytest.fixture(scope="module")
def checkpoints(scene):
    return list(hostile.checkpoints(scene))


@pytest.fixture(scope="module")
def galleries(scene):
    return list(hostile.galleries(scene))


def fine(rows, at_least):
    "No failure among enough results"
    rows = list(rows)
    bad = [r for r in rows if r.failure]
    assert len(rows) >= at_least, f"{len(rows)} results only"
    assert not bad, f"{len(bad)} of {len(rows)}:\n" + "\n".join(
        f"{r.entry} | {r.kind} | {r.name} | {r.failure}" for r in bad[:40]
    )


@pytest.fixture(autouse=True)
def untouched(scene, request):
    "A test may change what it is told to write, and nothing else"
    own = {"test_commands_with_bad_galleries": ["galleries"], "test_galleries": ["galleries"]}.get(
        request.node.name, []
    )
    for name in ("photos", "values", "checkpoints", "galleries"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    outside = [
        scene.home / "out",
        scene.home / "tables",
        scene.home / "tables of others",
        scene.home / "mixed",
        *(scene.home / o for o in own),
    ]
    before = hostile.snapshot(scene.home, *outside)
    yield
    assert hostile.changes(before, hostile.snapshot(scene.home, *outside)) == []
    assert not scene.canary.exists(), "code in an input was run"


def test_there_are_enough_and_all_differ(photos, values, checkpoints, galleries):
    cases = [*photos, *values, *checkpoints, *galleries]
    assert len({(c.kind, c.name) for c in cases}) == len(cases) >= 500
    kinds = {c.kind for c in cases}
    assert {
        "truncated",
        "bit-flipped",
        "zero-byte",
        "huge dimension",
        "decompression bomb",
        "16-bit",
        "palette and alpha",
        "animated",
        "CMYK",
        "EXIF-rotated",
        "other file called .jpg",
        "no plain file",
        "odd name",
        "checkpoint cut short",
        "checkpoint with code",
        "gallery of another version",
    } <= kinds
    assert sum(c.expect == "refused" for c in cases) > 300 and sum(c.truth is not None for c in cases) > 100


def test_the_code_in_them_would_run(scene):
    "The canary sings when somebody does unpickle: the tests below would notice"
    import pickle

    for how, evil in hostile.evils(scene.canary).items():
        if how == "open":
            continue  # leaves the file open
        pickle.loads(pickle.dumps(evil))
        assert scene.canary.exists(), how
        shutil.rmtree(scene.canary) if scene.canary.is_dir() else scene.canary.unlink(missing_ok=True)


def test_the_judges_can_say_no():
    "A crash, a hang, a wrong picture and a bad sentence are told apart"
    import time
    import numpy as np

    assert "crashes: KeyError" in hostile.attempt(lambda: {}["x"])[2]
    assert "hangs" in hostile.attempt(time.sleep, 5, limit=0.05)[2]
    good = "a.jpg is not a readable image (OSError): remove it or save it again"
    assert hostile.sentence(good, "a.jpg") == ""
    for bad in (
        "it is broken: remove it",
        "a.jpg is broken",
        good + "\nTraceback",
        "a.jpg is a file. It is broken: remove it",
        "a.jpg: " + "x" * 600,
    ):
        assert hostile.sentence(bad, "a.jpg"), bad
    case = hostile.Case("k", "n", b"", "read", np.zeros((2, 2, 3), np.uint8))
    assert (
        hostile.fits(case, np.zeros((2, 2, 3), np.uint8)) == ""
        and "differs" in hostile.fits(case, np.full((2, 2, 3), 9, np.uint8))
        and "not (2, 2, 3)" in hostile.fits(case, np.zeros((2, 3, 3), np.uint8))
    )


def test_reading(photos, values, capfd):
    fine(hostile.try_reading(photos + values), 900)
    assert capfd.readouterr() == ("", ""), "printed behind Python's back"


def test_pipeline(scene, photos, values):
    fine(hostile.try_pipeline(scene, hostile.sample(photos, 1) + values[::3]), 40)


def test_pipeline_without_detector(scene, photos, values):
    fine(hostile.try_pipeline(scene, hostile.sample(photos, 1) + values[::3], whole=True), 30)


def test_lists(scene, photos, values):
    fine(hostile.try_many(scene, hostile.sample(photos, 1) + values[::2], None), 40)


def test_checkpoints(scene, checkpoints):
    fine(hostile.try_checkpoints(scene, [c for c in checkpoints if "code" in c.kind or "best_af" in c.name][::2]), 100)


def test_galleries(scene, galleries):
    fine(hostile.try_galleries(scene, galleries), 80)


def test_single_photographs(scene, photos):
    fine(hostile.try_single(scene, hostile.sample(photos, 1)), 30)


def test_commands_on_a_folder_of_many(scene, photos):
    "Every kind in one folder (the benchmark takes all)"
    folder = scene.home / "out" / "photos"
    few = []
    for c in hostile.sample([c for c in photos if c.kind != "no plain file"], 3):
        (folder / c.kind).mkdir(parents=True, exist_ok=True)
        os.link(c.source, folder / c.kind / c.name)
        few.append(hostile.Case(c.kind, c.name, folder / c.kind / c.name, c.expect))
    (folder / "no plain file").mkdir()
    few += hostile.no_files(folder / "no plain file", scene.photo)
    fine(hostile.try_folders(scene, few, folder, scene.home / "out"), 120)


def test_commands_with_bad_checkpoints(scene, checkpoints):
    fine(hostile.try_files(scene, hostile.sample(checkpoints, 1), []), 8)


def test_commands_with_bad_galleries(scene, galleries):
    fine(hostile.try_files(scene, [], galleries), 160)


def test_alignment(scene, photos):
    fine(hostile.try_tables(scene, list(hostile.tables(scene)), hostile.sample(photos, 2), scene.home / "out"), 80)


def test_tables_of_others(scene):
    fine(hostile.try_foreign_tables(list(hostile.foreign_tables(scene)), scene, scene.home / "out"), 120)


def program(command, *args):
    r = subprocess.run(
        [BIN / command, *map(str, args)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "Traceback" not in r.stderr, r.stderr[-3000:]
    return r.returncode, r.stdout, r.stderr.splitlines()


def named(photos, kind, name):
    return next(c.source for c in photos if (c.kind, c.name) == (kind, name))


def test_as_a_program(scene, photos):
    "The same from a shell, with a name that looks like an option"
    path = named(photos, "odd name", "-rf.jpg")
    code, out, err = program("facerec_identify", path, "--gallery", scene.gallery, "--run", scene.run)
    assert (code, err) == (0, []) and len(out.splitlines()) == 1 and out.startswith(str(path)), (out, err)


EACH = """
import sys
from facerec_nb.apps.commands import facerec_identify
for path in sys.argv[3:]:
    print(facerec_identify(path, gallery=sys.argv[1], run=sys.argv[2]), flush=True)
    print("next", file=sys.stderr, flush=True)
"""


def test_in_a_process_of_their_own(scene, photos):
    "Nothing is printed behind Python's back"
    paths = [
        named(photos, *c)
        for c in (
            ("no plain file", "pipe.jpg"),
            ("decompression bomb", "progressive with 20000 scans.jpg"),
            ("other file called .jpg", "eps.jpg"),
            ("bit-flipped", "tiff flipped 0.jpg"),
        )
    ]
    code, out, err = program("python", "-c", EACH, scene.gallery, scene.run, *paths)
    assert (
        (code, out) == (0, "1\n" * len(paths)) and err[1::2] == ["next"] * len(paths) and len(err) == 2 * len(paths)
    ), (code, out, err)
    for path, line in zip(paths, err[::2]):
        assert hostile.sentence(line, str(path)) == "", line


def test_a_pickled_checkpoint_as_a_program(scene, checkpoints):
    run = next(c.source.parent for c in checkpoints if c.name == "zip system, best_af.pth")
    code, out, err = program("facerec_verify", scene.good, scene.good, "--run", run, "--threshold", "0.5")
    assert code == 1 and out == "" and len(err) == 1 and "could run code, so it was not opened" in err[0]


def test_the_service_survives_every_photograph(scene, photos):
    "Each is answered, or refused in one sentence; afterwards the service answers as before"
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from facerec_nb.apps.service import ServeCfg, Service, build_service
    from facerec_nb.pipeline.gallery import Gallery

    with Gallery(model=scene.pipe.model) as g:
        g.add("somebody", hostile.np.eye(512, dtype="float32")[0][:len(_embedding(scene))])
        g.threshold = 0.5
        service = build_service(Service(scene.pipe, g, cfg=ServeCfg(per_minute=10**6)))
        client = TestClient(service, base_url="http://127.0.0.1", raise_server_exceptions=False)
        cases = [c for c in hostile.sample(photos, 3) if isinstance(c.source, Path) and c.source.is_file()]
        for c in cases:
            r = client.post("/identify", files={"photo": (c.source.name.encode("utf-8", "replace").decode(),
                                                           c.source.read_bytes())})
            assert r.status_code in (200, 413, 422), (c.kind, c.name, r.status_code, r.text)
            assert c.expect != "refused" or r.status_code != 200, (c.kind, c.name)
            assert r.status_code == 200 or "\n" not in str(r.json()["detail"])
        assert len(cases) > 30 and client.get("/health").json() == {"status": "ok"}


def _embedding(scene): return scene.pipe(scene.photo)[0].embedding
