"""What the map from the detector's boxes to CelebA's does for the points: the error of the packaged landmarks in
annotated, mapped and bare boxes. Writes results/pipeline/detection_points.json.

    python benchmarks/detection_points.py [--data ../shared/data/celeba-wild-60x30] [--out FILE]
    # the small network, one pass, no mirror image:
    python benchmarks/detection_points.py --fast --out results/pipeline/detection_points_fast.json

On the photographs of the 12 people whom neither the map nor the landmarks have seen. The box of a photograph is the
found one that is the annotated face.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from facerec_nb.datasets.celeba_files import BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.core.installed import packaged
from facerec_nb.faces.detection import CELEBA_BOX, CenterFaceDetector, map_boxes, match_box
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.geometry import xywh_to_xyxy
from facerec_nb.core.metrics import bootstrap_ids, nme
from facerec_nb.engines.onnx_landmarks import open_landmarks
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import add_splits
from facerec_nb.core.records import metric, record, show_metric, write_record


def interval(f, people, unit):
    "A number over photographs with its interval over people"
    value, low, high = bootstrap_ids(f, people)
    return metric(value, min(low, value), max(high, value), n=len(people), unit=unit)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-wild-60x30")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--out", default="results/pipeline/detection_points.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    name = "small" if args.fast else "big"
    table = add_splits(Usable(min_box=0, drop_blurry=False).select(load_celeba(args.data).table), seed=21)
    table = table[table.people == "unseen"]
    true, points, path = (
        xywh_to_xyxy(table[BOX_COLUMNS]),
        table[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2),
        packaged(f"landmarks_{name}.onnx"),
    )
    model, detect, rows = (
        open_landmarks(path, 1),
        CenterFaceDetector(box_map=None, threads=1),
        [],
    )
    if args.fast:
        model.flip, model.twice = False, False
    for image, box, five in zip(table.path, true, points):
        img = read_image(Path(args.data) / image)
        bare = match_box(detect(img)[0], box)["box"]
        if bare is None:
            rows.append([np.nan] * 3)
            continue
        mapped = np.clip(map_boxes(bare, CELEBA_BOX)[0], 0, [img.shape[1], img.shape[0]] * 2)
        rows.append(nme(model.points(img, [box, mapped, bare])[0], np.repeat(five[None], 3, 0)))
    errors = np.array(rows)
    keep = ~np.isnan(errors[:, 0])
    errors, people = errors[keep], table.identity.to_numpy()[keep]
    metrics = {}
    for i, k in enumerate(("annotated", "mapped", "bare")):
        metrics[f"nme_{k}"] = interval(lambda r, i=i: errors[r, i].mean(), people, "NME")
        metrics[f"nme_median_{k}"] = interval(lambda r, i=i: np.median(errors[r, i]), people, "NME")
        metrics[f"failure_rate_10_{k}"] = interval(lambda r, i=i: (errors[r, i] > 0.1).mean(), people, "share")
    metrics["bare_over_mapped"] = interval(
        lambda r: errors[r, 2].mean() / errors[r, 1].mean(), people, "ratio of the mean NME"
    )
    data = dict(
        name=f"{Path(args.data).name}, unseen people",
        fingerprint=fingerprint(Path(args.data) / "list_bbox_celeba.csv"),
        n_images=len(table),
        n_people=table.identity.nunique(),
    )
    write_record(
        args.out,
        record(
            f"points of the packaged landmarks ({name}{', one pass' if args.fast else ''}) in annotated boxes, "
            "in the detector's boxes after the map, and in its bare boxes",
            f"python benchmarks/detection_points.py --data {args.data}{' --fast' if args.fast else ''}",
            data,
            metrics,
            curves=dict(box_map=CELEBA_BOX, found=int(keep.sum()), fingerprint=fingerprint(path)),
            seeds=[21],
        ),
    )
    for k, m in metrics.items():
        print(f"{k:26s} {show_metric(m, 4)}  {m['unit']}")
