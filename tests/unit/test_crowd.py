"Very many faces in one picture: the quick way of suppressing double boxes finds the faces that the slow one finds."
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]/"benchmarks"))

import crowd  # noqa: E402

from facerec_nb.faces import detection  # noqa: E402
from facerec_nb.pipeline.face_pipeline import FacePipeline  # noqa: E402


@pytest.fixture(scope="module")
def pipe(): return FacePipeline.load(threads=2)


def slow(boxes, scores, most=0.3):
    "Every pair of boxes, one after the other"
    kept = []
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        if all(detection.iou(boxes[[i]], boxes[[j]])[0, 0] < most for j in kept): kept.append(i)
    return sorted(kept)


@pytest.mark.parametrize("n", [0, 1, 30, 200])
def test_the_same_boxes_as_with_the_slow_loop(n):
    rng = np.random.default_rng(n)
    boxes = rng.uniform(0, 100, (n, 4))
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(5, 40, (n, 2))
    scores = rng.random(n)
    assert list(detection.suppress(boxes, scores)) == slow(boxes, scores)


def test_the_same_faces_as_with_the_slow_loop(pipe, monkeypatch):
    picture = crowd.crowd(5)
    faces = pipe(picture)
    monkeypatch.setattr(detection, "suppress", slow)
    predict = pipe.landmarks.predict
    monkeypatch.setattr(pipe.landmarks, "predict", lambda crops, **how: predict(crops, batch_size=64, **how),
                        raising=False)
    before = pipe(picture)
    assert 23 <= len(faces) == len(before)
    assert np.array_equal([f.box for f in faces], [f.box for f in before])
    assert max(np.abs(a.points - b.points).max() for a, b in zip(faces, before)) < 0.05  # pixels
    assert min(a.embedding @ b.embedding for a, b in zip(faces, before)) > 0.999
