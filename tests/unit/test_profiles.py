"The study of faces that look aside: what is drawn, and how far an answer is off"
import numpy as np
import pytest

from facerec_nb.core.geometry import apply_matrix
from facerec_nb.datasets.turned import yaw_of
from facerec_nb.faces.crops import CropCfg
from studies import profiles


@pytest.fixture(scope="module")
def heads(): return profiles.drawn(6)


class Knows:
    "Answers with points of its own, `off` pixels of the picture to the right"
    crop, rim = CropCfg(64), 0

    def __init__(self, heads, points, off=0.):
        self.boxes = profiles.jitter_boxes(heads["boxes"], 0.05, np.random.default_rng(0))
        self.points = points + [off, 0.]

    def predict(self, crops):
        assert crops.shape == (len(self.points), 64, 64, 3)
        return apply_matrix(self.crop.matrices(self.boxes), self.points), np.full(len(crops), 0.5)


def test_heads_are_drawn_turned_and_say_which_points_are_seen(heads):
    assert heads["seen"].sum(1).tolist() == [3]*6 and (heads["yaw"] <= 90).all()
    assert np.abs(np.abs(yaw_of(heads["points"])) - heads["yaw"]).max() < 15
    right = yaw_of(heads["points"]) > 0
    assert (heads["seen"][right] == [True, False, True, True, False]).all()


def test_only_points_that_are_seen_count(heads):
    high = heads["boxes"][:, 3] - heads["boxes"][:, 1]
    error, sure = profiles.asked(Knows(heads, heads["points"], off=3.), heads)
    np.testing.assert_allclose(error, 3/high, atol=1e-6)
    assert (sure == 0.5).all()
    elsewhere = np.where(heads["seen"][..., None], heads["points"], 0.)
    np.testing.assert_allclose(profiles.asked(Knows(heads, elsewhere), heads)[0], 0, atol=1e-6)


def test_two_networks_are_compared_on_the_same_faces(heads):
    networks = dict(big_first=Knows(heads, heads["points"], 4.), big=Knows(heads, heads["points"], 2.))
    got = profiles.measured(dict(drawn=(heads, np.ones(6, bool), ((0, 90),))), networks)
    assert got["ratio_drawn_0: big"]["value"] == pytest.approx(0.5)
    assert got["error_drawn_0: big"]["n"] == 6 and "ratio_drawn_0: big_first" not in got
