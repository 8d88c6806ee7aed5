"Points that cannot be a face give way to the box's: nothing that was found vanishes."
import numpy as np
import pytest

from facerec_nb.core.installed import packaged
from facerec_nb.datasets.synthetic import sample_faces
from facerec_nb.engines.engine import open_network
from facerec_nb.engines.onnx_landmarks import open_landmarks
from facerec_nb.faces.crops import CropCfg
from facerec_nb.faces.points import WAYS, PointFinder
from facerec_nb.pipeline.face_pipeline import FacePipeline


class Lost(PointFinder):
    "Sees the points of every face where it is told"
    def predict(self, crops): return np.tile(self.told, (len(crops), 1, 1)), np.ones(len(crops))


@pytest.fixture(scope="module")
def pipe(): return FacePipeline.load(threads=1, embedder="free")


@pytest.fixture(scope="module")
def drawn(): return sample_faces(1, 1, seed=5)["images"][0]


@pytest.mark.parametrize("told", [np.full((5, 2), 30.), np.arange(10).reshape(5, 2), np.eye(5, 2)*900])
@pytest.mark.parametrize("twice", [True, False])
def test_points_that_are_no_face_leave_the_box_in_their_place(pipe, drawn, told, twice):
    found = pipe.find(drawn)[0]
    finder = Lost(CropCfg(128), upright=pipe.landmarks.upright)
    finder.told, finder.twice = told, twice
    lost = FacePipeline(pipe.detector, finder, pipe.embedder, "m")
    faces = lost.find(drawn)
    assert faces.dropped == 0 and faces[0].confidence == 0 and faces[0].aligned.shape == found.aligned.shape
    eyes = np.linalg.norm(found.points[0] - found.points[1])
    assert np.linalg.norm(faces[0].points - found.points, axis=1).mean() < 0.5*eyes
    lost.embed(faces)
    pipe.embed([found])
    assert faces[0].embedding @ found.embedding > 0.3


def test_points_of_faces_stay_as_they_are(pipe, drawn):
    for name in ("big", "small", *WAYS):
        finder = open_landmarks(packaged(f"landmarks_{name}.onnx"), 1)
        boxes = pipe.detector(drawn)[0]
        before, sure = finder.points(drawn, boxes)
        finder.faces_only = lambda p, sure: (p, sure)
        np.testing.assert_array_equal(finder.points(drawn, boxes)[0], before)
        assert (sure > 0.5).all()


def test_one_pass_still_knows_an_average_face():
    finder = open_landmarks(packaged("landmarks_big.onnx"), 1)
    finder.twice = False
    assert finder.rim == 0 and finder.upright is not None


def test_a_second_pass_only_where_it_is_asked_for(drawn, pipe):
    finder = open_landmarks(packaged("landmarks_quick.onnx"), 1)
    boxes, asked, look = pipe.detector(drawn)[0], [], finder.look
    finder.look = lambda crops: (asked.append(len(crops)), look(crops))[1]
    for finder.unsure, passes in ((0., 1), (2., 2)):
        asked.clear()
        points, sure = finder.points(drawn, boxes)
        assert asked == [len(boxes)]*passes and (sure > 0.5).all()
    finder.twice = False
    np.testing.assert_allclose(finder.points(drawn, boxes)[0], points, atol=0.05*np.ptp(points))
    assert asked[passes:] == [len(boxes)]


@pytest.mark.parametrize("name", WAYS)
def test_both_engines_make_the_same_passes(drawn, pipe, name):
    "The file in 8 bits, PyTorch in 32: within a quarter of a pixel of the crop"
    file = open_network("landmarks", packaged(f"landmarks_{name}.onnx"), 1)
    checkpoint = open_network("landmarks", packaged(f"landmarks_{name}.onnx"), 1, engine="torch")
    assert file.unsure == checkpoint.unsure and not file.flip and not checkpoint.flip
    assert file.crop == checkpoint.crop and file.net.about["fingerprint"] == checkpoint.fingerprint
    np.testing.assert_allclose(file.upright, checkpoint.upright)
    for turned in (drawn, np.ascontiguousarray(drawn[:, ::-1])):
        boxes = pipe.detector(turned)[0]
        scale = (boxes[:, 2:] - boxes[:, :2]).max()/file.crop.size
        for f in (file, checkpoint): f.unsure = 0.
        (p, a), (q, b) = (f.points(turned, boxes) for f in (file, checkpoint))
        assert np.linalg.norm(p - q, axis=-1).mean() < 0.25*scale and np.abs(a - b).max() < 0.05


def test_the_fast_pipeline_makes_one_pass_with_the_small_network():
    fast = FacePipeline.load(threads=1, embedder="free", fast=True)
    assert fast.landmarks.net.path.name == "landmarks_fast.onnx" and fast.landmarks.rim == 0
    assert fast.landmarks.net.about["arch"]["stacks"] == 1 and "int8" in fast.landmarks.net.about
