"""How well the packaged detector finds CelebA's faces, and the map from its boxes to CelebA's. Writes
results/pipeline/detection.json.

The same network in 32 bits takes turns with it, photograph by photograph: what that finds, how far the boxes agree, how
many times as long it takes. One thread, processor time. A minute on one core.

python benchmarks/detection.py [--data ../shared/data/celeba-wild-60x30] [--out results/pipeline/detection.json]
"""

import argparse, time
from pathlib import Path

import cv2
import numpy as np

from facerec_nb.datasets.celeba_files import BOX_COLUMNS, load_celeba
from facerec_nb.faces.detection import CELEBA_BOX, CenterFaceDetector, fit_box_map, iou, map_boxes, match_box
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.geometry import xywh_to_xyxy
from facerec_nb.core.metrics import bootstrap_ids
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import add_splits
from facerec_nb.core.records import metric, record, write_record


def share(values, people, unit="share"):
    "A mean as a metric, with its interval over people"
    v = np.asarray(values, float)
    value, low, high = bootstrap_ids(lambda r: v[r].mean(), people, n=1000)
    return metric(value, min(low, value), max(high, value), n=len(v), unit=unit)


def looked(detect, img, box):
    "What a detector finds in a photograph, beside its annotated face, and the milliseconds of the processor"
    start = time.process_time()
    found = detect(img)[0]
    return dict(match_box(found, box), cpu_ms=(time.process_time() - start) * 1e3, shape=img.shape)


def agreement(rows, full):
    "Overlap of the boxes of two detectors, 0 where one has none"
    both = ((a["box"], b["box"]) for a, b in zip(rows, full))
    return [0.0 if a is None or b is None else iou(a, b)[0, 0] for a, b in both]


def times_as_long(rows, full, people):
    "Processor time of the second detector over that of the first, with its interval over people"
    a, b = (np.array([r["cpu_ms"] for r in x]) for x in (rows, full))
    value, low, high = bootstrap_ids(lambda r: b[r].sum() / a[r].sum(), people, n=1000)
    return metric(value, min(low, value), max(high, value), n=len(a), unit="times as long in 32 bits")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-wild-60x30")
    parser.add_argument("--out", default="results/pipeline/detection.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    table = load_celeba(args.data).table
    held = (
        add_splits(Usable(min_box=0, drop_blurry=False).select(table), seed=21).query("people == 'unseen'").identity
    )  # the 12 people whom the landmark networks have not seen either
    true = xywh_to_xyxy(table[BOX_COLUMNS])
    people = table.identity.to_numpy()
    unseen = table.identity.isin(held).to_numpy()
    detect, whole = (CenterFaceDetector(box_map=None, threads=1, eight=e) for e in (True, False))
    rows, full = [], []
    for d in (detect, whole):
        d(np.zeros((300, 300, 3), np.uint8))
    for path, box in zip(table.path, true):
        img = read_image(Path(args.data) / path)
        rows.append(looked(detect, img, box))
        full.append(looked(whole, img, box))
    found = np.array([r["found"] for r in rows])
    extra = np.array([r["extra"] for r in rows])
    cpu = np.array([r["cpu_ms"] for r in rows])
    raw = np.array([r["iou"] for r in rows])
    fit = found & ~unseen
    box_map = fit_box_map([rows[i]["box"] for i in np.flatnonzero(fit)], true[fit])
    mapped = np.zeros(len(rows))
    for i in np.flatnonzero(found):
        h, w = rows[i]["shape"][:2]
        mapped[i] = iou(np.clip(map_boxes(rows[i]["box"], box_map), 0, [w, h, w, h]), true[i])[0, 0]
    metrics = dict(
        found=share(found, people),
        found_unseen=share(found[unseen], people[unseen]),
        extra_per_photo=share(extra, people, "boxes/photo"),
    )
    for name, v in dict(raw=raw, mapped=mapped).items():
        for limit in (0.5, 0.7):
            metrics[f"iou{int(limit * 100)}_{name}_unseen"] = share(v[unseen] >= limit, people[unseen])
        metrics[f"iou_median_{name}_unseen"] = metric(float(np.median(v[unseen])), n=int(unseen.sum()), unit="IoU")
    metrics["iou50_mapped"] = share(mapped >= 0.5, people)
    metrics["cpu_ms"] = metric(float(np.median(cpu)), n=len(cpu), unit="ms of processor time, one thread, median")
    metrics["cpu_ms_p95"] = metric(float(np.percentile(cpu, 95)), n=len(cpu), unit="ms of processor time, one thread")
    metrics["found_float"] = share([r["found"] for r in full], people)
    metrics["extra_per_photo_float"] = share([r["extra"] for r in full], people, "boxes/photo")
    metrics["iou_float"] = share(agreement(rows, full), people, "IoU with the boxes of 32 bits")
    metrics["times_as_long_float"] = times_as_long(rows, full, people)
    edges = np.linspace(0, 1, 41)
    curves = dict(
        box_map=box_map,
        iou_edges=edges,
        iou_raw_unseen=np.histogram(raw[unseen], edges)[0],
        iou_mapped_unseen=np.histogram(mapped[unseen], edges)[0],
    )
    data = dict(
        name=Path(args.data).name,
        fingerprint=fingerprint(Path(args.data) / "list_bbox_celeba.csv"),
        n_images=len(table),
        n_people=len(np.unique(people)),
    )
    settings = dict(
        sizes=list(detect.sizes), min_score=detect.min_score, small=detect.small, frame=detect.frame, eight=True
    )
    rec = record(
        f"CenterFace (ONNX Runtime) on {Path(args.data).name}; box map fitted on the 48 seen people, "
        "'unseen' are the 12 others",
        f"python benchmarks/detection.py --data {args.data}",
        data,
        metrics,
        curves=dict(curves, settings=settings),
        seeds=[21],
    )
    write_record(args.out, rec)
    for k, m in metrics.items():
        print(f"{k:26s} {m['value']:.4f}  [{m['low']}, {m['high']}]  n={m['n']}  {m['unit']}")
    print(
        "box map",
        box_map,
        ""
        if box_map == CELEBA_BOX
        else f"differs from the package's {CELEBA_BOX}: put it into nbs/faces/detection.ipynb",
    )
