"""A face that says too little does not answer, and says why; a probability is about the question that was asked"""
import cv2
import numpy as np
import pytest
from PIL import Image

from facerec_nb.apps.commands import facerec_enroll, facerec_identify
from facerec_nb.core.files import InputError, write_image
from facerec_nb.datasets.portraits import public_portraits
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.gallery import Gallery


def blurred(img): return cv2.GaussianBlur(img, (0, 0), 12)
def tiny(img): return np.asarray(Image.fromarray(img).resize([n//12 for n in img.shape[1::-1]], Image.Resampling.BOX))
def dim(img): return (img*0.12).astype(np.uint8)


@pytest.fixture(scope="module")
def pipe(): return FacePipeline.load(threads=1)


@pytest.fixture(scope="module")
def people(): return public_portraits()


@pytest.fixture()
def folder(tmp_path, people):
    for name, img in people.items(): write_image(tmp_path/"people"/name/"good.png", img)
    write_image(tmp_path/"people/Grace/blurred.png", blurred(people["Grace"]))
    return tmp_path/"people"


def test_quality_is_a_number_with_a_reason(pipe, people):
    "Good photographs are good, dim ones too since the light is mended; blur and few pixels are told"
    for img in people.values():
        good, dark = pipe(img)[0], pipe(dim(img))[0]
        assert good.quality > 0.8 and dark.quality > pipe.least_quality()
        bad = pipe(blurred(img))
        assert not bad or (bad[0].quality < pipe.least_quality() and bad[0].reason == "blurred")
    small = pipe(tiny(people["Grace"]))
    assert not small or (small[0].quality < pipe.least_quality() and "px" in small[0].reason)


def test_quality_falls_with_blur(pipe, people):
    "More blur is never better"
    found = [pipe(cv2.GaussianBlur(people["Eileen"], (0, 0), s)) for s in (0.1, 2, 4, 6)]
    q = [f[0].quality for f in found if f]
    assert q == sorted(q, reverse=True)


def test_a_poor_reference_is_refused_and_told(pipe, folder):
    "It is listed with its reason; a lower number takes it"
    g = Gallery(model=pipe.model)
    rows = pipe.enroll(folder, g).set_index("file")
    assert rows.status.to_dict() == {"Grace/blurred.png": "poor", "Grace/good.png": "enrolled",
                                     "Eileen/good.png": "enrolled"}
    assert rows.problem["Grace/blurred.png"].startswith("blurred, quality 0.")
    g.quality = 0
    assert pipe.enroll(folder, g).set_index("file").status["Grace/blurred.png"] == "enrolled"


def test_nobody_good_enough_is_a_sentence(pipe, tmp_path, people):
    "A folder of poor photographs is an error that says so"
    write_image(tmp_path/"people/Grace/a.png", blurred(people["Grace"]))
    with pytest.raises(InputError, match="no face in .* is good enough, 1 are poor, the first is blurred"):
        pipe.enroll(tmp_path/"people", Gallery(model=pipe.model))


def test_poor_is_an_answer_of_its_own(pipe, folder, people):
    "Neither known nor unknown, without name and probability, and with a reason; --quality 0 asks anyway"
    g = Gallery(model=pipe.model)
    pipe.enroll(folder, g)
    said = pipe.identify(blurred(people["Grace"]), g)[0]
    assert (said.status, said.name, said.probability) == ("poor", None, None) and "blurred" in said.note
    assert said.matches and "poor: blurred" in repr(said) and said.as_dict()["quality"] == said.face.quality
    assert pipe.identify(blurred(people["Grace"]), g, quality=0)[0].status in ("known", "unknown")
    assert pipe.draw(people["Grace"], [said]).shape == people["Grace"].shape
    with pytest.raises(InputError, match="give a number from 0 to 1"): pipe.identify(people["Grace"], g, quality=2)


@pytest.mark.parametrize("spoil", [dim, blurred, tiny, lambda x: np.clip(x*2.6, 0, 255).astype(np.uint8)])
def test_one_poor_reference_names_no_stranger(pipe, people, spoil):
    "A stranger whose photograph is as bad does not get the name"
    g, ref = Gallery(model=pipe.model), pipe(spoil(people["Grace"]))
    if not ref: return
    g.add("Grace", ref[0].embedding, "a")
    assert all(a.status != "known" for a in pipe.identify(spoil(people["Eileen"]), g))


def test_one_name_once(pipe, people):
    "Two faces of one person on a picture: the better one keeps the name, the other says so"
    g, img = Gallery(model=pipe.model), people["Eileen"]
    g.add("Eileen", pipe(img)[0].embedding, "a")
    both = np.hstack([img, cv2.GaussianBlur(img, (0, 0), 1.5)])
    said = pipe.identify(both, g)
    assert [a.status for a in said].count("known") == 1 and len(said) == 2
    assert any("Eileen is on this photograph already" in a.note for a in said)
    assert all(a.probability < 0.5 for a in said if a.status == "unknown")


def test_two_names_for_one_person_are_told(pipe, tmp_path, people):
    "The same photograph, saved again, under another name"
    write_image(tmp_path/"people/Grace/a.png", people["Grace"])
    write_image(tmp_path/"people/Hopper/b.jpg", people["Grace"])
    write_image(tmp_path/"people/Eileen/a.png", people["Eileen"])
    rows = pipe.enroll(tmp_path/"people", Gallery(model=pipe.model)).set_index("person")
    assert "resembles Hopper" in rows.problem["Grace"] and "resembles Grace" in rows.problem["Hopper"]
    assert rows.problem["Eileen"] == ""


def test_a_stray_reference_is_told(pipe, tmp_path, people):
    "Somebody else's photograph in a folder"
    for i, s in enumerate((0.1, 0.7, 1.2)):
        write_image(tmp_path/f"people/Grace/{i}.png", cv2.GaussianBlur(people["Grace"], (0, 0), s))
    write_image(tmp_path/"people/Grace/other.png", people["Eileen"])
    rows = pipe.enroll(tmp_path/"people", Gallery(model=pipe.model)).set_index("file")
    assert rows.problem["Grace/other.png"] == "unlike the other photographs of Grace"
    assert not any(rows.problem[f"Grace/{i}.png"] for i in range(3))


def test_the_probability_knows_how_many_were_asked(pipe, people):
    "Larger galleries and smaller priors make a name less likely; it never falls with the similarity"
    def some(n):
        emb = np.random.default_rng(0).normal(size=(n, 128)).astype(np.float32)
        return [(f"p{i}", e[None]/np.linalg.norm(e), "x") for i, e in enumerate(emb)]
    one, many = Gallery(model=pipe.model), Gallery(model=pipe.model)
    one.add_many(some(1)), many.add_many(some(500))
    grid = np.linspace(0.5, 1, 200)
    p = {k: np.array([pipe.name_probability(s, g) for s in grid]) for k, g in (("one", one), ("many", many))}
    assert (np.diff(p["one"]) >= 0).all() and (p["many"] <= p["one"]).all() and p["many"].max() > 0.9
    many.prior = 0.05
    assert (np.array([pipe.name_probability(s, many) for s in grid]) <= p["many"]).all()
    unknown = [pipe.identify(x, many)[0] for x in people.values()]
    assert all(a.status == "unknown" and a.probability < 0.5 for a in unknown)


def test_commands_say_poor(folder, people, capsys):
    "The lists of both commands, and what the gallery keeps"
    gallery, asked = folder.parent/"g.db", folder.parent/"asked.png"
    write_image(asked, blurred(people["Grace"]))
    assert facerec_enroll(str(folder), str(gallery), quality=0.5, prior=0.2) == 0
    out = capsys.readouterr()
    assert "1 too poor" in out.out and "Grace/blurred.png: blurred, quality" in out.err
    g = Gallery.load(gallery)
    assert (g.quality, g.prior) == (0.5, 0.2)
    assert facerec_identify([str(asked)], str(gallery)) == 0
    line = capsys.readouterr().out.strip().split("\t")
    assert line[1:3] == ["poor", ""] and line[-1].startswith("blurred, quality")
