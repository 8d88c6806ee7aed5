"""The five story notebooks from top to bottom as on Kaggle, of the last commit: data below /kaggle/input, which is read-only, results below /kaggle/working, no network. Writes results/kaggle.json.

    python tools/kaggle.py [--ids 24] [--per-id 18] [--out results/kaggle.json]

Linux and root: a mount and a network namespace of its own stand in for Kaggle's container, nothing outside it is touched but an empty /kaggle, made and removed. The data are drawn.
"""
import argparse, os, subprocess, sys, tempfile, time
from pathlib import Path

from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.files import read_json, write_json
from facerec_nb.records import metric, record, write_record
from facerec_nb.synthetic import synthesise

STORY, SECTION = sorted(Path("nbs").glob("0*.ipynb")), "## Your CelebA"
INSIDE = """set -e
cd /; ip link set lo up; mount -t tmpfs none /kaggle; mkdir /kaggle/input /kaggle/working
mount --bind "$0/input" /kaggle/input; mount -o remount,ro,bind /kaggle/input; mount --bind "$0/working" /kaggle/working
cd /kaggle/working/facerec_nb; exec "$@"
"""

def run_notebooks(told):
    "Inside: execute the notebooks of the clone; seconds and what the last section printed go to `told`"
    import nbformat
    from nbclient import NotebookClient
    try: Path("/kaggle/input/x").touch()
    except OSError: pass
    else: raise SystemExit("/kaggle/input can be written to: this is not what Kaggle does")
    got = {}
    for p in STORY:
        nb, start = nbformat.read(p, 4), time.time()
        NotebookClient(nb, timeout=1200, kernel_name="python3", resources={"metadata": {"path": "nbs"}}).execute()
        at = next(i for i, c in enumerate(nb.cells) if c.source.startswith(SECTION))
        got[p.stem] = dict(seconds=time.time() - start, said="".join(o.get("text", "") for c in nb.cells[at:at + 4] for o in c.get("outputs", []))[-300:])
        print(f"{p.name}: {got[p.stem]['seconds']:.0f} s", flush=True); write_json(told, got)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, default=24); parser.add_argument("--per-id", type=int, default=18); parser.add_argument("--out", default="results/kaggle.json"); parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside: return run_notebooks(args.inside)
    with tempfile.TemporaryDirectory() as d:
        work = Path(d)/"working"; work.mkdir(); root = synthesise(Path(d)/"input/owner/celeba-originals", ids=args.ids, per_id=args.per_id); celeba = load_celeba(root, check="none")
        subprocess.run(["git", "clone", "-q", ".", work/"facerec_nb"], check=True); Path("/kaggle").mkdir()
        env = {k: v for k, v in os.environ.items() if not k.startswith("FACEREC_")} | dict(PYTHONPATH="/kaggle/working/facerec_nb")
        try: subprocess.run(["unshare", "-n", "-m", "bash", "-c", INSIDE, d, sys.executable, "tools/kaggle.py", "--inside", "/kaggle/working/told.json"], env=env, check=True)
        finally: Path("/kaggle").rmdir()
        got = read_json(work/"told.json")
    metrics = {f"seconds_{k}": metric(g["seconds"], n=1, unit="s") for k, g in got.items()} | dict(notebooks=metric(len(got), n=len(STORY), unit="notebooks that ran to their end"))
    rec = record("The story notebooks as on Kaggle: read-only input, no network", f"python tools/kaggle.py --ids {args.ids} --per-id {args.per_id}", dict(name="drawn", fingerprint=celeba.fingerprint, n_images=len(celeba), n_people=args.ids), metrics, {k: g["said"] for k, g in got.items()}, seeds=[0])
    write_record(args.out, rec)

if __name__ == "__main__": main()
