"""A face in bad light is shown to the networks as they know it, and a good one is left alone"""
import numpy as np
import pytest

from facerec_nb.core.geometry import align_face
from facerec_nb.datasets.portraits import public_portraits
from facerec_nb.faces.exposure import DARK, GLARING, TINY, light_of, noise_of, view_of
from facerec_nb.pipeline.face_pipeline import FacePipeline

BOX = np.array([170, 60, 280, 215.])


@pytest.fixture(scope="module")
def pipe(): return FacePipeline.load(threads=1)


@pytest.fixture(scope="module")
def img(): return public_portraits()["Eileen"]


def test_good_light_is_bit_identical(pipe, img):
    "Points and chip of a face in good light are those of the photograph itself"
    face, (boxes, _) = pipe(img)[0], pipe.detector(img)
    points, sure = pipe.landmarks.points(img, boxes[:1])
    assert (face.points == points[0]).all() and face.confidence == sure[0]
    assert (face.aligned == align_face(img, points[0], pipe.embedder.size, pipe.embedder.template)).all()
    assert DARK < face.light.median and face.light.clipped < GLARING


@pytest.mark.parametrize("share", [0.08, 0.12, 0.25])
def test_dark_face_is_the_same_face(pipe, img, share):
    "Dim photographs of one person resemble the bright one, and the points stay where they are"
    face, dark = pipe(img)[0], pipe((img*share).astype(np.uint8))[0]
    assert face.embedding @ dark.embedding > 0.97
    assert np.abs(face.points - dark.points).max() < 6 and dark.light.median < DARK


def test_noise_is_smoothed(img):
    "Night-like noise is less after the gain than a gain alone would leave"
    noisy = np.clip(img*0.07 + np.random.default_rng(0).normal(0, 2.5, img.shape), 0, 255).astype(np.uint8)
    view = view_of(noisy, BOX, light_of(noisy, BOX))
    assert noise_of(view.img) < 12 < noise_of(np.clip(noisy*12., 0, 255).astype(np.uint8))


@pytest.mark.parametrize("gain", [1.0, 2.6, 9.0])
@pytest.mark.parametrize("high", [3, 20, 47, 300])
def test_views_come_back(img, gain, high):
    "Whatever is done to a face, its box lies in the photograph where it lay"
    x, box = np.clip(img*gain, 0, 255).astype(np.uint8), np.array([5, 7, 5 + 0.7*high, 7 + high])
    v = view_of(x, box, light_of(x, box))
    assert np.allclose(v.back(v.box.reshape(2, 2)).ravel(), box, atol=1e-3)
    assert v.plain == (v.img is x) and (v.zoom > 1) == (high < TINY)


def test_odd_pictures():
    "Black, white, one pixel, a box outside: a view of some kind, never an error"
    for x in (np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8), np.zeros((1, 1, 3), np.uint8)):
        for box in ([0, 0, 40, 40], [-50, -50, -10, -10], [39, 39, 39, 39], [0, 0, 1, 1]):
            box = np.array(box, float)
            assert view_of(x, box, light_of(x, box)).img.ndim == 3
