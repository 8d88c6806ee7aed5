"""By which law were CelebA's aligned pictures turned? Fits several to where a network sees the points.

Writes results/landmarks/aligned_law.json.

    python benchmarks/landmarks.py --train default:0; python benchmarks/aligned_law.py

The network has seen photographs only (recipe `default`), so it knows nothing of any law. Two minutes on one core.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from facerec_nb.datasets.celeba_files import POINT_COLUMNS, load_celeba
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.geometry import apply_matrix, similarity
from facerec_nb.core.records import metric, record, write_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from studies.celeba_aligned import ALIGNED_TEMPLATE, aligned_matrix  # noqa: E402

# where the windows were cut, and a box in them like CelebA's
WINDOW, BOX = np.array([25, 42]), np.array([[12., 10, 116, 150]])
EYES, MOUTH = np.eye(5)[:2], np.eye(5)[3:]
LAWS = {"five points": np.eye(5), "eyes": EYES, "eyes and mouth corners": np.r_[EYES, MOUTH],
        "eyes and middle of the mouth": np.r_[EYES, MOUTH.mean(0, keepdims=True)]}


def moved(points, picked, target): return apply_matrix(similarity(picked @ points, target), points)


def fit(points, seen, picked):
    "The template with which a similarity over the picked points explains best where points are seen"
    start = picked @ np.median(seen, 0)
    def wrong(t):
        off = seen - moved(points, picked, t.reshape(-1, 2))
        return np.r_[off.ravel(), 0.01*(t - start.ravel())]
    return least_squares(wrong, start.ravel(), loss="soft_l1").x.reshape(-1, 2)


def measure(points, seen):
    "How far each law leaves the points, how far the template of the study, and the template fitted anew"
    numbers, n = {}, len(points)
    for name, picked in LAWS.items():
        off = np.linalg.norm(seen - moved(points, picked, fit(points, seen, picked)), axis=-1)
        unit = "px of 178x218, median over points and pictures"
        numbers[name.replace(" ", "_")] = metric(float(np.median(off)), n=n, unit=unit)
    off = np.linalg.norm(seen - apply_matrix(aligned_matrix(points), points), axis=-1)
    for k in range(5):
        numbers[f"point_{k}"] = metric(float(np.median(off[:, k])), n=n, unit="px, with the template of the study")
    template = fit(points, seen, LAWS["eyes and middle of the mouth"])
    apart, unit = float(abs(template - ALIGNED_TEMPLATE).max()), "px between the fitted template and the study's"
    return numbers | dict(template_off=metric(apart, n=6, unit=unit)), template


def arguments():
    "What can be asked"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--aligned", default="../shared/data/celeba-aligned-3000x5", type=Path, help="folder of aligned pictures")
    say("--annotations", default="../shared/data/celeba-annotations", type=Path, help="folder of the annotations")
    say("--run", default="runs/landmarks/default-0", type=Path, help="a landmark network")
    say("--out", default="results/landmarks/aligned_law.json", type=Path, help="the record")
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    names = pd.read_csv(args.aligned/"identity.csv")[["image_id"]]
    table = load_celeba(args.annotations, images=False).table.merge(names, on="image_id")
    points, model = table[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2), LandmarkModel.load(args.run)
    pictures = (read_image(args.aligned/"img"/i) for i in table.image_id)
    seen = np.concatenate([model.points(picture, BOX)[0] for picture in pictures]) + WINDOW
    numbers, template = measure(points, seen)
    about = dict(name="celeba-aligned-3000x5 and CelebA's points", fingerprint=fingerprint(table.image_id.tolist()),
                 n_images=len(table), n_people=int(table.identity.nunique()))
    what = "How far a network sees the points of CelebA's aligned pictures from where four laws put them"
    curves = dict(template=template.round(2).tolist())
    write_record(args.out, record(what, "python benchmarks/aligned_law.py", about, numbers, curves))
    print({k: round(v["value"], 3) for k, v in numbers.items()})
