"facerec_cluster, called as a program calls it: photographs, changes, a gallery, and what is refused."
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from facerec_nb.apps import commands as cli
from facerec_nb.core.files import read_image, write_image
from facerec_nb.pipeline.answers import Face, Faces
from facerec_nb.pipeline.face_pipeline import FacePipeline


class OneFace(FacePipeline):
    "The whole picture is a face; its colour is who it is"
    def __init__(self): super().__init__(None, None, None, "colours", threshold=0.8)

    def stream(self, paths, progress=False):
        for p in paths:
            img = read_image(p)
            e = img.mean((0, 1)).astype(np.float32)
            points = np.array([[8, 8], [24, 8], [16, 16], [10, 24], [22, 24]], float)
            yield Faces([Face(np.array([0, 0, 32, 32]), 0.9, points, 0.95, img, e/np.linalg.norm(e))], p)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(FacePipeline, "load", lambda *a, **k: OneFace())
    for name, colour in (("a", (200, 30, 30)), ("b", (190, 30, 30)), ("c", (30, 200, 30))):
        write_image(tmp_path/f"photos/{name}.png", np.full((32, 32, 3), colour, np.uint8))
    return tmp_path


def test_from_photographs_to_a_gallery(folder, capsys, place):
    photos, out, gallery = str(folder/"photos"), str(folder/"groups"), str(place)
    assert cli.facerec_cluster(photos, out=out, json=True) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["photographs"], first["faces"], first["people"], first["new"]) == (3, 3, 2, 3)
    table = pd.read_csv(folder/"groups/clusters.csv", dtype=str, keep_default_na=False)
    assert list(table) == ["photo", "face", "box", "person", "name", "similarity", "poor"]
    table.loc[table.photo == "a.png", "name"] = "Ada"
    table.to_csv(folder/"groups/clusters.csv", index=False)
    assert cli.facerec_cluster(out, apply=True) == 0 and "1 with a name" in capsys.readouterr().out
    assert (folder/"groups/people/0001 Ada/b.png").is_file()
    assert cli.facerec_cluster(out, enroll=gallery) == 0
    assert "2 references of 1 people enrolled" in capsys.readouterr().out
    (folder/"photos/c.png").unlink()
    assert cli.facerec_cluster(photos, out=str(folder/"again"), gallery=gallery, json=True) == 0
    assert json.loads(capsys.readouterr().out)["named"] == 1
    assert cli.facerec_cluster(photos, out=out) == 0 and "c.png: gone since last time" in capsys.readouterr().err


def test_what_is_refused(folder, capsys):
    out = str(folder/"groups")
    cli.facerec_cluster(str(folder/"photos"), out=out)
    capsys.readouterr()
    for args, said in (((out,), "is a folder of groups"), ((str(folder/"photos"), True), "is no folder of groups"),
                       ((str(folder/"none"),), "is not a folder")):
        assert cli.facerec_cluster(args[0], apply=len(args) > 1) == 1
        assert said in capsys.readouterr().err
    assert cli.facerec_cluster(str(folder/"photos"), out=out, threshold=3.) == 1
    assert "is not a cosine" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_phone_and_screen(folder, width):
    "Nothing is wider than the window, also with a long name without spaces"
    out = folder/"groups"
    cli.facerec_cluster(str(folder/"photos"), out=str(out))
    table = pd.read_csv(out/"clusters.csv", dtype=str, keep_default_na=False)
    table.assign(name="W"*200).to_csv(out/"clusters.csv", index=False)
    cli.facerec_cluster(str(out), apply=True)
    inside = html.escape((out/"people.html").read_text(encoding="utf-8"), quote=True)
    ask = "document.title = document.querySelector('iframe').contentDocument.documentElement.scrollWidth"
    framed = f'<title></title><iframe width="{width}" height="800" onload="{ask}" srcdoc="{inside}"></iframe>'
    (out/"asked.html").write_text(framed, encoding="utf-8")
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    dom = subprocess.run([*browser, (out/"asked.html").as_uri()], capture_output=True, text=True, timeout=90).stdout
    assert int(re.search(r"<title>(\d+)</title>", dom)[1]) <= width


def test_groups_are_not_written_around_their_photographs(folder, capsys):
    for out in (folder/"photos", folder):
        assert cli.facerec_cluster(str(folder/"photos"), out=str(out)) == 1
        assert "give another output folder" in capsys.readouterr().err
    assert not (folder/"photos/people.html").exists()
    assert cli.facerec_cluster(str(folder/"photos"), out=str(folder/"photos/groups")) == 0


def test_groups_without_names_enrol_nobody(folder, capsys):
    cli.facerec_cluster(str(folder/"photos"), out=str(folder/"groups"))
    assert cli.facerec_cluster(str(folder/"groups"), enroll=str(folder/"g.db")) == 0
    assert "0 references of 0 people enrolled" in capsys.readouterr().out
