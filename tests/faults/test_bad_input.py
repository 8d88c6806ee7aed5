"Hostile and clumsy input: one sentence, exit code 1, nothing executed, nothing written outside, and a folder goes on."
import os
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
from hostile import random_run
from PIL import Image

from facerec_nb.apps.commands import facerec_enroll, facerec_identify, facerec_synth, facerec_verify
from facerec_nb.core.files import InputError, write_image


@pytest.fixture(scope="module")
def photo():
    "A drawn photograph with a face"
    from facerec_nb.datasets.synthetic import sample_faces
    return sample_faces(1, 2)["images"][1]


@pytest.fixture(scope="module")
def run(tmp_path_factory): return random_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def gallery(run, photo, tmp_path_factory):
    home = tmp_path_factory.mktemp("people")
    write_image(home/"people"/"Jörg O'Neil"/"1.jpg", photo)
    assert facerec_enroll(str(home/"people"), str(home/"g.db"), run=str(run), threshold=0.5, quality=0.) == 0
    return home/"g.db"


def whole_jpeg(photo, path): return write_image(path, photo).read_bytes()


def png_of_size(w, h):
    "A valid header that promises w x h pixels, and almost nothing behind it"
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head, body = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)), chunk(b"IDAT", zlib.compress(b"\0"*64))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def hostile(photo, folder):
    "Files that are not photographs although they are called so"
    jpeg = whole_jpeg(photo, folder/"whole.jpg")
    (folder/"whole.jpg").unlink()
    rng = np.random.default_rng(0)
    files = {
        "empty.jpg": b"", "text.jpg": b"I am a text\n"*50, "pickle.jpg": pickle.dumps({"a": 1}),
        "truncated.jpg": jpeg[:len(jpeg)//3], "header only.jpg": jpeg[:20],
        "zeros.png": bytes(5000), "random.webp": rng.integers(0, 256, 4000, dtype=np.uint8).tobytes(),
        "huge.png": png_of_size(60_000, 60_000), "short.png": png_of_size(500, 500),
        "script.bmp": b"#!/bin/sh\ntouch owned\n", "Zoë 漢字 'quoted'.jpg": b"no", "two\nlines.jpg": b"no"}
    for name, data in files.items(): (folder/name).write_bytes(data)
    (folder/"folder.jpg").mkdir()
    (folder/"dangling.jpg").symlink_to(folder/"nothing there")
    (folder/"loop").symlink_to(folder)
    return sorted(files) + ["dangling.jpg"]


def test_a_hostile_folder_is_survived_listed_and_counted(photo, run, gallery, tmp_path, capsys):
    bad = hostile(photo, tmp_path)
    write_image(tmp_path/"good.jpg", photo)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert facerec_identify(str(tmp_path), gallery=str(gallery), run=str(run)) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(tmp_path/"good.jpg")]
    assert out.split("\t")[1:3] == ["known", "Jörg O'Neil"]
    lines = err.splitlines()
    assert len(lines) == len(bad) + 1 and lines[-1] == f"{len(bad)} of {len(bad) + 1} photographs could not be read"
    for name in bad: assert any(name.replace("\n", r"\n") in line for line in lines), name
    assert sorted(p.name for p in tmp_path.iterdir()) == before


UNREADABLE = ["empty.jpg", "text.jpg", "truncated.jpg", "huge.png", "nowhere.jpg", "folder.jpg", "dangling.jpg"]


@pytest.mark.parametrize("name", UNREADABLE)
def test_one_bad_photo_is_one_sentence(name, photo, run, gallery, tmp_path, capsys):
    hostile(photo, tmp_path)
    good = write_image(tmp_path/"good.jpg", photo)
    assert facerec_verify(str(good), str(tmp_path/name), run=str(run), threshold=0.5) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and name in err and err.startswith("facerec_verify: ")


def variants(photo):
    "One photograph in the forms that users have; each must give the same answer"
    im = Image.fromarray(photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "rgba.png", im.convert("RGBA"), {}
    yield "palette.png", im.quantize(256), {}
    yield "cmyk.jpg", im.convert("CMYK"), dict(quality=95)
    yield "gray.jpg", im.convert("L"), dict(quality=95)
    yield "turned.jpg", im.rotate(90, expand=True), dict(quality=95, exif=exif)
    yield "animated.webp", im, dict(save_all=True, append_images=[im.rotate(180)], quality=95)
    yield "large.bmp", im.resize((im.width*3, im.height*3)), {}


def test_unusual_photographs_get_the_usual_answer(photo, run, gallery, tmp_path, capsys):
    for name, im, settings in variants(photo): im.save(tmp_path/name, **settings)
    assert facerec_identify(str(tmp_path), gallery=str(gallery), run=str(run), threshold=0.5) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len({r[0] for r in rows}) == 7
    wrong = [r for r in rows if r[1] == "no_face"]
    assert not wrong, wrong


def test_deep_and_tiny_images_do_not_crash(run, tmp_path):
    from facerec_nb.pipeline.face_pipeline import FacePipeline
    pipe = FacePipeline.load(run, threads=1)
    Image.fromarray(np.full((50, 60), 40_000, np.uint16)).save(tmp_path/"deep.png")
    assert pipe(tmp_path/"deep.png") == []
    for shape in ((1, 1, 3), (1, 5000, 3), (3000, 2, 3)): assert pipe(np.zeros(shape, np.uint8)) == []
    for img in (np.zeros((0, 5, 3), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 7), np.uint8), b"", b"abc"):
        with pytest.raises(InputError): pipe(img)


@pytest.mark.parametrize("what", ["missing", "cut", "pickle", "text", "other kind", "folder"])
def test_bad_checkpoints_are_refused_without_running_them(what, photo, run, tmp_path, capsys):
    bad = shutil.copytree(run, tmp_path/"run")
    target = bad/"best_af.pth"
    data = target.read_bytes()
    target.unlink()
    class Evil:
        def __reduce__(self): return os.system, (f"touch '{tmp_path/'owned'}'",)
    if what == "cut": target.write_bytes(data[:len(data)//2])
    if what == "pickle":
        import torch
        torch.save(dict(schema=1, kind="embedder", weights=Evil()), target)
    if what == "text": target.write_text("weights")
    if what == "other kind": shutil.copy(run/"best_stacked_hg.pth", target)
    if what == "folder": target.mkdir()
    good = write_image(tmp_path/"good.jpg", photo)
    assert facerec_verify(str(good), str(good), run=str(bad), threshold=0.5) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "best_af.pth" in err and not (tmp_path/"owned").exists()


@pytest.mark.parametrize("what", ["missing", "text", "cut", "photograph", "folder", "other model", "later version"])
def test_bad_galleries_are_refused(what, photo, run, gallery, tmp_path, capsys):
    import sqlite3
    good, bad = write_image(tmp_path/"good.jpg", photo), tmp_path/"bad.db"
    if what == "text": bad.write_text("a gallery, honestly\n"*100)
    if what == "cut": bad.write_bytes(gallery.read_bytes()[:4500])
    if what == "photograph": shutil.copy(good, bad)
    if what == "folder": bad.mkdir()
    if what in ("other model", "later version"):
        shutil.copy(gallery, bad)
        theirs = "UPDATE meta SET value='best_af.pth-of-somebody-else' WHERE key='model'"
        db = sqlite3.connect(bad)
        db.execute(theirs if what == "other model" else "PRAGMA user_version=7")
        db.commit()
        db.close()
    assert facerec_identify(str(good), gallery=str(bad), run=str(run), threshold=0.5) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "bad.db" in err, err
    if what == "other model": assert "best_af.pth-of-somebody-else" in err


def test_folders_that_are_not_there_or_empty(run, gallery, tmp_path, capsys):
    (tmp_path/"empty").mkdir()
    (tmp_path/"flat").mkdir()
    write_image(tmp_path/"flat"/"a.jpg", np.zeros((9, 9, 3), np.uint8))
    why = dict(nowhere="is not a folder", empty="holds no photographs", flat="one folder for each person")
    for folder, words in why.items():
        assert facerec_enroll(str(tmp_path/folder), str(tmp_path/"g.db"), run=str(run)) == 1
        assert words in capsys.readouterr().err
        assert not (tmp_path/"g.db").exists(), "a failed enrolment leaves no gallery"
    assert facerec_identify(str(tmp_path/"nowhere"), gallery=str(gallery), run=str(run)) == 1
    assert "does not exist" in capsys.readouterr().err
    assert facerec_identify(str(tmp_path/"flat"), gallery=str(gallery), run=str(tmp_path/"norun")) == 1
    assert "norun is not a folder" in capsys.readouterr().err


def test_a_model_without_threshold_asks_for_one(photo, run, tmp_path, capsys):
    good = write_image(tmp_path/"good.jpg", photo)
    assert facerec_verify(str(good), str(good), run=str(run)) == 1
    assert "has no calibrated threshold: give --threshold" in capsys.readouterr().err
    assert facerec_verify(str(good), str(good), run=str(run), threshold=7.) == 1
    assert "is not a cosine" in capsys.readouterr().err


def test_drawings_stay_in_their_folder_and_off_the_photographs(photo, run, gallery, tmp_path, capsys):
    good = write_image(tmp_path/"photos"/"a b"/"good.jpg", photo)
    before = good.read_bytes()
    call = lambda draw: facerec_identify(str(tmp_path/"photos"), gallery=str(gallery), run=str(run), draw=str(draw))
    assert call(tmp_path/"drawn") == 0 and (tmp_path/"drawn"/"a b"/"good.jpg").is_file()
    for name in ("elsewhere", "linked"): (tmp_path/name).mkdir()
    (tmp_path/"linked"/"a b").symlink_to(tmp_path/"elsewhere")
    assert call(tmp_path/"linked") == 1 and "outside" in capsys.readouterr().err
    assert not list((tmp_path/"elsewhere").iterdir())
    assert call(tmp_path/"photos") == 1 and "overwrite" in capsys.readouterr().err
    assert good.read_bytes() == before


def test_places_that_cannot_be_written(photo, run, gallery, tmp_path, capsys, monkeypatch):
    "A file where a folder should be, a link to itself, a name too long, a variable of the shell that is not set"
    (tmp_path/"file").write_text("a file")
    (tmp_path/"loop").symlink_to("loop")
    (tmp_path/"here").mkdir()
    monkeypatch.chdir(tmp_path/"here")
    good = write_image(tmp_path/"good.jpg", photo)
    def draw(out): return facerec_identify(str(good), gallery=str(gallery), run=str(run), draw=out)
    def synth(out): return facerec_synth(out, ids=1, per_id=1)
    tried = [(synth, p) for p in ("file", "file/x", "loop", "x"*300, "")] + [(draw, p) for p in ("file", "loop/x", "")]
    for f, place in tried:
        assert f(place and str(tmp_path/place)) == 1
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and (place or "is empty") in err
        assert (tmp_path/"file").read_text() == "a file"
    assert not any((tmp_path/"here").iterdir())


def test_bytes_that_are_no_text_in_a_file_name(photo, run, gallery, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.jpg")
    try: write_image(tmp_path/"x.jpg", photo).rename(tmp_path/name)
    except OSError: pytest.skip("this file system takes UTF-8 names only")
    assert facerec_identify(str(tmp_path), gallery=str(gallery), run=str(run)) == 0
    assert r"caf\udce9.jpg" in capsys.readouterr().out


def test_people_are_folders_whatever_their_names(photo, run, tmp_path, capsys):
    from facerec_nb.pipeline.gallery import Gallery
    names = ["Ана Петрова", "O'Brien; DROP TABLE people", "..hidden dots..", "漢字", "-rf", "a,b\"c"]
    for n in names: write_image(tmp_path/"people"/n/"1.jpg", photo)
    for name in ("nobody here", "bad only"): (tmp_path/"people"/name).mkdir()
    (tmp_path/"people"/"bad only"/"1.jpg").write_text("x")
    took = facerec_enroll(str(tmp_path/"people"), str(tmp_path/"g.db"), run=str(run), threshold=0.5, quality=0.)
    assert took == 0
    assert set(Gallery.load(tmp_path/"g.db").people()) == set(names)
    assert "bad only/1.jpg" in capsys.readouterr().err
