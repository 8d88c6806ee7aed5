"""How many of the cases that public bug reports describe have the right answer: folders, files, looks, programs,
films, options.

Writes results/pipeline/public_cases.json. The inputs are made by make_cases.py beside the project (cases/, from
photographs beside it); nothing of them enters the project.

    FACES=../shared/data python ../shared/cases/make_cases.py cases
    python benchmarks/public_cases.py --cases cases --data ../shared/data

A case is right or wrong; what was said is printed. A few minutes on one core.
"""
import argparse
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from facerec_nb.core.errors import InputError, attempt
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.photos import people_below
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.gallery import Gallery

REFUSED = {"cut_off.jpg": "cut_off", "empty.jpg": "empty", "page.jpg": "page", "phone.heic": "heic",
           "heic_named.jpg": "heic", "clip.mp4": "video"}
GREY = ("grey", "la.", "one_bit", "half_", "negative")
LOOKS = ("plain", "turn90", "turn180", "turn270", "tilt30", "tilt60", "mirror", "grey", "bars", "panorama20", "high96")


def kinds(cases):
    "The same photograph as every kind of file: read as the plain one, or refused with its name"
    plain = read_image(cases/"kinds/plain.jpg").astype(int)
    for p in sorted((cases/"kinds").iterdir()):
        if p.name == "first_frame_blank.gif": continue
        got = attempt(read_image, p)
        said = str(got).lower() if isinstance(got, InputError) else ""
        if p.name in REFUSED: yield f"kinds/{p.name}", REFUSED[p.name] in said
        elif isinstance(got, InputError): yield f"kinds/{p.name}", False
        elif p.name.startswith(GREY): yield f"kinds/{p.name}", got.shape == plain.shape and got.mean() > 100
        else: yield f"kinds/{p.name}", got.shape == plain.shape and np.abs(got - plain).mean() < 8


def layouts(cases):
    "Whose folder is it?"
    root = cases/"folders"
    base = {n: 3 for n in people_below(root/"people")}
    want = dict(people=base, nested=base, split={n: 4 for n in base}, loose=base, kinds=base | {"7223": 5})
    for name, people in want.items():
        told = []
        got = {n: len(p) for n, p in people_below(root/name, trouble=told).items()}
        yield f"layout/{name}", got == people and bool(told) == (name == "loose")
    told = []
    yield "layout/tab in a name", list(people_below(root/"badname", trouble=told)) == ["good"] and len(told) == 1
    yield "layout/names of any script", len(people_below(root/"names")) == 12
    told = []
    yield "layout/latin-1 name", list(people_below(cases/"odd/latin1", trouble=told)) == ["fine"] and len(told) == 1
    with tempfile.TemporaryDirectory() as d:
        for n in ("Ann", ".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX", "Ann/thumbnails"):
            shutil.copytree(root/"people"/next(iter(base)), Path(d)/n, dirs_exist_ok=True)
        yield "layout/litter", {n: len(p) for n, p in people_below(d).items()} == {"Ann": 3}
        shutil.copytree(root/"people", Path(d)/"outer/family")
        asked = attempt(people_below, Path(d)/"outer")
        yield "layout/folder of folders", isinstance(asked, InputError) and "level=" in str(asked)


def enrolments(cases, pipe, work):
    "What a second enrolment does"
    people, g = work/"people", Gallery(work/"new/g.db", model=pipe.model)
    shutil.copytree(cases/"folders/people", people)
    def again(folder, **how): return pipe.enroll(folder, g, **how)
    first, names = again(people), sorted(os.listdir(people))
    yield "enrol/new gallery makes its folder", (first.status == "enrolled").all() and set(g.people().values()) == {3}
    os.chdir(people)
    yield "enrol/another working directory", (again(".").status == "already").all()
    os.chdir(work)
    (people/names[0]/"1.jpg").rename(people/names[0]/"beach.jpg")
    yield "enrol/renamed file", (again(people).status == "already").all() and set(g.people().values()) == {3}
    shutil.copy(people/names[0]/"beach.jpg", people/names[0]/"copy (1).jpg")
    yield "enrol/copies", (again(people).status == "already").all()
    shutil.copytree(cases/"folders/split/test", work/"card/people")
    for n in names:
        for i, p in enumerate(sorted((work/"card/people"/n).iterdir())): p.rename(p.with_name(f"x{i}.jpg"))
        (work/"card/people"/n/"x1.jpg").rename(work/"card/people"/n/"1.jpg")
    table = again(work/"card/people")
    yield "enrol/second batch numbered alike", (table.status == "enrolled").sum() == 3
    shutil.copy(cases/"looks/5_plain.jpg", people/names[1]/"1.jpg")
    again(people)
    yield "enrol/replaced file", g.people()[names[1]] == 4
    (people/names[2]/"3.jpg").unlink()
    yield "enrol/gone is told", (again(people).status == "gone").sum() == 1
    yield "enrol/--prune", (again(people, prune=True).status == "pruned").sum() == 1 and g.people()[names[2]] == 3
    h = Gallery(model=pipe.model)
    both = pipe.enroll(cases/"folders/both", h)
    yield "enrol/one photograph under two people", both.problem.str.contains("the same photograph").any()
    group = pipe.enroll(cases/"folders/group", Gallery(model=pipe.model))
    yield "enrol/a group in a person's folder", group.problem.str.contains("faces, the largest was taken").any()
    for form in ("NFC", "NFD"): pipe.enroll(cases/"odd"/form, h)
    yield "enrol/NFC and NFD", sum(h.people().values()) == 3 + 1
    yield "file/0600", os.name == "nt" or {stat.S_IMODE(p.stat().st_mode) for p in (work/"new").iterdir()} == {0o600}


def turned(path, name):
    "A look that is not among the files"
    return np.ascontiguousarray(np.rot90(read_image(path), 2)) if name == "turn180" else read_image(path)


def looks(cases, data, pipe):
    "The same photograph turned, tilted, framed: the right person first for seven of eight, and colours that are told"
    people = sorted(p for p in (data/"celeba-photos-40").iterdir() if p.is_dir())
    refs, names = [], []
    for k, person in enumerate(people[:8]):
        found = [f for f in pipe.stream(sorted(person.glob("*.jpg"))[1:4]) if f]
        refs += [f[0].embedding for f in found]
        names += [k]*len(found)
    refs = np.stack(refs)
    for name in LOOKS:
        right = 0
        for k in range(8):
            file = cases/"looks"/f"{k}_{'plain' if name == 'turn180' else name}.jpg"
            faces = pipe(turned(file, name))
            right += bool(faces) and names[int((refs @ faces[0].embedding).argmax())] == k
        yield f"looks/{name} ({right} of 8)", right >= 7
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for k in range(8): pipe(cases/"looks"/f"{k}_bgr.jpg")
    yield f"looks/colours exchanged ({len(said)} of 8 told)", len(said) >= 7


def programs(cases, pipe, work):
    "As a library inside other programs, and on the command line"
    img = read_image(cases/"looks/0_plain.jpg")
    e = pipe(img)[0].embedding
    if hasattr(os, "fork"):
        if not (pid := os.fork()): os._exit(0 if pipe(img)[0].embedding @ e > 0.999 else 1)
        yield "program/fork", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    yield "program/pickle", bool(pickle.loads(pickle.dumps(pipe))(img)[0].embedding @ e > 0.999)
    pipe.colour = "BGR"
    yield "program/BGR", bool(pipe(np.ascontiguousarray(img[..., ::-1]))[0].embedding @ e > 0.999)
    pipe.colour = "RGB"
    script = work/"run.py"
    script.write_text("import sys\nfrom facerec_nb.apps import commands\n"
                      "sys.exit(getattr(commands, sys.argv.pop(1))())")
    def typed(line):
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        return subprocess.run(["sh", "-c", line.replace("$", f"'{sys.executable}' '{script}' ")], capture_output=True,
                              text=True, env=env, cwd=work)
    r = typed("$facerec_people new/g.db --about")
    yield "program/--about", "no photographs" in r.stdout and "its owner" in r.stdout
    r = typed("$facerec_people new/g.db | head -1")
    yield "program/closed pipe", r.stdout.count("\n") == 1 and not r.stderr
    r = typed("$facerec_identify people/*/2.jpg --gallery new/g.db")
    named = [line.split("\t")[2] for line in r.stdout.splitlines()]
    yield "program/several photographs", named == sorted(os.listdir("people"))
    seen = [_named(pipe, img, n) for n in ("山田太郎", "عمر", "Łukasz Żółć")]
    yield "program/names of any script are drawn", all(seen)


def _film(path, photos):
    "A film of photographs, each for two seconds, slowly coming nearer"
    import cv2
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (360, 480))
    for p, k in ((p, k) for p in photos for k in range(10)):
        near = np.array([[1 + 0.01*k, 0, 0], [0, 1 + 0.01*k, 0]])
        img = cv2.warpAffine(cv2.resize(read_image(p), (360, 480)), near, (360, 480))
        out.write(np.ascontiguousarray(img[..., ::-1]))
    out.release()
    return path


def films(cases, pipe, work):
    "Who is in a film, and what is said about damaged ones"
    from facerec_nb.pipeline.video import Film, cut_off, film_frames, identify_film
    g = Gallery(model=pipe.model)
    pipe.enroll(cases/"folders/people", g)
    people = sorted((cases/"folders/people").iterdir())
    film = _film(work/"film.avi", [sorted(p.iterdir())[0] for p in people])
    found = identify_film(pipe, Film(film), g)
    yield "film/each person once", [a.answer.name for a in found] == [p.name for p in people]
    times = np.array([[a.first, a.last] for a in found])
    yield "film/times", times.shape == (3, 2) and np.abs(times - [[0, 1.5], [2, 3.5], [4, 5.5]]).max() <= 0.5
    data = film.read_bytes()
    (work/"half.avi").write_bytes(data[:len(data)//2])
    half = Film(work/"half.avi")
    yield "film/cut off", bool(list(film_frames(half))) and "cut off" in cut_off(half)
    yield "film/no film", "cannot be read as a film" in str(attempt(Film, cases/"kinds/clip.mp4"))


def _said(f, *args, **how):
    "What a training that cannot be says; empty when it can"
    try: f(*args, **how)
    except (InputError, FloatingPointError) as e: return str(e)
    return ""


def options(cases, work):
    "Settings at their edges: a run, or the true cause"
    import pandas as pd
    from facerec_nb.engines.onnx_embedder import OnnxEmbedder
    from facerec_nb.faces.recognition import train_embedder
    ids = np.arange(5).repeat(6)
    table = pd.DataFrame(dict(image_id=[f"{i}.jpg" for i in range(30)], identity=ids, people="seen",
                              split=["train", "train", "train", "val", "val", "test"]*5))
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 200, (5, 1, 1, 3))[ids] + rng.integers(0, 56, (30, 112, 112, 3))
    def said(**how): return _said(train_embedder, (table, faces.astype(np.uint8)), work/"run", head="ce", **how)
    yield "options/six photographs a person", not said(epochs=1, batch_size=8)
    yield "options/batch of one", "batch_size=1" in said(epochs=1, batch_size=1)
    yield "options/lr 1000", "learning rate is too high" in said(epochs=2, batch_size=8, lr=1000.)
    yield "options/resume", not said(epochs=1, batch_size=8, resume=True)
    yield "options/resume with more epochs", "epochs=1, asked is epochs=3" in said(epochs=3, batch_size=8, resume=True)
    half = OnnxEmbedder(cases/"half.onnx", 1)
    yield "options/half precision", bool(np.isfinite(half.embed(faces.astype(np.uint8))).all())


def _named(pipe, img, name):
    "Is a name drawn without a missing letter, or put below the picture?"
    from facerec_nb.pipeline.answers import Answer
    from facerec_nb.pipeline.gallery import Match
    face = pipe(img)[0]
    drawn = pipe.draw(img, [Answer("known", name, 0.7, 0.5, [Match(name, 0.7, "")], face)])
    return drawn.shape[1] == img.shape[1] and (drawn[:len(img)] != img).any()


def main(args):
    "All cases, one line each; the record"
    cases, data, work = args.cases.resolve(), args.data.resolve(), Path(tempfile.mkdtemp())
    out, here = args.out.resolve(), os.getcwd()
    pipe, rows = FacePipeline.load(threads=1), []
    for some in (kinds(cases), layouts(cases), enrolments(cases, pipe, work), looks(cases, data, pipe),
                 programs(cases, pipe, work), films(cases, pipe, work), options(cases, work)):
        for name, right in some:
            rows.append((name, bool(right)))
            print("right" if right else "WRONG", name, flush=True)
    os.chdir(here)
    shutil.rmtree(work)
    n, right = len(rows), sum(r for _, r in rows)
    print(f"{right} of {n}")
    metrics = dict(public_cases_right=metric(right, n=n, unit="cases with the right answer"))
    about = dict(name="cases of make_cases.py", fingerprint=fingerprint(cases/"kinds"), n_images=n, n_people=8)
    command = "python benchmarks/public_cases.py --cases cases --data ../shared/data"
    wrong = [name for name, r in rows if not r]
    what = f"cases of public bug reports, right or wrong; wrong: {', '.join(wrong) or 'none'}"
    write_record(out, record(what, command, about, metrics))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=Path("cases"), type=Path, help="what make_cases.py made")
    parser.add_argument("--data", default=Path("../shared/data"), type=Path, help="the photographs beside the project")
    parser.add_argument("--out", default=Path("results/pipeline/public_cases.json"), type=Path, help="the record")
    main(parser.parse_args())
