"""Faces that look aside: what showing them more often, and photographs turned in depth, bring to the landmark networks.

    python -m studies.landmarks --train big:0 small:0 more:0 more_aside:0 more_turned:0    # first, in the same --runs
    python -m studies.profiles [--data ../shared/data] [--runs runs/landmarks]

Writes results/landmarks/profiles.json. Two sets that no landmark network was trained on: CelebA's aligned pictures of
other people with known points (`celeba-aligned-more-3000x5`; the ingredients were chosen on one half of its people, the
other half only checks), and drawn heads, whose yaw is known. The error is the mean distance from the truth in shares
of the box's height, since the distance between the eyes of a profile is nearly zero; of drawn heads the three points on
the side that is seen count. Boxes are jittered by 5 %. Intervals by bootstrap over people. Ten minutes on one thread.
"""
import argparse
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from facerec_nb.core.files import fingerprint
from facerec_nb.core.geometry import apply_matrix, invert, xywh_to_xyxy
from facerec_nb.core.records import record, show_metric, write_record
from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.datasets.selected import read_selected
from facerec_nb.datasets.synthetic import draw_photo, face_params, photo_params
from facerec_nb.datasets.turned import yaw_of
from facerec_nb.faces.crops import read_crops
from facerec_nb.faces.landmarks import LandmarkModel, boxes_and_points
from studies.celeba_aligned import aligned_faces
from studies.landmarks import jitter_boxes, mean, ratio

YAWS = ((0, 15), (15, 30), (30, 45), (45, 90))  # degrees, of annotated faces
DRAWN_YAWS = ((0, 30), (30, 60), (60, 90))  # of drawn heads
FAR = 0.05  # an error above this share of the box's height is a failure
NETWORKS = dict(big_first="big_first-0", big="big-0", small_first="small_first-0", small="small-0", more="more-0",
                more_aside="more_aside-0", more_turned="more_turned-0", quick="quick", fast="fast")
PAIRS = dict(big="big_first", small="small_first", more_aside="more", more_turned="more")


def annotated(args):
    "Annotated aligned pictures of people whom no landmark network has seen: boxes, points, people, files, halves"
    out, images = args.runs/"aligned-more", args.data/"celeba-aligned-more-3000x5"
    if not (out/"selected_images.csv").exists():
        table = load_celeba(args.data/"celeba-annotations", images=False).table
        aligned_faces(table, pd.read_csv(images/"identity.csv"), images/"img", out, window=(25, 42))
    rows = read_selected(out)
    people = pd.Series(rows.identity.unique()).sample(frac=1, random_state=0)
    boxes, points = boxes_and_points(rows)
    chooses = rows.identity.isin(people[:len(people)//2]).to_numpy()
    seen, files = np.ones((len(rows), 5), bool), [out/"images"/i for i in rows.image_id]
    return dict(boxes=boxes, points=points, people=rows.identity.to_numpy(), files=files, seen=seen, chooses=chooses,
                yaw=np.abs(yaw_of(points)))


def drawn(n, seed=77):
    "Drawn heads, turned evenly from one profile to the other, as large as `annotated`'s; everything that it has"
    out = dict(boxes=[], points=[], files=[], seen=[], yaw=[])
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        person = face_params(k, seed=seed)
        moment = photo_params(person, rng)
        moment.yaw = rng.uniform(-90, 90)
        picture, box, points = draw_photo(person, moment, rng)
        hidden = [1, 4] if moment.yaw > 0 else [0, 3]
        for key, v in dict(boxes=xywh_to_xyxy(box), points=points, files=encoded(picture), yaw=abs(moment.yaw),
                           seen=~np.isin(np.arange(5), hidden)).items(): out[key].append(v)
    got = {k: v if k == "files" else np.array(v, float if k != "seen" else bool) for k, v in out.items()}
    return got | dict(people=np.arange(n), chooses=np.zeros(n, bool))


def encoded(picture):
    "A picture as the bytes of a PNG"
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


def asked(model, faces):
    "Error of each face in shares of its box's height, and the confidence"
    boxes = jitter_boxes(faces["boxes"], 0.05, np.random.default_rng(0))
    crops, fine, why = read_crops(faces["files"], boxes, model.crop, model.rim)
    assert fine.all(), next(w for w in why if w)
    found, sure = model.predict(crops)
    found = apply_matrix(invert(model.crop.matrices(boxes)), found)
    off = np.where(faces["seen"], np.linalg.norm(found - faces["points"], axis=-1), np.nan)
    return np.nanmean(off, 1)/(faces["boxes"][:, 3] - faces["boxes"][:, 1]), sure


def told(error, sure, people, where):
    "Error, failures and confidence of some faces; the intervals draw people"
    def of(values, unit): return mean(values[where], people[where], unit)
    return dict(error=of(error, "share of the box's height"),
                failures=of(error > FAR, f"share with an error above {FAR} of the box's height"),
                confidence=of(sure, "mean confidence"))


def measured(sets, networks):
    "All numbers: network, set, yaw"
    out, answers = {}, {}
    def answer(net, faces):
        "Asked once: the halves of the people are sets of the same faces"
        if (net, id(faces)) not in answers: answers[net, id(faces)] = asked(networks[net], faces)
        return answers[net, id(faces)]
    for net, (name, (faces, mine, yaws)) in product(networks, sets.items()):
        (error, sure), before = answer(net, faces), PAIRS.get(net)
        for low, high in yaws:
            where = mine & (faces["yaw"] >= low) & (faces["yaw"] < high)
            numbers = told(error, sure, faces["people"], where)
            if before in networks: numbers["ratio"] = ratio(
                error[where], answer(before, faces)[0][where], faces["people"][where], "ratio of the mean errors")
            out |= {f"{k}_{name}_{low}: {net}": v for k, v in numbers.items()}
            print(net, name, low, {k: show_metric(v, 4) for k, v in numbers.items()}, flush=True)
    return out


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--runs", default="runs/landmarks", type=Path)
    parser.add_argument("--heads", default=900, type=int, help="drawn heads")
    parser.add_argument("--out", default="results/landmarks/profiles.json")
    args = parser.parse_args(words)
    real, heads = annotated(args), drawn(args.heads)
    sets = dict(chosen=(real, real["chooses"], YAWS), checked=(real, ~real["chooses"], YAWS),
                drawn=(heads, ~heads["chooses"], DRAWN_YAWS))
    networks = {k: v if v in ("quick", "fast") else args.runs/v for k, v in NETWORKS.items()}
    networks = {k: LandmarkModel.load(v, "cpu") for k, v in networks.items() if isinstance(v, str) or v.exists()}
    about = dict(name="celeba-aligned-more-3000x5", n_images=len(real["people"]), n_people=len(set(real["people"])),
                 fingerprint=fingerprint(args.runs/"aligned-more"/"selected_images.csv"))
    what = "Landmarks of faces that look aside, before and after training with more of them"
    curves = dict(yaws=YAWS, drawn_yaws=DRAWN_YAWS, networks=list(networks), pairs=PAIRS, far=FAR, heads=args.heads)
    write_record(args.out, record(what, "python -m studies.profiles", about, measured(sets, networks), curves, [0, 77]))


if __name__ == "__main__": main()
