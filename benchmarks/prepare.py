"""Laying out 25,000 photographs of 1,000 people, as the course project did in 78 minutes: with and without decoding
each, by link and by copy, and again when all is done.

    python benchmarks/prepare.py

CelebA's original photographs are not here at full size, so the 1,800 of celeba-wild-60x30 (faces at most 200 px high)
stand in for them, each under 14 names.
"""
import argparse
import os
import tempfile
import time
from pathlib import Path

from facerec_nb.datasets.celeba_files import CelebA, load_celeba
from facerec_nb.datasets.recipes import BalancedIdentities
from facerec_nb.datasets.selected import prepare
from facerec_nb.core.records import metric, record, write_record


def seconds(f):
    "Seconds of the clock, and of the processor"
    wall, cpu = time.perf_counter(), time.process_time()
    f()
    return time.perf_counter() - wall, time.process_time() - cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="../shared/data/celeba-wild-60x30")
    parser.add_argument("--annotations", default="../shared/data/celeba-annotations")
    args = parser.parse_args()
    paths = load_celeba(args.photos, check="none").table.path.tolist()
    boxed = load_celeba(args.annotations, images=False)
    table = boxed.table.assign(path=[paths[i % len(paths)] for i in range(len(boxed))])
    data, recipe, out = CelebA(table, boxed.problems, args.photos), BalancedIdentities(), {}
    with tempfile.TemporaryDirectory() as d:
        out["plain"] = seconds(lambda: prepare(data, recipe, Path(d)/"a", check=False))
        out["again"] = seconds(lambda: prepare(data, recipe, Path(d)/"a", check=False))
        linked = os.stat(Path(d)/"a/images"/os.listdir(Path(d)/"a/images")[0]).st_nlink > 1
        out["decoded"] = seconds(lambda: prepare(data, recipe, Path(d)/"b"))
        n = len(os.listdir(Path(d)/"b/images"))
    metrics = ({f"{k}_s": metric(v[0], n=n, unit="s") for k,
                v in out.items()} | {f"{k}_cpu_s": metric(v[1], n=n, unit="s of processor time") for k,
                                     v in out.items()})
    rec = record("Laying out 25,000 photographs: not decoded, started again when done, decoded first",
                 "python benchmarks/prepare.py",
                 dict(name="CelebA annotations, photographs of celeba-wild-60x30 under other names",
                      fingerprint=boxed.fingerprint, n_images=n, n_people=1000), metrics, seeds=[recipe.seed])
    rec["placed"] = "hard links" if linked else "copies"
    write_record("results/benchmarks/prepare.json", rec)
    for k, m in metrics.items(): print(f"{k:14} {m['value']:8.1f} {m['unit']}")
    print(rec["placed"])


if __name__ == "__main__": main()
