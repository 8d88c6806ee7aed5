"""The five story notebooks from top to bottom as on Kaggle, of the last commit.

Data lie below /kaggle/input, which is read-only, results below /kaggle/working, and there is no network.
Writes results/kaggle.json.

    python tools/kaggle.py [--ids 24] [--per-id 18] [--out results/kaggle.json]

Linux and root: a mount and a network namespace of its own stand in for Kaggle's container; nothing outside it is
touched but an empty /kaggle, made and removed. The data are drawn.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.core.files import read_json, write_json
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.synthetic import synthesise

STORY, SECTION = sorted(Path("nbs").glob("0*.ipynb")), "## Your CelebA"
INSIDE = """set -e
cd /
ip link set lo up
mount -t tmpfs none /kaggle
mkdir /kaggle/input /kaggle/working
mount --bind "$0/input" /kaggle/input
mount -o remount,ro,bind /kaggle/input
mount --bind "$0/working" /kaggle/working
cd /kaggle/working/facerec_nb
exec "$@"
"""


def must_be_read_only(folder):
    "Refuse to measure anything that Kaggle would not allow"
    try: (folder/"x").touch()
    except OSError: return
    raise SystemExit(f"{folder} can be written to: this is not what Kaggle does")


def execute(path):
    "Run one notebook; its seconds, and what its section about your own CelebA printed"
    import nbformat
    from nbclient import NotebookClient
    nb, start = nbformat.read(path, 4), time.time()
    NotebookClient(nb, timeout=1200, kernel_name="python3", resources={"metadata": {"path": "nbs"}}).execute()
    at = next(i for i, c in enumerate(nb.cells) if c.source.startswith(SECTION))
    said = "".join(o.get("text", "") for c in nb.cells[at:at + 4] for o in c.get("outputs", []))
    return dict(seconds=time.time() - start, said=said[-300:])


def run_notebooks(told):
    "Inside: execute the notebooks of the clone; what they told goes to a file"
    must_be_read_only(Path("/kaggle/input"))
    got = {}
    for p in STORY:
        got[p.stem] = execute(p)
        print(f"{p.name}: {got[p.stem]['seconds']:.0f} s", flush=True)
        write_json(told, got)


def run_as_kaggle(home):
    "Clone the last commit into a working folder and run its notebooks in a namespace; what they told"
    work = Path(home)/"working"
    work.mkdir()
    subprocess.run(["git", "clone", "-q", ".", work/"facerec_nb"], check=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("FACEREC_")}
    inside = [sys.executable, "tools/kaggle.py", "--inside", "/kaggle/working/told.json"]
    Path("/kaggle").mkdir()
    try:
        subprocess.run(["unshare", "-n", "-m", "bash", "-c", INSIDE, home, *inside],
                       env=env | dict(PYTHONPATH="/kaggle/working/facerec_nb"), check=True)
    finally: Path("/kaggle").rmdir()
    return read_json(work/"told.json")


def parse():
    "The options"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=24)
    parser.add_argument("--per-id", type=int, default=18)
    parser.add_argument("--out", default="results/kaggle.json")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = parse()
    if args.inside: return run_notebooks(args.inside)
    with tempfile.TemporaryDirectory() as home:
        root = synthesise(Path(home)/"input/owner/celeba-originals", ids=args.ids, per_id=args.per_id)
        celeba = load_celeba(root, check="none")
        got = run_as_kaggle(home)
    metrics = {f"seconds_{k}": metric(g["seconds"], n=1, unit="s") for k, g in got.items()}
    metrics["notebooks"] = metric(len(got), n=len(STORY), unit="notebooks that ran to their end")
    data = dict(name="drawn", fingerprint=celeba.fingerprint, n_images=len(celeba), n_people=args.ids)
    write_record(args.out, record("The story notebooks as on Kaggle: read-only input, no network",
                                  f"python tools/kaggle.py --ids {args.ids} --per-id {args.per_id}", data, metrics,
                                  {k: g["said"] for k, g in got.items()}, seeds=[0]))


if __name__ == "__main__": main()
