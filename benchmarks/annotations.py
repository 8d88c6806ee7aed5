"""CelebA's annotations at full size, read, joined, checked and selected from: our way beside the plain pandas way.

Writes results/training/annotations.json.

    python benchmarks/annotations.py [--repeats 9] [--out results/training/annotations.json]

202,599 drawn rows of 10,177 people in CelebA's own files (csv as on Kaggle, txt as in the first release). Plain: four
`read_csv`, three merges, the same selection written out. Both give the same rows, which is asserted; they take turns in
one process. Peak memory is that of a fresh process for each way, over one that only imports.
"""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

from facerec_nb.datasets.celeba_files import ATTRIBUTES, BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.datasets.recipes import BalancedIdentities
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.synthetic import synthesise

RECIPE = BalancedIdentities(n_ids=1000, per_id=25, min_box=90) # the drawn faces are a little smaller than CelebA's
NAMES = dict(list_attr_celeba=ATTRIBUTES, list_bbox_celeba=BOX_COLUMNS, list_landmarks_celeba=POINT_COLUMNS,
             identity_CelebA=["identity"])

def ours(folder):
    "Read, join, check, select"
    celeba = load_celeba(folder, images=False)
    return celeba.table, RECIPE.select(celeba.table)

def plain_read(folder):
    "Four files, three merges"
    if (folder/"list_attr_celeba.csv").exists():
        attr, box, points, who = (pd.read_csv(folder/f"{n}.csv") for n in NAMES)
    else:
        attr, box, points, who = (pd.read_csv(folder/f"{n}.txt", sep=r"\s+", header=None, names=["image_id", *c],
                                              skiprows=2*(c != ["identity"])) for n, c in NAMES.items())
    return who.merge(box, on="image_id").merge(points, on="image_id").merge(attr, on="image_id")

def plain_select(t):
    "What `BalancedIdentities` does, for a table with attributes -1 and 1"
    t = t[(t.Blurry != 1) & (t.width >= RECIPE.min_box) & (t.height >= RECIPE.min_box)]
    out = np.zeros(len(t))
    for i, c in enumerate(POINT_COLUMNS):
        place = (t[c] - t[BOX_COLUMNS[i % 2]])/t[BOX_COLUMNS[2 + i % 2]]
        out = np.maximum(out, np.maximum(-place, place - 1))
    t = t[out <= 0.5]
    n = t.identity.value_counts()
    people, rng = np.sort(n.index[n >= RECIPE.per_id]), np.random.default_rng(RECIPE.seed)
    t = t[t.identity.isin(rng.choice(people, RECIPE.n_ids, replace=False))].sort_values("image_id")
    drawn = t.iloc[rng.permutation(len(t))].groupby("identity").head(RECIPE.per_id)
    return drawn.sort_values("image_id").reset_index(drop=True)

def plain(folder):
    "Read, join, select; nothing is checked"
    t = plain_read(folder)
    return t, plain_select(t)

def same(a, b):
    "Are ours and the plain table the same?"
    columns = ["image_id", "identity", *BOX_COLUMNS, *POINT_COLUMNS]
    return (all((a[c].to_numpy() == b[c].to_numpy()).all() for c in columns)
            and (a[ATTRIBUTES].to_numpy() == (b[ATTRIBUTES].to_numpy() == 1)).all())

WAYS = dict(ours=ours, plain=plain)

def seconds(f, folder):
    "Seconds of the clock, of the processor, and the result"
    wall, cpu = time.perf_counter(), time.process_time()
    got = f(folder)
    return time.perf_counter() - wall, time.process_time() - cpu, got

def compare(folder, repeats):
    "Both ways in turn: seconds `{way: [(wall, cpu), ...]}`; the results are compared every time"
    took = {way: [] for way in WAYS}
    for i in range(repeats + 1):
        got = {}
        for way in sorted(WAYS, reverse=i % 2):
            *t, got[way] = seconds(WAYS[way], folder)
            took[way].append(t)
        assert all(len(a) == len(b) and same(a, b) for a, b in zip(got["ours"], got["plain"])), "the two ways disagree"
        sizes = [len(t) for t in got["ours"]]
        del got
    return {way: np.array(t[1:]) for way, t in took.items()}, sizes # the first round warms the disk

def peak(way, folder):
    "Highest memory of a fresh process in MB: after importing alone, and after the whole"
    run = [sys.executable, __file__, "--one", way, "--folder", str(folder)]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

def one(way, folder):
    "In its own process: print the peaks"
    def now():  # ru_maxrss would begin with the parent's
        return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM"))/1024
    before = now()
    WAYS[way](Path(folder))
    print(json.dumps([before, now()]))

def spread(values, unit):
    "Median of the repeats, with the smallest and the largest"
    return metric(float(np.median(values)), float(values.min()), float(values.max()), len(values), unit)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", default="results/training/annotations.json")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return one(args.one, args.folder)
    metrics = {}
    with tempfile.TemporaryDirectory() as d:
        for fmt in ("csv", "txt"):
            folder = synthesise(Path(d)/fmt, fmt=fmt, annotations_only=True)
            more = "" if fmt == "csv" else "_txt"
            took, sizes = compare(folder, args.repeats)
            ratios = took["ours"]/took["plain"]
            metrics[f"annotations_ratio{more}"] = spread(ratios[:, 0], "of the plain way's time")
            metrics[f"annotations_cpu_ratio{more}"] = spread(ratios[:, 1], "of the plain way's processor time")
            for way, t in took.items():
                before, top = peak(way, folder)
                metrics[f"{way}_s{more}"] = spread(t[:, 0], "s")
                metrics[f"{way}_peak_mb{more}"] = metric(top, n=1, unit="MB, whole process")
                metrics[f"{way}_import_mb{more}"] = metric(before, n=1, unit="MB after the imports")
            celeba = load_celeba(folder, images=False)
    what = (f"{sizes[0]:,} annotation rows read, joined, checked, and {sizes[1]:,} selected: "
            "ours over four read_csv and three merges")
    data = dict(name="drawn annotations of CelebA's size", fingerprint=celeba.fingerprint, n_images=sizes[0],
                n_people=int(celeba.table.identity.nunique()))
    rec = record(what, f"python benchmarks/annotations.py --repeats {args.repeats}", data, metrics,
                 seeds=[0, RECIPE.seed])
    rec["interval"] = "smallest and largest of the repeats"
    rec["pandas"] = pd.__version__
    write_record(args.out, rec)
    for k, m in metrics.items():
        print(f"{k:26} {m['value']:9.3f}" + (f"  [{m['low']:.3f}, {m['high']:.3f}]" if m["low"] is not None else "")
              + f" {m['unit']}")

if __name__ == "__main__": main()
