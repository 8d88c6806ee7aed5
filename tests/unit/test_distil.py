"Tuning the public-domain network on faces made worse: what is shown, who is trained on, and that weights move"
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from facerec_nb.models.dlib_resnet import DlibResNet
from studies.distil import SIDE, WORSE, Tuning, answers, people_of, tune, view
from studies.tuning import between


@pytest.fixture
def faces():
    coarse = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), np.uint8)
    return coarse.repeat(SIDE//5, 1).repeat(SIDE//5, 2)


@pytest.mark.parametrize("worse", dict.fromkeys(WORSE))
def test_a_face_made_worse_is_a_face(faces, worse):
    for seed in range(5):
        got = worse(faces[0], np.random.default_rng(seed))
        assert got.shape == (SIDE, SIDE, 3) and got.dtype == np.uint8 and (got != faces[0]).any()


def test_a_view_is_drawn_by_its_seed(faces):
    one, two, other = (view(faces[0], np.random.default_rng(s), .5) for s in (1, 1, 2))
    assert (one == two).all() and (one != other).any()


def test_people_held_out_are_not_trained_on():
    roles = ["train", "test", "unseen", "calibration", "wild_unseen", "lfw", "more", "more"]
    table = pd.DataFrame(dict(role=roles, identity=[1, 1, 2, 3, 4, 5, 6, 7], row=range(8)))
    assert people_of(table)[0].tolist() == [0, 1]
    assert len(people_of(table, 1)[0]) == 3 and people_of(table, 2)[0].tolist() == [0, 1, 6, 7]


def test_weights_move_and_stay_near(faces):
    label, net = np.arange(2).repeat(4), DlibResNet().load()
    old = answers(net, faces, np.arange(8))
    weights, log = tune(faces, np.arange(8), label, old, Tuning(epochs=2, batch=4), lambda *_, **__: None)
    assert len(log) == 4 and np.isfinite(log).all()
    tuned = {k: torch.from_numpy(v) for k, v in weights.items()}
    apart = [float((v - net.state_dict()[k]).abs().max()) for k, v in between(tuned, 1.).state_dict().items()]
    assert 0 < max(apart) < 1e-2
