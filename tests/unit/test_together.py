"What photographs are answered together is what they are answered one by one"
import numpy as np
import pytest

from facerec_nb.core.files import InputError
from facerec_nb.datasets.portraits import public_portraits
from facerec_nb.datasets.synthetic import sample_faces
from facerec_nb.pipeline.face_pipeline import FEW, LARGE, FacePipeline


@pytest.fixture(scope="module", params=[False, True])
def pipe(request): return FacePipeline.load(threads=1, fast=request.param)


@pytest.fixture(scope="module")
def photos():
    "Drawn and real faces, dark, overexposed, tiny, lying and two at once, between pictures without any"
    drawn, (real, *_) = sample_faces(3, 1, seed=5)["images"], public_portraits().values()
    side = np.ascontiguousarray(np.rot90(real))
    dark, bright = (real*0.1).astype(np.uint8), np.clip(real*2.6, 0, 255).astype(np.uint8)
    tiny, both = np.ascontiguousarray(real[::5, ::5]), np.concatenate([real, real[:, ::-1]], 1)
    return [*drawn, np.zeros((90, 50, 3), np.uint8), dark, bright, side, tiny, both, real]


def same(a, b):
    assert [f.source for f in (a, b)] == ["", ""] and len(a) == len(b) and a.dropped == b.dropped
    for x, y in zip(a, b):
        for name, most in dict(box=0, score=0, light=0, points=1e-3, confidence=1e-6, detail=1e-6).items():
            np.testing.assert_allclose(getattr(x, name), getattr(y, name), rtol=0, atol=most)
        assert x.embedding @ y.embedding > 0.99999 and x.quality == pytest.approx(y.quality, abs=1e-5)


def test_answers_are_those_of_one_by_one(pipe, photos):
    assert len(photos) > 2*FEW
    found = list(pipe.stream(photos))
    assert sum(map(len, found)) >= len(photos) - 1 and len(found[-2]) == 2 and not found[3]
    for photo, faces in zip(photos, found): same(faces, pipe(photo))


def test_points_are_asked_for_together(pipe, photos, monkeypatch):
    asked, points = [], pipe.landmarks.points
    def counted(imgs, boxes):
        asked.append(len(boxes))
        return points(imgs, boxes)
    monkeypatch.setattr(pipe.landmarks, "points", counted)
    list(pipe.stream([photos[-1]]*(FEW + 1)))
    assert asked == [FEW, 1]
    asked.clear()
    high = -(-LARGE//photos[-1][0].size)
    list(pipe.stream([np.pad(photos[-1], [(0, high), (0, 0), (0, 0)])]*2))
    assert len(asked) >= 2 and max(asked) == 1


def test_one_that_cannot_be_used_leaves_the_others(pipe, photos, monkeypatch):
    "Neither a broken file nor a detector that gives up on one photograph"
    detect, real = pipe.detector, photos[-1]
    def picky(img):
        if not img.any(): raise InputError("a black picture")
        return detect(img)
    monkeypatch.setattr(pipe, "detector", picky)
    found = list(pipe.stream([real, b"no photograph", real, np.zeros_like(real), real]))
    assert [len(f) for f in found] == [1, 0, 1, 0, 1]
    assert "not a readable image" in found[1].problem and found[1].source == "photo 1"
    assert found[3].problem == "a black picture" and found[3].source == "photo 3"
    for faces in found[::2]: same(faces, found[0])
