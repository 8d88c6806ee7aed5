"""People enrolled and grouped from shards are those of the photographs: the same references, lines, groups, answers."""
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from facerec_nb.apps import commands as cli
from facerec_nb.core.files import InputError, read_image, write_image
from facerec_nb.core.tars import write_tar
from facerec_nb.pipeline import enrolment
from facerec_nb.pipeline.answers import Face, Faces
from facerec_nb.pipeline.embedded import FaceShards
from facerec_nb.pipeline.enrolment import enroll_embedded, enroll_people
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.face_shards import plan_shards
from facerec_nb.pipeline.gallery import Gallery
from facerec_nb.pipeline.photo_groups import cluster_photos
from facerec_nb.pipeline.shard_workers import EmbedShard, worker_settings


def squares(img): return np.split(img, img.shape[1]//32, 1)


class Squares(FacePipeline):
    "Each 32 pixels of a picture is a face, its colour who it is; black ones are none, and a blue cast is poor"
    def __init__(self):
        super().__init__(None, None, None, "squares", threshold=0.8)
        self.quality = dict(least=0.5, parts={})

    def stream(self, paths, progress=False):
        for p in paths:
            try: img = read_image(p)
            except InputError as e: yield Faces(source=p, problem=str(e))
            else: yield Faces([self.face(x, sq) for x, sq in enumerate(squares(img)) if sq.max()], p)

    def face(self, x, img):
        e = np.append(img.mean((0, 1)) - 90, x).astype(np.float32)
        five = np.array([[8, 8], [24, 8], [16, 16], [10, 24], [22, 24]], float) + [32*x, 0]
        box = np.array([32*x, 0, 32*x + 32, 32 - 9*x], np.float32)
        return Face(box, 0.9, five, 0.95, img, e/np.linalg.norm(e), quality=float(img[0, 0, 0] > 60), reason="dark")


def paint(path, *colours):
    "A picture of squares; the same colours in another file are the same photograph, pixel for pixel"
    write_image(path, np.concatenate([np.full((32, 32, 3), c, np.uint8) for c in colours], 1))


@pytest.fixture
def people(tmp_path):
    "Eight pictures of three people: a group, copies in one folder and in two, nobody, a poor one, and what is none"
    here = tmp_path/"people"
    for i in range(3): paint(here/f"Ada/{i}.png", (200, 30 + i, 30))
    for i in range(3): paint(here/f"Boris/{i}.png", (70, 200, 30 + i))
    paint(here/"Boris/group.png", (70, 210, 40), (200, 30, 30))
    paint(here/"Boris/night.png", (0, 0, 0))
    paint(here/"Carla/poor.png", (30, 30, 200))
    paint(here/"Carla/good.png", (90, 90, 250))
    (here/"Ada/broken.jpg").write_text("no picture")
    shutil.copy(here/"Ada/0.png", here/"Ada/9 copy.png")
    shutil.copy(here/"Ada/0.png", here/"Carla/ada.png")
    return here


def embedded(out, folder, per_shard=2):
    "What facerec_embed writes of a folder"
    pipe = Squares()
    pipe.find, pipe.embed = lambda img: next(pipe.stream([img])), lambda faces: faces
    shards, _ = plan_shards(folder, out, dict(model=pipe.model, dim=4, settings={}), per_shard)
    list(map(EmbedShard(worker_settings(pipe, shards), pipe), map(shards.shard, shards.missing())))
    return shards


def refs(g): return sorted((*h[1:3], *h[4:]) for h in g.held())


def lines(table): return table.drop(columns="faces").to_dict("records")


@pytest.mark.parametrize("per_shard", [1, 3, 100])
def test_the_gallery_of_the_photographs(people, tmp_path, place, per_shard):
    direct, pipe = Gallery(tmp_path/"direct.db", "squares"), Squares()
    told = enroll_people(pipe, people, direct)
    with Gallery(place, "squares") as g:
        found = embedded(tmp_path/"out", people, per_shard)
        got = enroll_embedded(pipe, found, g)
        assert got.drop(columns="faces").equals(told.drop(columns="faces")) and refs(g) == refs(direct)
        assert set(told.status) == {"enrolled", "already", "no_face", "unreadable", "poor"}
        faces = np.eye(4, dtype=np.float32)
        for a, b in zip(direct.search(faces), g.search(faces)):
            assert [m.name for m in a] == [m.name for m in b]
            np.testing.assert_allclose([m.similarity for m in a], [m.similarity for m in b], atol=1e-6)
        again = enroll_embedded(pipe, found, g)
        assert refs(g) == refs(direct) and not (again.status == "enrolled").any()
        assert lines(again) == lines(enroll_people(pipe, people, direct))


def test_changes_of_the_folder(people, tmp_path):
    "Renamed, replaced, moved to somebody else, gone: the same as with the photographs, whatever lies in one shard"
    pipe, direct, g = Squares(), Gallery(model="squares"), Gallery(model="squares")
    enroll_people(pipe, people, direct)
    enroll_embedded(pipe, embedded(tmp_path/"out0", people), g)
    (people/"Ada/1.png").rename(people/"Ada/z renamed.png")
    os.replace(people/"Ada/2.png", people/"Ada/0.png")
    (people/"Boris/0.png").rename(people/"Carla/0.png")
    (people/"Boris/1.png").unlink()
    for prune in (False, True):
        told = enroll_people(pipe, people, direct, prune=prune)
        for n, per_shard in enumerate((1, 2)):
            got = enroll_embedded(pipe, embedded(tmp_path/f"out{prune}{n}", people, per_shard), g, prune=prune)
            if not n: assert lines(got) == lines(told)
            assert refs(g) == refs(direct)


def test_stopped_between_shards(people, tmp_path, monkeypatch):
    pipe, direct, g = Squares(), Gallery(model="squares"), Gallery(model="squares")
    enroll_people(pipe, people, direct)
    found, photos = embedded(tmp_path/"out", people), FaceShards.photos
    def stops(self):
        yield from itertools.islice(photos(self), 2)
        raise KeyboardInterrupt
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(FaceShards, "photos", stops)
        enroll_embedded(pipe, found, g)
    assert 0 < len(refs(g)) < len(refs(direct))
    enroll_embedded(pipe, found, g)
    assert refs(g) == refs(direct)


def test_people_out_of_tar_files(people, tmp_path):
    "Those of the folder, whatever tar file a photograph lies in"
    direct, g, files = Gallery(model="squares"), Gallery(model="squares"), sorted(people.rglob("*.*"))
    enroll_people(Squares(), people, direct)
    for k in range(2):
        named = [(p.relative_to(people).as_posix(), p.read_bytes()) for p in files[k::2]]
        write_tar(tmp_path/f"{k}.tar", named)
    enroll_embedded(Squares(), embedded(tmp_path/"out", tmp_path/"*.tar"), g)
    assert g.people() == direct.people() and g.sources("Ada") < {f"{k}.tar::{p.relative_to(people)}" for k in range(2)
                                                                 for p in files}


def test_another_model_is_refused_by_name(people, tmp_path):
    found, pipe = embedded(tmp_path/"out", people), Squares()
    with pytest.raises(InputError, match="holds faces of model squares, not of other"):
        found.check_model("other")
    with pytest.raises(InputError, match="holds embeddings of model other, not of squares"):
        enroll_embedded(pipe, found, Gallery(model="other"))
    pipe.model = "other"
    with pytest.raises(InputError, match="holds faces of model squares, not of other"):
        cluster_photos(pipe, found, tmp_path/"groups")


def test_so_many_that_none_is_doubted(people, tmp_path, monkeypatch):
    monkeypatch.setattr(enrolment, "DOUBTED", 3)
    got = enroll_embedded(Squares(), embedded(tmp_path/"out", people), Gallery(model="squares"))
    passed = got.problem[got.status == "passed"]
    assert passed.tolist() == ["9 new references are more than 3: whether one resembles another person was not asked"]


def test_the_groups_of_the_photographs(people, tmp_path):
    pipe, at = Squares(), tmp_path
    direct, told = cluster_photos(pipe, people, at/"direct")
    for per_shard in (1, 100):
        found = embedded(at/f"out{per_shard}", people, per_shard)
        g, said = cluster_photos(pipe, found, at/f"from{per_shard}")
        assert said == told and len(direct.table) > 8
        assert (at/f"from{per_shard}/clusters.csv").read_bytes() == (at/"direct/clusters.csv").read_bytes()
        def links(d): return sorted(p.relative_to(at/d) for p in (at/d/"people").rglob("*"))
        assert links("direct") == links(f"from{per_shard}")
        assert "<img" not in (at/f"from{per_shard}/people.html").read_text()


def test_groups_grow_and_keep_their_people(people, tmp_path):
    pipe, groups = Squares(), tmp_path/"groups"
    cluster_photos(pipe, embedded(tmp_path/"a", people), groups)
    t = pd.read_csv(groups/"clusters.csv", dtype=str, keep_default_na=False)
    t.loc[t.photo == "Boris/0.png", "name"] = "Boris B."
    t.to_csv(groups/"clusters.csv", index=False)
    paint(people/"Boris/new.png", (70, 205, 35))
    g, told = cluster_photos(pipe, embedded(tmp_path/"b", people), groups)
    assert told["new"] == 1 and g.table.name[g.table.photo == "Boris/new.png"].item() == "Boris B."
    gallery = Gallery(model="squares")
    assert g.enroll(gallery)["Boris B."] >= 4


@pytest.fixture
def asked(monkeypatch, capsys):
    "A command, and what it said"
    monkeypatch.setattr(FacePipeline, "load", lambda *a, **k: Squares())
    def ask(command, *words, code=0, **options):
        assert command(*map(str, words), **options) == code
        return capsys.readouterr()
    return ask


def test_the_commands(people, tmp_path, place, asked):
    out = str(embedded(tmp_path/"out", people).out)
    direct = json.loads(asked(cli.facerec_enroll, people, tmp_path/"direct.db", json=True).out)
    got = json.loads(asked(cli.facerec_enroll, place, from_=out, json=True).out)
    assert got["people"] == direct["people"] and got["limit"] == direct["limit"]
    assert "10 were there" in asked(cli.facerec_enroll, gallery=str(place), from_=out).out
    assert "faces of" in asked(cli.facerec_cluster, from_=out, out=str(tmp_path/"groups")).out
    assert (tmp_path/"groups/people.html").is_file()


def test_what_the_commands_refuse(people, tmp_path, asked):
    out, g = str(embedded(tmp_path/"out", people).out), str(tmp_path/"g.db")
    assert "the gallery" in asked(cli.facerec_enroll, people, code=1).err
    for words in ((), (people, g)): assert "is the gallery" in asked(cli.facerec_enroll, *words, from_=out, code=1).err
    assert "or --from OUT" in asked(cli.facerec_cluster, code=1, json=True).err
    assert "or --from OUT" in asked(cli.facerec_cluster, people, from_=out, code=1).err
    assert "with --apply give the folder" in asked(cli.facerec_cluster, from_=out, apply=True, code=1).err


def test_typed(people, tmp_path):
    for words in (("facerec_enroll", "--from", people, tmp_path/"g.db"), ("facerec_cluster", "--from", people)):
        r = subprocess.run([Path(sys.executable).parent/words[0], *map(str, words[1:])], capture_output=True, text=True)
        assert r.returncode == 1 and "holds no shards of faces" in r.stderr, r.stderr
