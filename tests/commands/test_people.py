"The commands of a photo library: enrol again, ask about several photographs, and the people of a gallery."
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facerec_nb.apps.commands import facerec_enroll, facerec_identify, facerec_people
from facerec_nb.core.files import write_image
from facerec_nb.faces.detection import WholeImage
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.gallery import Gallery
from toys import Colour, Five

ROOT = Path(__file__).resolve().parents[2]


COLOURS = {"Ann": (220, 80, 80), "Bob": (90, 200, 90), "Cem": (150, 120, 210)}


@pytest.fixture
def library(tmp_path, monkeypatch):
    pipe = FacePipeline(WholeImage(), Five(), Colour(), "m", threshold=0.9)
    monkeypatch.setattr(FacePipeline, "load", lambda *a, **k: pipe)
    for n, c in COLOURS.items():
        for j in range(2): write_image(tmp_path/"people"/n/f"{j + 1}.png", np.full((60, 60, 3), c, np.uint8) + j)
    return tmp_path


@pytest.fixture
def asked(capsys):
    def ask(f, *args, code=0, **how):
        args = [str(a) if isinstance(a, Path) else a for a in args]
        assert f(*args, **how) == code
        return capsys.readouterr()
    return ask


def test_enrol_again_replace_and_prune(library, asked, place):
    g = library/"new/folder/g.db" if isinstance(place, Path) else place
    assert asked(facerec_enroll, library/"people", g).out.startswith("6 photographs enrolled, 0 were there")
    (library/"people/Ann/2.png").unlink()
    (library/"people/loose.png").touch()
    said = asked(facerec_enroll, library/"people", g)
    assert "5 were there" in said.out
    assert "1 gone from the folder (--prune takes them out), 1 things passed over" in said.out
    assert "Ann/2.png: its photograph is not there any more" in said.err and "no person's folder" in said.err
    said = asked(facerec_enroll, library/"people", g, prune=True, json=True)
    got = json.loads(said.out)
    assert got["people"] == {"Ann": 1, "Bob": 2, "Cem": 2} and got["photographs"]["pruned"] == 1


def test_a_folder_of_folders_is_asked_for(library, asked):
    os.rename(library/"people", library/"family")
    (library/"more").mkdir()
    shutil.move(library/"family", library/"more/family")
    said = asked(facerec_enroll, library/"more", library/"g.db", code=1)
    assert said.err.count("\n") == 1 and "say --level 1" in said.err and not (library/"g.db").exists()
    asked(facerec_enroll, library/"more", library/"g.db", level=2)
    assert Gallery(library/"g.db").people() == {"Ann": 2, "Bob": 2, "Cem": 2}


def test_several_photographs_and_folders(library, asked, place):
    g, people = place, library/"people"
    asked(facerec_enroll, people, g)
    files = [str(people/"Ann/1.png"), str(people/"Bob/2.png"), str(library/"none.png"), str(people/"Cem")]
    said = asked(facerec_identify, files, gallery=str(g), draw=str(library/"drawn"))
    assert [line.split("\t")[2] for line in said.out.splitlines()] == ["Ann", "Bob", "Cem", "Cem"]
    assert "none.png does not exist" in said.err and "1 of 5 photographs could not be read" in said.err
    drawn = sorted(p.relative_to(library/"drawn").as_posix() for p in (library/"drawn").rglob("*.jpg"))
    assert drawn == [f"people/{n}.png.jpg" for n in ("Ann/1", "Bob/2", "Cem/1", "Cem/2")]
    assert asked(facerec_identify, people/"Ann/1.png", gallery=str(g)).out.count("\n") == 1
    assert "is empty" in asked(facerec_identify, ["a.png", ""], gallery=str(g), code=1).err


def test_people_of_a_gallery(library, asked, place):
    g = place
    asked(facerec_enroll, library/"people", g)
    assert [line.split("\t")[:2] for line in asked(facerec_people, g).out.splitlines()] == [[n, "2"] for n in COLOURS]
    assert asked(facerec_people, g, "rename", "Ann", "Änne").out == "Ann is called Änne\n"
    asked(facerec_people, g, "merge", "Bob", "Änne")
    asked(facerec_people, g, "export", str(library/"x.zip"), "Cem")
    asked(facerec_people, g, "remove", "Cem")
    assert json.loads(asked(facerec_people, g, json=True).out)["people"][0]["references"] == 4
    assert "1 people imported" in asked(facerec_people, g, "import", str(library/"x.zip")).out
    assert "or merge" in asked(facerec_people, g, "import", str(library/"x.zip"), code=1).err
    asked(facerec_people, g, "import", str(library/"x.zip"), "merge")
    assert Gallery(g).people() == {"Cem": 4, "Änne": 4}
    asked(facerec_people, g, "remove", "Cem")
    asked(facerec_people, g, "import", str(library/"x.zip"))
    assert "is not a gallery file" in asked(facerec_people, library, code=1).err
    assert asked(facerec_people, g, "threshold", "0.7").out.endswith("0.7\n")
    assert Gallery(g).people() == {"Cem": 2, "Änne": 4} and Gallery(g).threshold == 0.7
    for wrong, why in ((("rename", "x", "y"), "nobody called 'x'"), (("merge", "Cem"), "merge needs OLD INTO"),
                       (("forget",), "there is no 'forget'"), (("threshold", "2"), "is not a cosine")):
        said = asked(facerec_people, g, *wrong, code=1)
        assert why in said.err and said.err.count("\n") == 1


def test_one_address_instead_of_a_file(library, asked, database):
    "Copied to a server by one word; no message tells the password; a slash that is missing is no file"
    g, secret = library/"g.db", database.replace("facerec@", "facerec:t0psecret@")
    asked(facerec_enroll, library/"people", g)
    told = [asked(facerec_people, g, "save", secret), asked(facerec_people, g, "save", secret, code=1)]
    assert "copied to postgresql://facerec@/" in told[0].out and "holds people already" in told[1].err
    told += [asked(facerec_people, secret, about=True), asked(facerec_people, secret, json=True),
             asked(facerec_enroll, library/"people", secret), asked(facerec_people, secret, "compact"),
             asked(facerec_identify, library/"people/Ann/1.png", gallery=secret, json=True),
             asked(facerec_people, secret.replace("@/", "@/absent"), code=1)]
    assert "whom its server lets in" in told[2].out and "6 were there" in told[4].out and "t0psecret" not in f"{told}"
    assert not list(library.glob("postgres*"))
    asked(facerec_people, secret, "save", library/"back.db")
    assert Gallery(library/"back.db").held() == Gallery(g).held()


def test_about_and_a_rule_that_is_honoured(library, asked):
    g = library/"g.db"
    asked(facerec_enroll, library/"people", g, forget_after="365d")
    said = asked(facerec_people, g, about=True).out
    for word in ("no photographs", "365 days", "model:       m", "its owner", "nothing yet"): assert word in said, word
    db = sqlite3.connect(g)
    db.execute("UPDATE refs SET added='2020-01-01T00:00:00Z' WHERE person=1")
    db.commit()
    db.close()
    said = asked(facerec_people, g)
    assert "2 references older than 365 days were forgotten, and with them 1 people" in said.err
    assert "Ann" not in said.out
    assert "2 references, 1 people" in asked(facerec_people, g, about=True).out
    assert "is no time to keep references" in asked(facerec_people, g, forget_after="soon", code=1).err


@pytest.mark.skipif(os.name == "nt", reason="a shell's pipe")
def test_a_closed_pipe_ends_quietly(tmp_path):
    with Gallery(tmp_path/"g.db", model="m") as g:
        g.add_many([(f"somebody with a long name {i}", np.eye(8)[i % 8], [f"{i}.jpg"]) for i in range(5000)])
    script = tmp_path/"people.py"
    script.write_text("import sys\nfrom facerec_nb.apps.commands import facerec_people\nsys.exit(facerec_people())")
    typed = f"'{sys.executable}' '{script}' '{tmp_path/'g.db'}' | head -1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    r = subprocess.run(["sh", "-c", typed], capture_output=True, text=True, timeout=60, env=env)
    assert r.stdout.startswith("somebody with a long name 0\t1\t") and r.stderr == ""


def test_what_means_nothing_is_one_sentence(library, asked):
    g, photo = library/"g.db", str(library/"people/Ann/1.png")
    asked(facerec_enroll, library/"people", g)
    for f, args, how, said in (
            (facerec_identify, ([photo], g), dict(top=0), "--top 0 people"),
            (facerec_identify, ([photo], g), dict(top=-1), "--top -1 people"),
            (facerec_identify, ([photo], g), dict(threshold=float("nan")), "is not a cosine"),
            (facerec_identify, ([photo], g), dict(fpir=0.1), "give --threshold, or"),
            (facerec_people, (g, "list", "Ann"), {}, "list needs nothing more"),
            (facerec_people, (g, "lst"), {}, "there is no 'lst'"),
            (facerec_people, (g, "merge", "Ann", "Ann"), {}, "give two names"),
            (facerec_people, (g, "import", library), {}, f"{library} is not a file"),
            (facerec_people, (g, "export", library), {}, f"{library} cannot be used (Is a directory)"),
            (facerec_people, (g,), dict(forget_after="1 year"), "is no time to keep references")):
        err = asked(f, *args, code=1, **how).err
        assert said in err and err.count("\n") == 1
