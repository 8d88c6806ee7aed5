"Properties that hold for every input, on inputs that hypothesis invents: readers, geometry, metrics, selection"

import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.faces.detection import fit_box_map, map_boxes
from facerec_nb.evaluation.identification import COURSE_FPRS, Search, course_curve, roles
from facerec_nb.evaluation.verification import PairCurve
from facerec_nb.core.files import InputError
from facerec_nb.core.geometry import (
    align_matrix,
    apply_matrix,
    compose,
    crop_matrix,
    flip_points,
    invert,
    shrink_box,
    similarity,
    square_box,
    template,
    turn,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from facerec_nb.core.metrics import (
    auc,
    cmc,
    cosine,
    dir_at_fpir,
    eer,
    identification_rate,
    nme,
    pair_scores,
    rank1,
    roc,
    tar_at_far,
    tenfold,
    threshold_at_far,
)
from facerec_nb.datasets.selected import add_splits
from facerec_nb.datasets.synthetic import tiny_celeba

settings.register_profile(
    "house",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("house")

coordinate = st.floats(-2000, 2000, allow_nan=False, width=32)
side = st.floats(4, 2000, width=32)
boxes = st.tuples(coordinate, coordinate, side, side).map(lambda b: np.array([b], float))
scores = st.lists(st.integers(-1000, 1000).map(lambda v: v / 1000), min_size=1, max_size=40).map(np.array)


# geometry


@given(boxes)
def test_box_conventions_are_each_others_inverse(box):
    np.testing.assert_allclose(xyxy_to_xywh(xywh_to_xyxy(box)), box, atol=1e-6)


@given(boxes, st.floats(0.01, 0.4))
def test_a_shrunk_box_keeps_its_centre_and_lies_inside(box, share):
    b = xywh_to_xyxy(box)
    s, q = shrink_box(b, share), square_box(b)
    np.testing.assert_allclose(s[:, :2] + s[:, 2:], b[:, :2] + b[:, 2:], atol=1e-3)
    assert (s[:, :2] >= b[:, :2]).all() and (s[:, 2:] <= b[:, 2:]).all()
    np.testing.assert_allclose(q[:, 2] - q[:, 0], q[:, 3] - q[:, 1], rtol=1e-6, atol=1e-3)


def turn_scale_shift(degrees, scale, x, y):
    "The matrix of a similarity"
    a = np.deg2rad(degrees)
    return np.array([[scale * np.cos(a), -scale * np.sin(a), x], [scale * np.sin(a), scale * np.cos(a), y]])


five = arrays(np.float64, (5, 2), elements=st.floats(-500, 500))


@given(st.floats(-180, 180), st.floats(0.05, 20), coordinate, coordinate, five)
def test_a_similarity_is_found_again_and_undone(degrees, scale, x, y, points):
    assume(points.std(0).min() > 1)
    M = turn_scale_shift(degrees, scale, x, y)
    moved = apply_matrix(M, points)
    np.testing.assert_allclose(similarity(points, moved), M, atol=1e-5 * max(1, scale, abs(x), abs(y)))
    np.testing.assert_allclose(apply_matrix(invert(M), moved), points, atol=1e-5)
    np.testing.assert_allclose(compose(invert(M), M), [[1, 0, 0], [0, 1, 0]], atol=1e-6)


@given(st.floats(-180, 180), st.floats(0.1, 10), coordinate, coordinate)
def test_alignment_does_not_care_how_the_photograph_lay(degrees, scale, x, y):
    points = template() + [3, -2]
    moved = apply_matrix(turn_scale_shift(degrees, scale, x, y), points)
    aligned = apply_matrix(align_matrix(points), points)
    np.testing.assert_allclose(apply_matrix(align_matrix(moved), moved), aligned, atol=1e-4)


@given(boxes, st.integers(32, 256))
def test_a_crop_matrix_takes_the_box_to_the_crop(box, size):
    b = xywh_to_xyxy(box)[0]
    corners = apply_matrix(crop_matrix(b, size), np.array([b[:2], b[2:]]) - 0.5)
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [size - 0.5, size - 0.5]], atol=1e-2)


@given(arrays(np.float64, (4, 5, 2), elements=st.floats(0, 200)), st.floats(-180, 180))
def test_mirroring_twice_and_turning_back_change_nothing(points, degrees):
    np.testing.assert_allclose(flip_points(flip_points(points, 200), 200), points, atol=1e-9)
    turned = apply_matrix(turn(degrees, 200), points)
    np.testing.assert_allclose(apply_matrix(turn(-degrees, 200), turned), points, atol=1e-6)


shift, stretch = st.floats(-0.3, 0.3), st.floats(0.5, 2)


@given(st.lists(boxes, min_size=1, max_size=8), shift, shift, stretch, stretch)
def test_a_box_map_is_found_again(many, dx, dy, sx, sy):
    b, known = xywh_to_xyxy(np.concatenate(many)), dict(dx=dx, dy=dy, sx=sx, sy=sy)
    found = fit_box_map(b, map_boxes(b, known))
    for k, v in known.items():
        assert abs(found[k] - v) < 1e-3


# metrics


@given(scores, scores, st.floats(0.1, 10), st.floats(-5, 5))
def test_only_the_order_of_scores_counts(genuine, impostor, factor, offset):
    moved = genuine * factor + offset, impostor * factor + offset
    for f in (auc, eer):
        assert f(genuine, impostor) == pytest.approx(f(*moved), abs=1e-9)
    for other in (auc(-genuine, -impostor), auc(impostor, genuine)):
        assert auc(genuine, impostor) == pytest.approx(1 - other, abs=1e-9)
    assert 0 <= eer(genuine, impostor) <= 1


@given(scores, scores)
def test_a_roc_climbs_from_nothing_to_everything(genuine, impostor):
    fpr, tpr, _ = roc(genuine, impostor)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    area = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
    assert area == pytest.approx(auc(genuine, impostor), abs=1e-9)


@given(scores, scores, st.sampled_from([0.5, 0.25, 0.1]))
def test_no_more_impostors_pass_than_were_allowed(genuine, impostor, far):
    assume(far * len(impostor) >= 1)
    t, got = threshold_at_far(impostor, far), tar_at_far(genuine, impostor, (far,))[far]
    assert (impostor > t).mean() <= far
    assert got["rate"] == pytest.approx((genuine > t).mean()) and got["n"] == len(genuine)


def simulated(seed, people, photos):
    "Embeddings of people: a direction each, and noise"
    rng, ids = np.random.default_rng(seed), np.repeat(np.arange(people), photos)
    return rng, rng.normal(size=(len(ids), 8)) + 2 * rng.normal(size=(people, 8))[ids], ids


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 4), st.floats(0.1, 10))
def test_turning_scaling_and_mixing_embeddings_change_no_number(seed, people, photos, factor):
    rng, emb, ids = simulated(seed, people, photos)
    turned, mix = factor * emb @ np.linalg.qr(rng.normal(size=(8, 8)))[0], rng.permutation(len(ids))
    np.testing.assert_allclose(cosine(turned, turned), cosine(emb, emb), atol=1e-9)
    for a, b in zip(pair_scores(emb, ids), pair_scores(turned[mix], ids[mix])):
        np.testing.assert_allclose(np.sort(a), np.sort(b), atol=1e-9)
    g, i = pair_scores(emb, ids)
    assert len(g) == people * photos * (photos - 1) // 2 and len(g) + len(i) == len(ids) * (len(ids) - 1) // 2


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 4))
def test_everybody_is_found_at_the_last_rank(seed, people, photos):
    _, emb, ids = simulated(seed, people, photos)
    first = np.arange(len(ids)) % photos == 0
    asked = emb[~first], ids[~first], emb[first], ids[first]
    curve = cmc(*asked, people)
    assert curve[-1] == 1 and (np.diff(curve) >= 0).all() and curve[0] == rank1(*asked)


@given(st.integers(0, 10_000), st.integers(4, 12), st.integers(2, 5))
def test_weighted_curves_are_the_plain_metrics_and_those_of_scikit_learn(seed, people, photos):
    from sklearn.metrics import roc_auc_score

    rng, emb, ids = simulated(seed, people, photos)
    emb /= np.linalg.norm(emb, axis=1, keepdims=True)
    curve, pairs = PairCurve(emb, ids), pair_scores(emb, ids)
    got = curve.values(np.ones(people), (0.5, 0.2))
    assert got["auc"] == pytest.approx(auc(*pairs), abs=1e-9) and got["eer"] == pytest.approx(eer(*pairs), abs=1e-9)
    tar = [t["rate"] for t in tar_at_far(*pairs, (0.5, 0.2)).values()]
    assert [got["tar_at_far5"], got["tar_at_far2"]] == pytest.approx(tar)
    w = rng.integers(1, 4, people).astype(float)
    weight = np.where(curve.same, w[curve.p], w[curve.p] * w[curve.q])
    assert curve.values(w)["auc"] == pytest.approx(roc_auc_score(curve.same, curve.score, sample_weight=weight))


@given(st.integers(0, 10_000), st.integers(4, 12), st.integers(2, 5))
def test_the_search_is_the_plain_metrics(seed, people, photos):
    _, emb, ids = simulated(seed, people, photos)
    emb /= np.linalg.norm(emb, axis=1, keepdims=True)
    role, one = roles(ids, seed), np.ones(people)

    def part(name):
        return emb[role[name]], ids[role[name]]

    got = Search(emb, ids, role).values(one, (0.5,))
    assert got["rank1"] == pytest.approx(rank1(*part("probe"), *part("gallery")))
    plain = dir_at_fpir(*part("known_probe"), *part("known_gallery"), part("stranger")[0], (0.5,))
    assert got["dir_at_fpir5"] == pytest.approx(plain[0.5]["rate"])
    course = course_curve(emb, ids, role).values(one, COURSE_FPRS[:1])
    named = identification_rate(*part("known"), part("stranger")[0], COURSE_FPRS[:1])
    assert course["tar_at_far5"] == pytest.approx(named[0.5]["rate"])


@given(st.integers(0, 10_000), st.integers(2, 10))
def test_ten_folds_judge_every_pair_once(seed, per):
    same = np.repeat(np.arange(20) % 2 == 0, per)
    found = tenfold(np.random.default_rng(seed).normal(size=len(same)) + 5 * same, same)
    assert len(found["right"]) == len(same) and len(found["thresholds"]) == 10 and found["accuracy"] > 0.8


@given(arrays(np.float64, (3, 5, 2), elements=st.floats(0, 100)), st.floats(0.1, 10), coordinate)
def test_nme_has_no_unit(points, factor, offset):
    assume(np.linalg.norm(points[:, 0] - points[:, 1], axis=1).min() > 1)
    guess = points + np.random.default_rng(0).normal(size=points.shape)
    np.testing.assert_allclose(nme(guess * factor + offset, points * factor + offset), nme(guess, points), rtol=1e-5)
    np.testing.assert_allclose(nme(points, points), 0, atol=1e-12)


# selection

splits = st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))


@given(st.lists(st.integers(1, 12), min_size=2, max_size=20), splits, st.floats(0, 0.8), st.integers(0, 99))
def test_nobody_is_in_two_places(counts, split, unseen, seed):
    rows = pd.DataFrame(dict(identity=np.repeat(np.arange(len(counts)) * 7 + 3, counts)))
    rows["image_id"] = [f"{i}.jpg" for i in range(len(rows))]
    got = add_splits(rows, split, unseen, seed)
    who = got.groupby("identity")
    assert (who.people.nunique() == 1).all() and (who.class_id.nunique() == 1).all()
    assert got.image_id.is_unique and len(got) == len(rows) and set(got.split) <= {"train", "val", "test"}
    assert (unseen == 0) == (not (got.people == "unseen").any())
    pd.testing.assert_frame_equal(got, add_splits(rows, split, unseen, seed))  # the same seed, the same answer
    mixed = add_splits(rows.sample(frac=1, random_state=seed), split, unseen, seed)
    assert mixed.groupby("identity").people.first().equals(who.people.first())


# readers

NAMES = ["list_attr_celeba.txt", "identity_CelebA.txt", "list_bbox_celeba.txt", "list_landmarks_celeba.txt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_celeba(tmp_path_factory.mktemp("celeba"), ids=3, per_id=3)


@given(st.sampled_from(NAMES), st.integers(0, 10**6), st.binary(max_size=12), st.integers(0, 30))
def test_a_damaged_annotation_is_read_or_refused_in_a_sentence(folder, tmp_path_factory, name, at, new, cut):
    copy = tmp_path_factory.mktemp("damaged") / "celeba"
    shutil.copytree(folder, copy)
    path = next(p for p in copy.rglob("*") if p.stem == name[:-4])
    data = path.read_bytes()
    at %= len(data)
    path.write_bytes(data[:at] + new + data[at + cut :])
    try:
        got = load_celeba(copy).table
    except InputError as e:
        assert str(e).count("\n") == 0 and len(str(e)) > 20
    else:
        assert 0 < len(got) <= 9 and got.image_id.is_unique and not got.drop(columns="path").isna().any().any()
    shutil.rmtree(copy)
