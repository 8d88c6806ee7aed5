"""How many questions a service answers, and whether anything it acknowledged is lost when it is killed under load.

Writes results/scale/serve.json.

    python benchmarks/serve.py [--seconds 10] [--rounds 3] [--clients 4] [--kills 10] [--fast]

The service of `facerec_serve` runs in a process of its own, with the networks of the package and a gallery file, and
is asked through loopback by clients in threads of this process, on the same cores: photographs in the public domain and
changed copies of them, as PNG. Two services take turns: one looks at one photograph at a time with networks of two
threads, the other, as the command does it on two cores, at two photographs with one thread each. Then clients enrol and
ask, and the service is killed with SIGKILL; everybody who was acknowledged with status 200 must be in the gallery.
"""

import argparse, io, os, signal, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.portraits import changed_copies, public_portraits
from facerec_nb.pipeline.gallery import Gallery

ROOT = Path(__file__).resolve().parents[1]
SERVE = """
import sys
from facerec_nb.apps.service import ServeCfg, Service, run_service
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.gallery import Gallery
pipe = FacePipeline.load(fast=sys.argv[4] == "fast")
gallery = Gallery(sys.argv[1], model=pipe.model)
run_service(Service(pipe, gallery, cfg=ServeCfg(per_minute=10**9, at_once=int(sys.argv[3]))), port=int(sys.argv[2]))
"""


def png(img):
    "A picture as a file"
    out = io.BytesIO()
    Image.fromarray(read_image(img)).save(out, "PNG")
    return out.getvalue()


def pictures():
    "Photographs in the public domain and copies of them, as files"
    portraits = public_portraits()
    return [png(img) for p in portraits.values() for img in (p, *changed_copies(p).values())]


def start(path, args, at_once=2):
    "A service that answers, so many photographs at once; the process and its address"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    fast = "fast" if args.fast else "whole"
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(path), str(port), str(at_once), fast], cwd=ROOT)
    for _ in range(1200):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200: break
        except httpx.HTTPError: time.sleep(0.1)
    return process, f"http://127.0.0.1:{port}"


def together(count, f):
    "A function in several threads; waits for all"
    threads = [threading.Thread(target=f, args=(i,)) for i in range(count)]
    for t in threads: t.start()
    for t in threads: t.join()


def worked(process):
    "Seconds of processor time that a process has used (Linux), or 0"
    path = Path(f"/proc/{process.pid}/stat")
    if not path.exists(): return 0.0
    spent = path.read_text().rpartition(")")[2].split()
    return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")


def asked(url, photos, args):
    "Seconds of each question of several clients, and how many were not answered"
    took, wrong, until = [], [], time.monotonic() + args.seconds

    def ask(i):
        with httpx.Client(timeout=60) as c:
            n = i
            while time.monotonic() < until:
                begin, n = time.perf_counter(), n + 1
                r = c.post(url + "/identify", files={"photo": photos[n % len(photos)]})
                (took if r.status_code == 200 else wrong).append(time.perf_counter() - begin)

    begin = time.perf_counter()
    together(args.clients, ask)
    return np.array(took), len(wrong), time.perf_counter() - begin


def killed(path, photos, args, seed):
    "Enrol under load until the service is killed; people acknowledged, and those of them who are not there"
    process, url = start(path, args)
    known, rng = [], np.random.default_rng(seed)
    timer = threading.Timer(float(rng.uniform(0.5, 3)), lambda: process.send_signal(signal.SIGKILL))

    def enrol(i):
        with httpx.Client(timeout=60) as c:
            for n in range(10**6):
                name = f"person {seed} {i} {n}"
                try:
                    r = c.post(f"{url}/people/{name}", files={"photos": photos[n % len(photos)]})
                except httpx.HTTPError: return
                if r.status_code == 200: known.append(name)

    timer.start()
    together(args.clients, enrol)
    process.wait()
    with Gallery(path) as g: people = g.people()
    return len(known), len(set(known) - people.keys())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="of each round")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    photos, rounds = pictures(), {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        running = {n: start(Path(folder) / f"{n}.db", args, n) for n in rounds}
        for _, url in running.values(): httpx.post(f"{url}/people/p", files={"photos": photos[0]}, timeout=60)
        for _ in range(args.rounds):
            for n, (process, url) in running.items():
                before = worked(process)
                took, wrong, wall = asked(url, photos, args)
                rounds[n].append((took, wrong, wall, worked(process) - before))
        for process, _ in running.values(): process.send_signal(signal.SIGTERM)
        for process, _ in running.values(): process.wait()
        ends = [killed(Path(folder) / "2.db", photos, args, seed) for seed in range(args.kills)]
    each = {n: [len(took) / wall for took, _, wall, _ in r] for n, r in rounds.items()}
    took = np.concatenate([r[0] for r in rounds[2]])
    wrong, wall, cpu = (sum(r[k] for r in rounds[2]) for k in (1, 2, 3))
    known, lost = (sum(e[k] for e in ends) for k in (0, 1))
    mid, high = (float(q) * 1e3 for q in np.quantile(took, [0.5, 0.99]))
    n, busy = len(took), os.getloadavg()[0]
    metrics = dict(
        serve_requests_per_second=metric(n / wall, n=n, unit=f"photographs a second, {args.clients} clients"),
        serve_ratio=metric(float(np.median(np.divide(each[2], each[1]))), n=args.rounds,
                           unit="times the photographs a second of one at a time with two threads, in turns"),
        serve_cpu_ms=metric(cpu * 1e3 / n, n=n, unit="ms of processor time a photograph, the service alone"),
        serve_ms=metric(mid, n=n, unit="ms a photograph, median"),
        serve_p99_ms=metric(high, n=n, unit="ms a photograph, 99 % of them at most"),
        serve_unanswered=metric(wrong, n=n + wrong, unit="requests without an answer"),
        serve_kills=metric(len(ends), n=len(ends), unit="services killed under load"),
        serve_lost_under_kill=metric(lost, n=known, unit="acknowledged people lost"),
    )
    rec = record(
        "a service asked through loopback, and killed while clients enrol",
        f"python benchmarks/serve.py --seconds {args.seconds:g} --clients {args.clients} --kills {args.kills} "
        f"--rounds {args.rounds}" + " --fast" * args.fast,
        dict(name="public portraits and changed copies", fingerprint=fingerprint(*map(len, photos)),
             n_images=len(photos), n_people=2),
        metrics, curves=dict(load_average=busy, photographs_a_second=each,
                             cpu_ms={n: [c * 1e3 / len(took) for took, _, _, c in r] for n, r in rounds.items()}),
        seeds=list(range(args.kills)),
    )
    write_record(ROOT / "results/scale/serve.json", rec)
    for k, m in metrics.items(): print(f"{k:28s} {m['value']:.4g}  {m['unit']}")
    sys.exit(bool(lost))
