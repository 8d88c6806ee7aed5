"Films: who appears and when, what a damaged one says, and that the other files go on."
import json
import os
import struct

import cv2
import numpy as np
import pandas as pd
import pytest

from facerec_nb.apps.commands import facerec_identify
from facerec_nb.core.files import InputError, write_image
from facerec_nb.faces.detection import WholeImage
from facerec_nb.pipeline.answers import Answer
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.gallery import Gallery
from facerec_nb.pipeline.video import (Appearance, Film, cut_off, film_frames, identify_film, save_film,
                                       unite_appearances)
from toys import Colour, Five

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it is read once, here when the first film is written
COLOURS = {"Ann": (220, 80, 80), "Bob": (90, 200, 90)}
GREY = (128, 128, 128)


class Middle(WholeImage):
    "The whole frame is a face unless it is grey"
    def __call__(self, img): return super().__call__(img) if np.ptp(img.mean((0, 1))) > 40 else (np.zeros((0, 4)), [])


def write_film(path, *colours, fps=10, codec="MJPG", seconds=1):
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 64))
    for c in colours:
        for _ in range(fps*seconds): out.write(np.full((64, 64, 3), c[::-1], np.uint8))
    out.release()
    return path


@pytest.fixture
def pipe(): return FacePipeline(Middle(), Five(), Colour(), "m", threshold=0.9)


@pytest.fixture
def gallery(tmp_path, pipe):
    g = Gallery(tmp_path/"g.db", "m")
    for n, c in COLOURS.items():
        g.add(n, np.stack([f.embedding for f in pipe(np.full((60, 60, 3), c, np.uint8))]), [f"{n}.png"])
    return g


def seen(found): return [(a.answer.name, round(a.first, 1), round(a.last, 1)) for a in found]


@pytest.mark.parametrize("codec,suffix", [("MJPG", "avi"), ("mp4v", "mp4")])
def test_each_person_is_named_once_an_appearance(tmp_path, pipe, gallery, codec, suffix):
    film = write_film(tmp_path/f"f.{suffix}", COLOURS["Ann"], COLOURS["Bob"], GREY, (80, 80, 230), codec=codec)
    found = identify_film(pipe, Film(film), gallery, every=0.1)
    assert seen(found) == [("Ann", 0.0, 0.9), ("Bob", 1.0, 1.9), (None, 3.0, 3.9)]
    assert [a.frames for a in found] == [10, 10, 10] and found[2].answer.status == "unknown"


def test_a_pause_makes_two_appearances_or_one(tmp_path, pipe, gallery):
    film = Film(write_film(tmp_path/"f.avi", COLOURS["Ann"], GREY, GREY, GREY, COLOURS["Ann"]))
    assert len(identify_film(pipe, film, gallery, gap=2)) == 2
    once, = identify_film(pipe, film, gallery, gap=5)
    assert (once.first, round(once.last, 1), once.frames) == (0, 4.5, 4)


def test_few_frames_are_looked_at(tmp_path, pipe, gallery):
    film, looked = Film(write_film(tmp_path/"f.avi", COLOURS["Ann"], seconds=8)), []
    pipe.detector = lambda img: (looked.append(1), Middle()(img))[1]
    identify_film(pipe, film, gallery, every=2)
    assert len(looked) == 4
    identify_film(pipe, Film(write_film(tmp_path/"g.avi", GREY, seconds=8)), gallery, every=2)
    assert len(looked) == 8  # frames without a face are not tried on their side


def test_frames_come_one_at_a_time(tmp_path):
    frames = film_frames(Film(write_film(tmp_path/"f.avi", COLOURS["Ann"], seconds=30)), 0)
    first, second = next(frames), next(frames)
    assert first[0] == 0 and second[0] == pytest.approx(0.1) and first[1].shape == (64, 64, 3)


def test_damaged_films_say_so(tmp_path):
    whole = write_film(tmp_path/"f.avi", COLOURS["Ann"], seconds=8).read_bytes()
    (tmp_path/"half.avi").write_bytes(whole[:len(whole)//2])
    film = Film(tmp_path/"half.avi")
    last = [t for t, _ in film_frames(film)][-1]
    assert last < 7 and "of 8.0 seconds: it is damaged or cut off" in cut_off(film)
    for name, data in (("empty.mp4", b""), ("page.mp4", b"<html>"), ("head.mp4", b"\0\0\0\x18ftypisom" + b"\0"*2000)):
        (tmp_path/name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} cannot be read as a film"): Film(tmp_path/name)


def test_the_command_goes_on(tmp_path, pipe, gallery, monkeypatch, capfd):
    monkeypatch.setattr(FacePipeline, "load", lambda *a, **k: pipe)
    film = str(write_film(tmp_path/"f.mp4", COLOURS["Ann"], COLOURS["Bob"], codec="mp4v"))
    write_image(tmp_path/"a.png", np.full((60, 60, 3), COLOURS["Ann"], np.uint8))
    (tmp_path/"cut.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    asked, out = [film, str(tmp_path/"cut.mp4"), str(tmp_path/"a.png")], str(tmp_path/"out")
    assert facerec_identify(asked, str(tmp_path/"g.db"), draw=out) == 0
    said = capfd.readouterr()
    assert said.err.count("\n") == 2 and "cut.mp4 cannot be read as a film" in said.err
    assert "1 of 3 files could not be read" in said.err
    rows = [line.split("\t") for line in said.out.splitlines()]
    assert [(r[0][-5:], r[2], *r[7:]) for r in rows] == [
        ("a.png", "Ann"), ("f.mp4", "Ann", "0.00", "0.50", "0.00"), ("f.mp4", "Bob", "1.00", "1.50", "1.00")]
    table = pd.read_csv(tmp_path/"out/f.mp4/appearances.csv")
    assert table.name.tolist() == ["Ann", "Bob"] and (tmp_path/"out/f.mp4"/table.picture[1]).is_file()
    assert (tmp_path/"out/f.mp4/people.html").stat().st_mode & 0o777 == 0o600


def test_the_command_with_one_film(tmp_path, pipe, gallery, monkeypatch, capfd):
    monkeypatch.setattr(FacePipeline, "load", lambda *a, **k: pipe)
    film, g = str(write_film(tmp_path/"f.avi", COLOURS["Ann"])), str(tmp_path/"g.db")
    assert facerec_identify([film], g, json=True) == 0
    photo, = json.loads(capfd.readouterr().out)["photos"]
    assert [a["name"] for a in photo["appearances"]] == ["Ann"] and photo["appearances"][0]["last"] == 0.5
    (tmp_path/"cut.avi").touch()
    assert facerec_identify([str(tmp_path/"cut.avi")], g) == 1
    assert capfd.readouterr().err.count("\n") == 1
    assert facerec_identify([film], g, every=-1.) == 1 and "--every -1.0 is no time" in capfd.readouterr().err
    write_film(tmp_path/"g.avi", GREY)
    assert facerec_identify([str(tmp_path/"g.avi")], g) == 0 and capfd.readouterr().out.endswith("g.avi\tno_face\n")


def test_films_of_a_folder_are_told(tmp_path, pipe, gallery, monkeypatch, capfd):
    monkeypatch.setattr(FacePipeline, "load", lambda *a, **k: pipe)
    write_image(tmp_path/"holiday/a.png", np.full((60, 60, 3), COLOURS["Bob"], np.uint8))
    write_film(tmp_path/"holiday/f.avi", COLOURS["Ann"])
    assert facerec_identify([str(tmp_path/"holiday")], str(tmp_path/"g.db")) == 0
    said = capfd.readouterr()
    assert "1 film in" in said.err and "name a film" in said.err and said.out.count("\n") == 1


def test_a_second_copy_of_a_name_at_the_same_time_stays():
    def seen(first, last, s): return Appearance(first, last, first, 1, Answer("known", "Ann", s))
    assert [(x.first, x.last) for x in unite_appearances([seen(0, 4, .9), seen(1, 5, .95)], 5)] == [(0, 4), (1, 5)]
    one, = unite_appearances([seen(0, 4, 0.9), seen(6, 7, 0.95)], 5)
    assert (one.last, one.best, one.answer.similarity) == (7, 6, 0.95)


def test_a_folder_of_films_alone_says_what_to_do(tmp_path, pipe, gallery, capfd):
    (tmp_path/"films").mkdir()
    write_film(tmp_path/"films/f.avi", COLOURS["Ann"])
    assert facerec_identify([str(tmp_path/"films")], str(tmp_path/"g.db")) == 1
    assert "name a film" in (err := capfd.readouterr().err) and "holds no photographs" in err


def test_a_phones_film_stands_upright(tmp_path):
    "The file says that its frames are to be turned by a quarter, as phones write them"
    out = cv2.VideoWriter(str(tmp_path/"f.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 96))
    frame = np.zeros((96, 160, 3), np.uint8)
    frame[:48] = 255
    for _ in range(5): out.write(frame)
    out.release()
    data = bytearray((tmp_path/"f.mp4").read_bytes())
    matrix = data.find(b"tkhd") + 44
    data[matrix:matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path/"turned.mp4").write_bytes(data)
    _, first = next(film_frames(Film(tmp_path/"turned.mp4")))
    assert first.shape == (160, 96, 3) and first[80, 5].max() < 30 and first[80, -5].min() > 220


@pytest.mark.parametrize("name", ["f_%02d.avi", "a b: c.avi", "Fête 山.AVI", "-film.avi", "a\nb.avi", "http:film.avi"])
def test_names_of_films_mean_nothing(tmp_path, name):
    os.rename(write_film(tmp_path/"f.avi", COLOURS["Ann"]), tmp_path/name)
    assert sum(1 for _ in film_frames(Film(tmp_path/name), 0)) == 10


def test_what_is_noted_stands_in_the_table(tmp_path, pipe, gallery):
    found = identify_film(pipe, Film(write_film(tmp_path/"f.avi", COLOURS["Ann"], GREY, (80, 80, 230))), gallery)
    found[0].answer.note = "dark"
    save_film(Film(tmp_path/"f.avi"), found, tmp_path/"out")
    assert pd.read_csv(tmp_path/"out/appearances.csv", keep_default_na=False).note.tolist() == ["dark", ""]
