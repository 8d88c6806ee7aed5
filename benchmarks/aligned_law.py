"""By which law were CelebA's aligned pictures turned? Fits several to where a network sees the points. Writes results/landmarks/aligned_law.json.

    python benchmarks/landmarks.py --train default:0; python benchmarks/aligned_law.py

The network has seen photographs only (recipe `default`), so it knows nothing of any law. Two minutes on one core.
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from facerec_nb.alignment import LandmarkModel
from facerec_nb.datasets.celeba_files import POINT_COLUMNS, load_celeba
from facerec_nb.celeba_aligned import ALIGNED_TEMPLATE, aligned_matrix
from facerec_nb.files import fingerprint, read_image
from facerec_nb.geometry import apply_matrix, similarity
from facerec_nb.records import metric, record, write_record

WINDOW, BOX = np.array([25, 42]), np.array([[12., 10, 116, 150]])  # where the windows were cut, and a box in them like CelebA's
LAWS = {"five points": np.eye(5), "eyes": np.eye(5)[:2], "eyes and mouth corners": np.eye(5)[[0, 1, 3, 4]], "eyes and middle of the mouth": np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, .5, .5]])}


def moved(points, picked, target): return apply_matrix(similarity(picked @ points, target), points)


def fit(points, seen, picked):
    "The template with which a similarity over the picked points explains best where points are seen"
    start = picked @ np.median(seen, 0)
    def wrong(t): return np.r_[(seen - moved(points, picked, t.reshape(-1, 2))).ravel(), 0.01*(t - start.ravel())]
    return least_squares(wrong, start.ravel(), loss="soft_l1").x.reshape(-1, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(aligned="../shared/data/celeba-aligned-3000x5", annotations="../shared/data/celeba-annotations", run="runs/landmarks/default-0", out="results/landmarks/aligned_law.json").items():
        parser.add_argument("--" + k, default=v, type=Path)
    args = parser.parse_args()
    table = load_celeba(args.annotations, images=False).table.merge(pd.read_csv(args.aligned/"identity.csv")[["image_id"]], on="image_id")
    points, model = table[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2), LandmarkModel.load(args.run)
    seen = np.concatenate([model.points(read_image(args.aligned/"img"/i), BOX)[0] for i in table.image_id]) + WINDOW
    numbers, n = {}, len(table)
    for name, picked in LAWS.items():
        off = np.linalg.norm(seen - moved(points, picked, fit(points, seen, picked)), axis=-1)
        numbers[name.replace(" ", "_")] = metric(float(np.median(off)), n=n, unit="px of 178x218, median over points and pictures")
    off = np.linalg.norm(seen - apply_matrix(aligned_matrix(points), points), axis=-1)
    numbers |= {f"point_{k}": metric(float(np.median(off[:, k])), n=n, unit="px, with the template of the package") for k in range(5)}
    template = fit(points, seen, LAWS["eyes and middle of the mouth"])
    numbers["template_off"] = metric(float(abs(template - ALIGNED_TEMPLATE).max()), n=6, unit="px between the fitted template and the package's")
    about = dict(name="celeba-aligned-3000x5 and CelebA's points", fingerprint=fingerprint(table.image_id.tolist()), n_images=n, n_people=int(table.identity.nunique()))
    write_record(args.out, record("How far a network sees the points of CelebA's aligned pictures from where four laws put them", "python benchmarks/aligned_law.py", about, numbers, dict(template=template.round(2).tolist())))
    print({k: round(v["value"], 3) for k, v in numbers.items()})
