"""Finding the selected photographs: one walk over the tree, against searching it once per image as the course did.

    python benchmarks/find_images.py [--out results/benchmarks/find_images.json]
"""
import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from facerec_nb.datasets.photos import find_images
from facerec_nb.core.files import fingerprint
from facerec_nb.core.records import metric, record, write_record

N, FOLDERS, SEARCHED, REPEATS = 20_000, 14, 30, 5


def tree(root):
    "Empty files, nested in part folders as in Kaggle's archive"
    names = [f"{i:06}.jpg" for i in range(1, N + 1)]
    for k in range(FOLDERS): (root/f"img_celeba.7z/part{k}").mkdir(parents=True)
    for i, n in enumerate(names): (root/f"img_celeba.7z/part{i % FOLDERS}/{n}").touch()
    return names


def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="results/benchmarks/find_images.json")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as d:
        names = tree(Path(d))
        ratios, walks, searches = [], [], []
        for _ in range(REPEATS):
            wanted = [names[i] for i in rng.choice(N, SEARCHED, replace=False)]
            walks.append(seconds(lambda: find_images(d)))
            searches.append(seconds(lambda w=wanted: [next(Path(d).rglob(n)) for n in w])/SEARCHED*N)
            ratios.append(searches[-1]/walks[-1])
    took = dict(ratio=(ratios, "times"), walk_s=(walks, "s"), search_s=(searches, "s"))
    metrics = {name: metric(float(np.median(v)), min(v), max(v), REPEATS, unit) for name, (v, unit) in took.items()}
    what = (f"finding {N:,} photographs in {FOLDERS} folders: "
            f"a search per image (extrapolated from {SEARCHED} of them) over one walk")
    data = dict(name="empty files", fingerprint=fingerprint(N, FOLDERS), n_images=N, n_people=0)
    rec = record(what, "python benchmarks/find_images.py", data, metrics, seeds=[0])
    rec["interval"] = "smallest and largest of the repeats"
    write_record(args.out, rec)
    for k, m in rec["metrics"].items():
        print(f"{k:10} {m['value']:10.2f}  [{m['low']:.2f}, {m['high']:.2f}] {m['unit']}")


if __name__ == "__main__": main()
