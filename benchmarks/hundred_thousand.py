"""A hundred thousand photographs prepared and aligned: as files, and in tar files and one array.
Writes results/scale/hundred_thousand.json.

    python benchmarks/hundred_thousand.py [--photos 100000] [--drawn 200]

Drawn photographs, a quarter as wide and high as usual, and their annotations under many names. The points come from a
network that knows where they are on average and looks at nothing: what is measured is all the rest, reading, cutting
out, turning, writing, tables. Each step runs in a process of its own.
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from facerec_nb.core.files import fingerprint, write_csv  # noqa: E402
from facerec_nb.core.records import metric, record, write_record  # noqa: E402
from facerec_nb.core.tars import write_tar  # noqa: E402
from facerec_nb.datasets.synthetic import synthesise  # noqa: E402

SHRINK, PER_TAR, MB = 4, 10_000, 2**20
GEOMETRY = ("bbox", "landmarks")


def photographs(folder, drawn):
    "Bytes of some drawn photographs, shrunk, and their annotation tables"
    synthesise(folder, ids=drawn//10, per_id=10)
    def small(path):
        im = Image.open(path)
        im.resize((im.width//SHRINK, im.height//SHRINK)).save(path, quality=90)
        return path.read_bytes()
    tables = {p.name: pd.read_csv(p) for p in folder.glob("*.csv")}
    for name, t in tables.items():
        if any(g in name for g in GEOMETRY): t[t.columns[1:]] //= SHRINK
    return [small(p) for p in sorted((folder/"img_celeba").iterdir())], tables


def many(folder, n, data, tables):
    "Their annotations under n names, ten people for each; and the names"
    names = [f"{i + 1:06}.jpg" for i in range(n)]
    times = -(-n//len(data))
    for name, t in tables.items():
        t = pd.concat([t]*times, ignore_index=True)[:n].assign(image_id=names)
        if "identity" in t: t["identity"] += np.arange(n)//len(data)*1000
        write_csv(folder/name, t)
    return names


def laid_out(here, n, drawn):
    "The same photographs as files and in tar files"
    data, tables = photographs(here/"drawn", drawn)
    for kind in ("files", "tars"): (here/kind/"img_celeba").mkdir(parents=True)
    names = many(here/"files", n, data, tables)
    many(here/"tars", n, data, tables)
    for i, name in enumerate(names): (here/"files/img_celeba"/name).write_bytes(data[i % len(data)])
    for k in range(0, n, PER_TAR):
        some = ((name, data[(k + i) % len(data)]) for i, name in enumerate(names[k:k + PER_TAR]))
        write_tar(here/f"tars/img_celeba/{k//PER_TAR:03}.tar", some)


def blind(load):
    "A way to load a network that afterwards looks at nothing"
    def loaded(run):
        model = load(run)
        at = model.crop.size*np.array([[.35, .4], [.65, .4], [.5, .6], [.38, .75], [.62, .75]])
        model.predict = lambda crops: (np.tile(at, (len(crops), 1, 1)), np.ones(len(crops)))
        return model
    return loaded


def one(what, here, kind):
    "In a fresh process: seconds and peak of its memory in MB"
    from facerec_nb.datasets.celeba_files import load_celeba
    from facerec_nb.datasets.recipes import Usable
    from facerec_nb.datasets.selected import prepare
    from facerec_nb.faces import aligned
    begin = time.monotonic()
    if what == "prepare":
        celeba = load_celeba(here/kind)
        prepare(celeba, Usable(min_box=0, drop_blurry=False), here/f"{kind}-dfa", per_tar=PER_TAR*(kind == "tars"))
    if what == "align":
        aligned.LandmarkModel.load = blind(aligned.LandmarkModel.load)
        aligned.align(here/f"{kind}-dfa", "small", here/f"{kind}-dfr", packed=kind == "tars")
    if what == "read": aligned.read_aligned(here/f"{kind}-dfr")
    if what == "remove":
        for part in ("dfa", "dfr"): shutil.rmtree(here/f"{kind}-{part}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024
    print(json.dumps(dict(s=time.monotonic() - begin, mb=peak)))


def fresh(what, here, kind):
    got = subprocess.run([sys.executable, __file__, "--one", what, str(here), kind], capture_output=True, text=True)
    if got.returncode: raise SystemExit(got.stderr)
    print(what, kind, got.stdout.strip(), flush=True)
    return json.loads(got.stdout.splitlines()[-1])


def files_below(*folders): return sum(len(names) for f in folders for _, _, names in os.walk(f))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--drawn", type=int, default=200)
    parser.add_argument("--folder", help="where the files go: a disk, not memory")
    parser.add_argument("--out", default="results/scale/hundred_thousand.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return one(args.one[0], Path(args.one[1]), args.one[2])
    metrics, n = {}, args.photos
    with tempfile.TemporaryDirectory(dir=args.folder) as d:
        here = Path(d)
        laid_out(here, n, args.drawn)
        for kind in ("files", "tars"):
            for what in ("prepare", "align", "read"):
                got = fresh(what, here, kind)
                metrics[f"{what}_{kind}_s"] = metric(got["s"], n=n, unit="s")
                metrics[f"{what}_{kind}_mb"] = metric(got["mb"], n=n, unit="MB, peak of the process")
            made = files_below(here/f"{kind}-dfa", here/f"{kind}-dfr", here/f"{kind}-dfr.store")
            metrics[f"made_{kind}"] = metric(made, n=n, unit="files made")
            metrics[f"remove_{kind}_s"] = metric(fresh("remove", here, kind)["s"], n=n, unit="s")
    data = dict(name="drawn photographs under many names", fingerprint=fingerprint(n, args.drawn, SHRINK), n_images=n,
                n_people=n//10)
    what = f"{n:,} photographs prepared and aligned, as files and in tar files and one array"
    command = f"python benchmarks/hundred_thousand.py --photos {n}"
    write_record(args.out, record(what, command, data, metrics, seeds=[0]))


if __name__ == "__main__": main()
