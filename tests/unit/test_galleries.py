"Who fits the law for galleries and who checks it: nobody twice, and no one an embedder was trained on as a stranger"
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import studies.galleries as galleries
from benchmarks.fpir import named
from studies.galleries import check_people, fit_people

ROLES = dict(train=range(20), unseen=range(20, 26), more=range(30, 60), lfw=range(70, 75))


@pytest.fixture
def people(monkeypatch):
    "Five photographs each, whose embedding says who it is"
    monkeypatch.setattr(galleries, "FIT", 16)
    monkeypatch.setattr(galleries, "ENROLLED", 24)
    table = pd.DataFrame([(role, i) for role, ids in ROLES.items() for i in ids for _ in range(5)],
                         columns=["role", "identity"])
    return table, table.identity.to_numpy(float)[:, None]


@pytest.mark.parametrize("trained", [False, True])
def test_fit_and_check_share_nobody(people, trained):
    fit = set(fit_people(*people, trained)[1])
    enrolled, strangers = (set(x[:, 0, 0]) for x in check_people(*people, trained))
    assert not fit & (enrolled | strangers) and set(ROLES["unseen"]) <= fit and len(fit) == 22
    if not trained: assert not enrolled & strangers


def test_nobody_trained_on_is_a_stranger_or_in_the_fit(people):
    fit = set(fit_people(*people, True)[1])
    enrolled, strangers = (x[:, 0, 0] for x in check_people(*people, True))
    seen = set(ROLES["train"])
    assert not seen & (fit | set(strangers)) and set(strangers) == set(ROLES["more"]) - fit
    assert (enrolled[:len(strangers)] == strangers).all() and set(enrolled[len(strangers):]) == seen


def test_a_stranger_to_the_others_is_not_named_by_its_own_photographs():
    "By drawing galleries, the person left out"
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 5, 3))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    probes, own = x.reshape(-1, 3), np.arange(12).repeat(5)
    got = named(probes, x, 1, .9, 4, own)
    drawn = np.zeros(60)
    for _ in range(400):
        for i in range(60):
            mine = rng.choice(np.setdiff1d(np.arange(12), own[i]), 4, replace=False)
            drawn[i] += (probes[i] @ x[mine, 0].T >= .9).any()
    np.testing.assert_allclose(got, drawn/400, atol=.1)
