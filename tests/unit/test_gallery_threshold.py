"The threshold for a gallery: a known law is found again, it follows the size, it is stored, and identify uses it."

import numpy as np
import pytest

from facerec_nb.core.files import InputError
from facerec_nb.core.gallery_threshold import (
    Limit,
    exceeded_by,
    fit_excess,
    fit_tail,
    SHARE,
    gallery_threshold,
    limit_for,
    mean_reference,
)
from facerec_nb.pipeline.answers import Face, Faces
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.gallery import Gallery

LAW = dict(refs=5, share=0.01, law=[0.5, 0.05, -0.1, 0.55, 0.04, -0.1], draws=[[0.49, 0.05, -0.1, 0.54, 0.04, -0.1]],
           n_people=99)


def people(n, k=5, dim=24, seed=0):
    rng = np.random.default_rng(seed)
    e = 1 + rng.normal(size=(n, 1, dim)) + 0.5*rng.normal(size=(n, k, dim))
    return (e/np.linalg.norm(e, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.2])
def test_a_known_tail_is_found_again(shape):
    n = 300_000
    excess = 0.02/shape*(np.random.default_rng(1).random(n)**-shape - 1)
    law = fit_excess(np.sort(0.7 + excess)[::-1], np.ones(n), n/SHARE)
    assert np.allclose(law, (0.7, 0.02, shape), atol=0.01)
    assert abs(exceeded_by(1e-5, law) - exceeded_by(1e-5, (0.7, 0.02, shape))) < 0.01


def test_more_people_more_references_and_a_smaller_share_ask_for_more():
    t = lambda m, k=1, f=0.01: gallery_threshold(LAW, m, m*k, f)["threshold"]
    for row in ([t(m) for m in (1, 2, 10, 1000, 10**6)], [t(9, k) for k in (1, 2, 5, 50)],
                [t(9, 1, f) for f in (0.3, 0.01, 1e-4)]):
        assert (np.diff(row) > 0).all()
    assert -1 <= t(10**9, 1, 1e-9) <= 1
    with pytest.raises(InputError, match="between 0 and 1"): t(9, 1, 1.0)


def test_strangers_are_named_as_often_as_was_asked():
    x = people(800)
    tail = fit_tail(x.reshape(-1, 24), np.arange(800).repeat(5), n_boot=5)
    mean, probes = mean_reference(people(200, 3, seed=7)), people(4000, 1, seed=8)[:, 0]
    named = ((probes @ mean.T).max(1) >= gallery_threshold(tail, 200, 600)["threshold"]).mean()
    assert 0.005 < named < 0.02


def test_too_few_people_are_refused():
    x = people(19)
    with pytest.raises(InputError, match="at least 20 people"): fit_tail(x.reshape(-1, 24), np.arange(19).repeat(5))


def ready(tail, threshold=0.3):
    return FacePipeline(None, None, None, "m", threshold, tail=tail)


def asked(e):
    return Faces([Face(np.zeros(4), 1., np.zeros((5, 2)), 1., None, e)])


def test_identify_follows_the_gallery_at_once():
    "A face that is known among one person is unknown among thirty"
    x, pipe = np.eye(60, dtype=np.float32), ready(LAW)
    with Gallery(model="m") as g:
        g.add("0", x[0])
        alone, full = pipe.limit(g), limit_for(LAW, (30, 30))
        edge = (alone.threshold + full.threshold)/2
        face = asked((edge*x[0] + (1 - edge**2)**0.5*x[59]).astype(np.float32))
        before = pipe.identify(face, g)[0]
        g.add_many([(str(i), e, ["a"]) for i, e in enumerate(x[1:30], 1)])
        after = pipe.identify(face, g)[0]
        assert (before.status, after.status) == ("known", "unknown")
        assert (before.limit, after.limit) == (alone, full) and after.threshold == full.threshold
        g.remove("29")
        assert pipe.limit(g).people == 29


def test_which_rule_is_in_force():
    with Gallery(model="m") as g:
        g.add("0", people(1, 1)[0])
        assert pipe_rules(g) == ["size", "pairs", "given"]
        g.fpir = 0.1
        assert ready(LAW).limit(g).fpir == 0.1
        g.threshold = 0.4
        assert pipe_rules(g) == ["gallery", "gallery", "given"]
        assert ready(LAW).limit(g, fpir=0.001).rule == "size"
        with pytest.raises(InputError, match="stores no law"): ready(None).limit(g, fpir=0.001)
        assert "stored in the gallery" in str(ready(None).limit(g)) and isinstance(ready(None).limit(g), Limit)


def pipe_rules(g):
    return [ready(LAW).limit(g).rule, ready(None).limit(g).rule, ready(LAW).limit(g, 0.9).rule]


def test_a_checkpoint_carries_the_law_and_an_old_one_has_none(tmp_path):
    from facerec_nb.evaluation.calibration import store_calibration
    from facerec_nb.faces.embedder import FaceEmbedder
    from facerec_nb.models.untrained import untrained_embedder
    path = untrained_embedder(tmp_path/"best_af.pth")
    assert FaceEmbedder.load(path).tail is None
    store_calibration(path, dict(threshold=0.3), None, LAW)
    assert FaceEmbedder.load(path).tail == LAW


def test_the_gallery_finds_by_the_mean_of_the_references():
    x = people(50, 4, seed=3)
    with Gallery(model="m") as g:
        g.add_many([(str(i), e, [f"{i}/{j}" for j in range(4)]) for i, e in enumerate(x)])
        for probe in people(50, 5, seed=3)[:, 4]:
            found, want = g.search(probe, k=3)[0], mean_reference(x) @ probe
            assert [m.name for m in found] == [str(j) for j in np.argsort(-want)[:3]]
            best = int(found[0].name)
            assert abs(found[0].nearest - (x[best] @ probe).max()) < 1e-5
            assert found[0].source == f"{best}/{(x[best] @ probe).argmax()}"
