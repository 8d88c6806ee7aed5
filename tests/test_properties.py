"Properties that hold for every input, on inputs that hypothesis invents: readers, geometry, metrics, selection"
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.detection import fit_box_map, map_boxes
from facerec_nb.files import InputError
from facerec_nb.geometry import (align_matrix, apply_matrix, compose, crop_matrix, flip_points, invert, shrink_box, similarity, square_box, template, turn, xywh_to_xyxy, xyxy_to_xywh)
from facerec_nb.metrics import auc, cmc, cosine, eer, nme, pair_scores, rank1, roc, tar_at_far, tenfold, threshold_at_far
from facerec_nb.datasets.selected import add_splits
from facerec_nb.synthetic import tiny_celeba

settings.register_profile("house", max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("house")

coordinate = st.floats(-2000, 2000, allow_nan=False, width=32)
side = st.floats(4, 2000, width=32)
boxes = st.tuples(coordinate, coordinate, side, side).map(lambda b: np.array([b], float))
scores = st.lists(st.integers(-1000, 1000).map(lambda v: v/1000), min_size=1, max_size=40).map(np.array)


# geometry

@given(boxes)
def test_box_conventions_are_each_others_inverse(box): np.testing.assert_allclose(xyxy_to_xywh(xywh_to_xyxy(box)), box, atol=1e-6)


@given(boxes, st.floats(0.01, 0.4))
def test_a_shrunk_box_keeps_its_centre_and_lies_inside(box, share):
    b = xywh_to_xyxy(box); s = shrink_box(b, share)
    np.testing.assert_allclose(s[:, :2] + s[:, 2:], b[:, :2] + b[:, 2:], atol=1e-3)
    assert (s[:, :2] >= b[:, :2]).all() and (s[:, 2:] <= b[:, 2:]).all()
    q = square_box(b)
    np.testing.assert_allclose(q[:, 2] - q[:, 0], q[:, 3] - q[:, 1], rtol=1e-6, atol=1e-3)


@given(st.floats(-180, 180), st.floats(0.05, 20), coordinate, coordinate, arrays(np.float64, (5, 2), elements=st.floats(-500, 500)))
def test_a_similarity_is_found_again_and_undone(degrees, scale, x, y, points):
    assume(points.std(0).min() > 1)
    a = np.deg2rad(degrees); M = np.array([[scale*np.cos(a), -scale*np.sin(a), x], [scale*np.sin(a), scale*np.cos(a), y]]); moved = apply_matrix(M, points)
    np.testing.assert_allclose(similarity(points, moved), M, atol=1e-5*max(1, scale, abs(x), abs(y)))
    np.testing.assert_allclose(apply_matrix(invert(M), moved), points, atol=1e-5)
    np.testing.assert_allclose(compose(invert(M), M), [[1, 0, 0], [0, 1, 0]], atol=1e-6)


@given(st.floats(-180, 180), st.floats(0.1, 10), coordinate, coordinate)
def test_alignment_does_not_care_how_the_photograph_lay(degrees, scale, x, y):
    a = np.deg2rad(degrees); M = np.array([[scale*np.cos(a), -scale*np.sin(a), x], [scale*np.sin(a), scale*np.cos(a), y]])
    moved = apply_matrix(M, template() + [3, -2])
    np.testing.assert_allclose(apply_matrix(align_matrix(moved), moved), apply_matrix(align_matrix(template() + [3, -2]), template() + [3, -2]), atol=1e-4)


@given(boxes, st.integers(32, 256))
def test_a_crop_matrix_takes_the_box_to_the_crop(box, size):
    b = xywh_to_xyxy(box)[0]; corners = apply_matrix(crop_matrix(b, size), np.array([b[:2], b[2:]]) - 0.5)
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [size - 0.5, size - 0.5]], atol=1e-2)


@given(arrays(np.float64, (4, 5, 2), elements=st.floats(0, 200)), st.floats(-180, 180))
def test_mirroring_twice_and_turning_back_change_nothing(points, degrees):
    np.testing.assert_allclose(flip_points(flip_points(points, 200), 200), points, atol=1e-9)
    np.testing.assert_allclose(apply_matrix(turn(-degrees, 200), apply_matrix(turn(degrees, 200), points)), points, atol=1e-6)


@given(st.lists(boxes, min_size=1, max_size=8), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.5, 2), st.floats(0.5, 2))
def test_a_box_map_is_found_again(many, dx, dy, sx, sy):
    b, known = xywh_to_xyxy(np.concatenate(many)), dict(dx=dx, dy=dy, sx=sx, sy=sy); found = fit_box_map(b, map_boxes(b, known))
    for k, v in known.items(): assert abs(found[k] - v) < 1e-3


# metrics

@given(scores, scores, st.floats(0.1, 10), st.floats(-5, 5))
def test_only_the_order_of_scores_counts(genuine, impostor, factor, offset):
    for f in (auc, eer): assert f(genuine, impostor) == pytest.approx(f(genuine*factor + offset, impostor*factor + offset), abs=1e-9)
    for other in (auc(-genuine, -impostor), auc(impostor, genuine)): assert auc(genuine, impostor) == pytest.approx(1 - other, abs=1e-9)
    assert 0 <= eer(genuine, impostor) <= 1


@given(scores, scores)
def test_a_roc_climbs_from_nothing_to_everything(genuine, impostor):
    fpr, tpr, _ = roc(genuine, impostor)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1) and (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    assert np.sum(np.diff(fpr)*(tpr[1:] + tpr[:-1])/2) == pytest.approx(auc(genuine, impostor), abs=1e-9)


@given(scores, scores, st.sampled_from([0.5, 0.25, 0.1]))
def test_no_more_impostors_pass_than_were_allowed(genuine, impostor, far):
    assume(far*len(impostor) >= 1)
    t, got = threshold_at_far(impostor, far), tar_at_far(genuine, impostor, (far,))[far]
    assert (impostor > t).mean() <= far and got["rate"] == pytest.approx((genuine > t).mean()) and got["n"] == len(genuine)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 4), st.floats(0.1, 10))
def test_turning_scaling_and_mixing_embeddings_change_no_number(seed, people, photos, factor):
    rng = np.random.default_rng(seed); ids = np.repeat(np.arange(people), photos); emb = rng.normal(size=(len(ids), 8)) + 2*rng.normal(size=(people, 8))[ids]
    turned = factor*emb @ np.linalg.qr(rng.normal(size=(8, 8)))[0]; np.testing.assert_allclose(cosine(turned, turned), cosine(emb, emb), atol=1e-9)
    mix = rng.permutation(len(ids)); (g, i), (g2, i2) = pair_scores(emb, ids), pair_scores(turned[mix], ids[mix])
    np.testing.assert_allclose(np.sort(g), np.sort(g2), atol=1e-9); np.testing.assert_allclose(np.sort(i), np.sort(i2), atol=1e-9)
    assert len(g) == people*photos*(photos - 1)//2 and len(g) + len(i) == len(ids)*(len(ids) - 1)//2
    first = np.arange(len(ids)) % photos == 0; curve = cmc(emb[~first], ids[~first], emb[first], ids[first], people)
    assert curve[-1] == 1 and (np.diff(curve) >= 0).all() and curve[0] == rank1(emb[~first], ids[~first], emb[first], ids[first])


@given(st.integers(0, 10_000), st.integers(2, 10))
def test_ten_folds_judge_every_pair_once(seed, per):
    rng = np.random.default_rng(seed); same = np.repeat(np.arange(20) % 2 == 0, per); score = rng.normal(size=len(same)) + 5*same
    found = tenfold(score, same); assert len(found["right"]) == len(same) and len(found["thresholds"]) == 10 and found["accuracy"] > 0.8


@given(arrays(np.float64, (3, 5, 2), elements=st.floats(0, 100)), st.floats(0.1, 10), coordinate)
def test_nme_has_no_unit(points, factor, offset):
    assume(np.linalg.norm(points[:, 0] - points[:, 1], axis=1).min() > 1)
    guess = points + np.random.default_rng(0).normal(size=points.shape)
    np.testing.assert_allclose(nme(guess*factor + offset, points*factor + offset), nme(guess, points), rtol=1e-5); np.testing.assert_allclose(nme(points, points), 0, atol=1e-12)


# selection

@given(st.lists(st.integers(1, 12), min_size=2, max_size=20), st.tuples(st.integers(1, 9), st.integers(0, 5), st.integers(0, 5)), st.floats(0, 0.8), st.integers(0, 99))
def test_nobody_is_in_two_places(counts, split, unseen, seed):
    rows = pd.DataFrame(dict(identity=np.repeat(np.arange(len(counts))*7 + 3, counts))); rows["image_id"] = [f"{i}.jpg" for i in range(len(rows))]
    got = add_splits(rows, split, unseen, seed)
    assert (got.groupby("identity").people.nunique() == 1).all() and (got.groupby("identity").class_id.nunique() == 1).all()
    assert got.image_id.is_unique and len(got) == len(rows) and set(got.split) <= {"train", "val", "test"} and (unseen == 0) == (not (got.people == "unseen").any())
    pd.testing.assert_frame_equal(got, add_splits(rows, split, unseen, seed)) # the same seed, the same answer
    mixed = rows.sample(frac=1, random_state=seed); assert add_splits(mixed, split, unseen, seed).groupby("identity").people.first().equals(got.groupby("identity").people.first())


# readers

@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tiny_celeba(tmp_path_factory.mktemp("celeba"), ids=3, per_id=3)


@given(st.sampled_from(["list_attr_celeba.txt", "identity_CelebA.txt", "list_bbox_celeba.txt", "list_landmarks_celeba.txt"]), st.integers(0, 10**6), st.binary(max_size=12), st.integers(0, 30))
def test_a_damaged_annotation_is_read_or_refused_in_a_sentence(folder, tmp_path_factory, name, at, new, cut):
    copy = tmp_path_factory.mktemp("damaged")/"celeba"; shutil.copytree(folder, copy)
    path = next(p for p in copy.rglob("*") if p.stem == name[:-4]); data = path.read_bytes(); at %= len(data)
    path.write_bytes(data[:at] + new + data[at + cut:])
    try: got = load_celeba(copy)
    except InputError as e: assert str(e).count("\n") == 0 and len(str(e)) > 20
    else: assert 0 < len(got.table) <= 9 and got.table.image_id.is_unique and not got.table.drop(columns="path").isna().any().any()
    shutil.rmtree(copy)
