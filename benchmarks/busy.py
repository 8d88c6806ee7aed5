"""How much longer a training takes while other programs want both cores. Writes results/pipeline/busy.json.

    python benchmarks/busy.py [--busy 2] [--rounds 3] [--epochs 20]

The landmark training of the demo on drawn people, short, in a process of its own: on a quiet machine, beside so many
programs that only count, and beside the same with two threads whatever the load, as it was before; in turns. What
counts is the time of the epochs. Run it when nothing else runs.
"""

import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path

import numpy as np

from facerec_nb.core.files import fingerprint
from facerec_nb.core.records import metric, record, show_metric, write_record

TRAIN = """
import json, sys
from facerec_nb.faces.alignment import train_landmarks
data, run, epochs = sys.argv[1:]
print(json.dumps(train_landmarks(data, run, epochs=int(epochs))["seconds"]))
"""


def prepared(home):
    "Drawn people, selected as the demo selects them"
    from facerec_nb.datasets.celeba_files import load_celeba
    from facerec_nb.datasets.recipes import Usable
    from facerec_nb.datasets.selected import prepare
    from facerec_nb.datasets.synthetic import synthesise

    celeba = load_celeba(synthesise(home / "drawn", ids=12, per_id=10, seed=0))
    prepare(celeba, Usable(), home / "data", unseen=0.2, seed=0)
    return home / "data"


def seconds(data, run, epochs, busy=0, threads=None):
    "Of the epochs, beside so many programs that count; threads: a fixed number of them"
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    env |= dict(OMP_NUM_THREADS=str(threads)) if threads else {}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        train = [sys.executable, "-c", TRAIN, str(data), str(run), str(epochs)]
        said = subprocess.run(train, env=env, check=True, capture_output=True, text=True).stdout
    finally:
        for p in others:
            p.kill()
            p.wait()
    return json.loads(said.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(busy=2, rounds=3, epochs=20).items():
        parser.add_argument("--" + k, default=v, type=int)
    parser.add_argument("--out", default="results/pipeline/busy.json")
    args = parser.parse_args()
    ways = dict(quiet={}, busy=dict(busy=args.busy), fixed=dict(busy=args.busy, threads=os.cpu_count()))
    took = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as tmp:
        data = prepared(Path(tmp))
        mark = fingerprint(data / "images")
        n_images = len(list((data / "images").iterdir()))
        for k in range(args.rounds):
            for way, how in ways.items():
                took[way].append(seconds(data, Path(tmp) / f"{way}{k}", args.epochs, **how))
                print(way, f"{took[way][-1]:.1f} s", flush=True)
    quiet = float(np.median(took["quiet"]))

    def ratio(way):
        each = np.array(took[way]) / quiet
        return metric(float(np.median(each)), float(each.min()), float(each.max()), n=len(each), unit="times as long")

    metrics = dict(
        demo_busy_ratio=ratio("busy"),
        busy_ratio_fixed_threads=ratio("fixed"),
        seconds_quiet=metric(quiet, min(took["quiet"]), max(took["quiet"]), n=args.rounds, unit="seconds"),
    )
    about = dict(name="drawn people", fingerprint=mark, n_images=n_images, n_people=12)
    what = f"The demo's landmark training beside {args.busy} busy processes, and on a quiet machine"
    write_record(args.out, record(what, "python benchmarks/busy.py", about, metrics, dict(seconds=took), seeds=[0]))
    for k, m in metrics.items():
        print(f"{k:26s} {show_metric(m)}  {m['unit']}")
