"""Seconds from a command to its answer, and the size of what must be installed for it. Writes
results/pipeline/startup.json.

    python benchmarks/startup.py [--rounds 9] [--venv FOLDER]

A new environment gets the package alone, without an extra. Its commands are timed from the outside, on the clock and in
processor time: the first answer about one photograph with a gallery of eight references, with the user's cache as it is
after the first use, once with an empty one, and --help of every command. What costs is listed as `python -X importtime`
tells it. FOLDER keeps the environment for the next time. Where other programs run, `chrt -r 5` in front of the command
lets it go first, and the record says so.
"""

import argparse, os, re, resource, subprocess, sys, tempfile, time
from configparser import ConfigParser
from pathlib import Path

import numpy as np

from facerec_nb.core.files import fingerprint, write_image
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.datasets.portraits import public_portraits
from facerec_nb.datasets.synthetic import sample_faces

ROOT = Path(__file__).resolve().parents[1]


def first():
    "What was put in front of the command so that others wait"
    realtime = hasattr(os, "SCHED_RR") and os.sched_getscheduler(0) == os.SCHED_RR
    return "chrt -r 5 " * realtime


def megabytes(folder):
    "What a folder takes on the disk"
    return sum(p.lstat().st_blocks * 512 for p in Path(folder).rglob("*") if not p.is_dir()) / 2**20


def environment(folder):
    "A new environment with the package and nothing else; its size before and after"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    quiet = "--quiet", "--disable-pip-version-check"
    for what in (["uninstall", "--yes", "facerec_nb"], ["install", str(ROOT)]):
        subprocess.run([python, "-m", "pip", *what, *quiet], check=True, stderr=subprocess.DEVNULL)
    return python.parent, megabytes(folder)


def photographs(home):
    "Two portraits and six drawn photographs, one folder a person; and one to ask about"
    for name, img in public_portraits().items():
        write_image(home / "people" / name / "1.jpg", img)
    for i, img in enumerate(sample_faces(3, 2, seed=4)["images"]):
        write_image(home / "people" / f"drawn {i // 2}" / f"{i}.jpg", img)
    return write_image(home / "one.jpg", public_portraits()["Grace"][:, ::-1].copy())


def seconds(command, env, n=1):
    "On the clock and of the processor, of each of n runs of a command"
    out = []
    for _ in range(n):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(list(map(str, command)), check=True, env=env, stdout=subprocess.DEVNULL)
        clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        out.append((clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return np.array(out).T


def told(values, unit="seconds"):
    "Median and range"
    return metric(float(np.median(values)), float(min(values)), float(max(values)), n=len(values), unit=unit)


def imports(python, command, env, most=20):
    "What takes longest to import, in milliseconds with all that it imports itself"
    done = subprocess.run([python, "-X", "importtime", *map(str, command)], env=env, capture_output=True, text=True)
    lines = re.findall(r"^import time: +(\d+) \| +(\d+) \| ( *)(\S+)$", done.stderr, re.M)
    each = sorted(((int(both) / 1000, name) for _, both, _, name in lines), reverse=True)
    return [dict(module=name, ms=round(ms, 1)) for ms, name in each[:most]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", default=9, type=int)
    parser.add_argument("--venv", type=Path)
    parser.add_argument("--out", default="results/pipeline/startup.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        home = Path(tmp)
        bin, size = environment((args.venv or home / "venv").resolve())
        one, gallery = photographs(home), home / "gallery.db"
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        env |= dict(XDG_CACHE_HOME=str(home / "cache"))
        identify = [bin / "facerec_identify", one, "--gallery", gallery]
        seconds([bin / "facerec_enroll", home / "people", gallery], env)
        seconds(identify, env)
        clock, work = seconds(identify, env, args.rounds)
        cold, _ = seconds(identify, env | dict(XDG_CACHE_HOME=str(home / "empty")))
        settings = ConfigParser(delimiters=["="])
        settings.read(ROOT / "settings.ini")
        commands = re.findall(r"(\w+)=", settings["DEFAULT"]["console_scripts"])
        helped = {c: seconds([bin / c, "--help"], env, 3)[0] for c in commands}
        slowest = max(commands, key=lambda c: np.median(helped[c]))
        heavy = imports(bin / "python", identify, env)
        mark = fingerprint(one)
    metrics = dict(
        seconds_to_first_answer=told(clock),
        processor_seconds=told(work, "seconds of processor time"),
        seconds_with_empty_cache=told(cold),
        help_seconds=told(helped[slowest]),
        install_mb=metric(size, unit="MB"),
    )
    write_record(
        args.out,
        record(
            "From a command to its answer about one photograph, and what must be installed for it",
            first() + "python benchmarks/startup.py",
            dict(name="portraits in the public domain and drawn people", fingerprint=mark, n_images=9, n_people=5),
            metrics,
            dict(imports=heavy, help={c: float(np.median(t)) for c, t in helped.items()}, slowest_help=slowest),
        ),
    )
    for k, m in metrics.items():
        print(f"{k:28s} {show_metric(m)}  {m['unit']}")
