"""What CelebA's official annotations hold: people, attributes, boxes, points.

Writes results/annotations/summary.json, which story 00 draws from.

    python -m studies.annotations [--folder ../shared/data/celeba-annotations] [--out results/annotations]
"""
import argparse
from pathlib import Path

import numpy as np

from facerec_nb.datasets.celeba import attribute_shares, blur_cost, constant_errors, people_left, points_kept
from facerec_nb.datasets.celeba_files import ATTRIBUTES, load_celeba, outside_box, place_in_box
from facerec_nb.core.metrics import wilson
from facerec_nb.core.records import metric, record, write_record

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
MIN_BOX = (0, 50, 80, 100, 125, 150, 200, 250, 300) # pixels
SHRINK = (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3) # of the sides of the box


def smaller_side(table):
    "The smaller side of each box, pixels"
    return table[["width", "height"]].min(axis=1)


def counts(full, boxed):
    "How many images and people there are, and how many remain under each condition"
    per, sharp = full.identity.value_counts(), full.identity[~full.Blurry].value_counts()
    good = boxed[~boxed.Blurry & (smaller_side(boxed) >= 100)]
    people_good = good.identity.value_counts()
    out = dict(images=len(full), people=len(per), people_25=(per >= 25).sum(), people_over_25=(per > 25).sum(),
               people_30=(per >= 30).sum(), most_images=per.max(), people_25_sharp=(sharp >= 25).sum(),
               images_with_box=len(boxed), images_sharp_box_100=len(good),
               people_25_sharp_box_100=(people_good >= 25).sum())
    return {name: metric(int(v), n=len(boxed) if "box" in name else len(full)) for name, v in out.items()}


def box_shares(boxed):
    "Shares of the boxes with their intervals"
    yes = dict(share_box_100=smaller_side(boxed) >= 100, all_points_in_box=points_kept(boxed, 0).all(1),
               all_points_in_box_95=points_kept(boxed).all(1), points_half_a_side_outside=outside_box(boxed) > 0.5)
    return {name: metric(v.mean(), *wilson(v.sum(), len(boxed)), len(boxed), "share") for name, v in yes.items()}


def annotation_metrics(full, boxed):
    "The headline numbers: `full` has attributes and identity of every image, `boxed` also boxes and points"
    out, side = counts(full, boxed), smaller_side(boxed)
    for a in ("Male", "Blurry", "Eyeglasses", "Wearing_Hat"):
        out[f"share_{a.lower()}"] = metric(full[a].mean(), n=len(full), unit="share")
    for name, rows in dict(sharp=~boxed.Blurry, blurry=boxed.Blurry).items():
        out[f"box_side_median_{name}"] = metric(side[rows].median(), n=int(rows.sum()), unit="px")
    for name, error in zip(POINTS, constant_errors(boxed).T):
        out[f"constant_error_{name}"] = metric(np.median(error), n=len(boxed), unit="eye distances")
    return out | box_shares(boxed)


def box_curves(boxed):
    "What the plots of boxes and points need"
    edges = [*range(0, 620, 20)]
    side = smaller_side(boxed).clip(upper=edges[-1] - 1)
    rows = dict(sharp=~boxed.Blurry, blurry=boxed.Blurry)
    kept = np.array([points_kept(boxed, s).mean(0) for s in SHRINK]).round(5)
    left = people_left(boxed[~boxed.Blurry], min_box=MIN_BOX)
    hist = {f"box_side_{name}": np.histogram(side[r], edges)[0] for name, r in rows.items()}
    return dict(box_side_edges=edges, **hist, min_box=list(left.index), per_id=list(left.columns),
                people_left_sharp=left.to_numpy(), shrink=list(SHRINK),
                points_kept=dict(zip([p.replace("_", " ") for p in POINTS], kept.T)),
                place_percentiles=np.percentile(place_in_box(boxed), [5, 50, 95], axis=0).round(4))


def annotation_curves(full, boxed):
    "What the plots of an annotated set of photographs need"
    shares = attribute_shares(full)
    return dict(attribute_shares=dict(zip(shares.attribute, shares.share.round(6))),
                attribute_correlation=np.corrcoef(full[ATTRIBUTES].to_numpy(float).T).round(3),
                people_by_images=np.bincount(full.identity.value_counts()),
                blur_cost=blur_cost(full).round(6).to_dict("list"), **box_curves(boxed))


def record_annotations(folder="../shared/data/celeba-annotations", out="results/annotations"):
    "Measure the annotations in a folder and write `out`/summary.json"
    full = load_celeba(folder, images=False, need=("attributes", "identity"))
    boxed = load_celeba(folder, images=False)
    data = dict(name="CelebA, official annotations", fingerprint=full.fingerprint, fingerprint_boxes=boxed.fingerprint,
                n_images=len(full), n_people=full.table.identity.nunique())
    rec = record("What CelebA's annotations hold: people, attributes, boxes, points", "python -m studies.annotations",
                 data, annotation_metrics(full.table, boxed.table), annotation_curves(full.table, boxed.table))
    write_record(Path(out)/"summary.json", rec)
    return rec


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="../shared/data/celeba-annotations")
    parser.add_argument("--out", default="results/annotations")
    record_annotations(**vars(parser.parse_args()))


if __name__ == "__main__": main()
