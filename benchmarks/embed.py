"""Photographs into shards: is a row lost, doubled or changed when processes are killed, and how fast is it?

    python benchmarks/embed.py kills [--kills 50]                  # drawn photographs; writes results/scale/embed.json
    python benchmarks/embed.py speed --photos FOLDER [--count 200] # writes results/scale/embed_speed.json
    python benchmarks/embed.py plan [--photographs 1000000]        # writes results/scale/embed_plan.json

`kills`: facerec_embed runs with two processes; after a random time one of them, or the program itself, is killed with
SIGKILL; it is run again until it ends by itself, and all rows are compared with those of a run that nobody disturbed.
`speed`: one and two processes in turns, without their start; the processor's seconds, and the memory, of the workers.
`plan`: a list of names of photographs, none of which is there, becomes a manifest.
"""

import argparse, io, os, random, resource, signal, subprocess, sys, tempfile, threading, time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from facerec_nb.core.files import fingerprint, image_size, read_image, write_image  # noqa: E402
from facerec_nb.core.records import metric, record, write_record  # noqa: E402
from facerec_nb.datasets.photos import photos_below  # noqa: E402
from facerec_nb.datasets.portraits import public_portraits  # noqa: E402
from facerec_nb.datasets.synthetic import sample_faces  # noqa: E402
from facerec_nb.pipeline.face_pipeline import FacePipeline  # noqa: E402
from facerec_nb.pipeline.face_shards import FaceShards, plan_shards, write_shard  # noqa: E402
from facerec_nb.pipeline.shard_workers import embed_photos, pool_spread  # noqa: E402

SCRIPT = """import sys
from facerec_nb.apps.embed import facerec_embed
if __name__ == '__main__': sys.exit(facerec_embed())
"""


# --- kills


def drawn(folder, people=16, each=4):
    "Small drawn photographs, two that cannot be read, and one without a face"
    images = sample_faces(people, each, seed=7)["images"]
    for i, img in enumerate(images):
        write_image(folder / f"{i // each:02d}/{i % each}.jpg", img)
    write_image(folder / "nobody.jpg", np.full((80, 80, 3), 128, np.uint8))
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no photograph")
    return len(images) + 3


def rows_of(out):
    "All rows of a folder, by photograph and face: a list each, so that nothing that is there twice is hidden"
    got = {}
    for table in FaceShards(out).tables():
        for r in table.to_pylist():
            got.setdefault((r["source"], r["face"]), []).append(r)
    return got


def alike(a, b):
    "Are two rows the same? Numbers may differ by what the order of a sum does"
    for k, v in a.items():
        if isinstance(v, (list, float)):
            if b[k] is None or not np.allclose(v, b[k], atol=1e-4, equal_nan=True):
                return False
        elif v != b[k]:
            return False
    return True


def wrong_rows(have, want):
    "How many rows are missing, twice, or different"
    return dict(
        missing=sum(k not in have for k in want),
        twice=sum(len(v) - 1 for v in have.values()) + sum(k not in want for k in have),
        different=sum(not alike(have[k][0], want[k][0]) for k in want if k in have),
    )


class Run:
    "facerec_embed in a process of its own"

    def __init__(self, script, photos, out):
        args = [sys.executable, script, photos, out, "--fast", "--workers", "2", "--per_shard", "4"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen([*map(str, args)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def workers(self):
        "The processes that look at photographs"
        try:
            found = psutil.Process(self.process.pid).children()
            return [p for p in found if "spawn_main" in " ".join(p.cmdline())]
        except psutil.Error:
            return []

    def kill(self, rng):
        "Kill the program or one of its workers; which, or None when there was nobody"
        workers = self.workers()
        if workers and rng.random() < 0.6:
            rng.choice(workers).kill()
            return "worker"
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            return "driver"

    def ended(self):
        "Has it ended by itself? Raises where it could not do its work"
        code = self.process.poll()
        if code not in (None, 0, -signal.SIGKILL):
            raise SystemExit(f"it ended with {code}: {self.process.stderr.read()[-2000:]}")
        return code is not None


def made(out):
    "How many shards are there"
    return len(list((out / "shards").glob("part-*")))


def wait_a_while(run, out, rng):
    "Until some more shards are there, and a moment more; sometimes a moment only, when the program has just begun"
    more = made(out) + (0 if rng.random() < 0.1 else rng.randint(1, 5))
    while made(out) < more and not run.ended():
        time.sleep(0.005)
    stop = time.monotonic() + rng.uniform(0, 0.5)
    while time.monotonic() < stop and not run.ended():
        time.sleep(0.005)


def kill_until_done(script, photos, out, rng, budget):
    "Run to the end, killing on the way; how often, whom"
    killed = dict(worker=0, driver=0)
    run = Run(script, photos, out)
    while True:
        if sum(killed.values()) < budget:
            wait_a_while(run, out, rng)
        else:
            run.process.wait()
        if run.ended():
            if run.process.returncode == 0:
                return killed
            run = Run(script, photos, out)
        elif who := run.kill(rng):
            killed[who] += 1


def run_kills(args):
    "Kill until it was done often enough, as a record"
    rng, total = random.Random(args.seed), dict(worker=0, driver=0, missing=0, twice=0, different=0, rows=0, runs=0)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "facerec_embed").write_text(SCRIPT)
        n = drawn(here / "photos")
        kill_until_done(here / "facerec_embed", here / "photos", here / "calm", rng, 0)
        want = rows_of(here / "calm")
        while (done := total["worker"] + total["driver"]) < args.kills:
            out = here / f"out{total['runs']}"
            budget = min(args.kills - done, args.each)
            killed = kill_until_done(here / "facerec_embed", here / "photos", out, rng, budget)
            assert not FaceShards(out).check()["wrong"]
            for k, v in (killed | wrong_rows(rows_of(out), want)).items():
                total[k] += v
            total["rows"] += len(want)
            total["runs"] += 1
            print(total, flush=True)
    return n, total


def record_kills(args):
    "The kills as a record; how many rows were wrong"
    n, t = run_kills(args)
    wrong, kills = t["missing"] + t["twice"] + t["different"], t["worker"] + t["driver"]
    metrics = dict(
        embed_kills=metric(kills, n=kills, unit="processes killed: workers, or the program that drives them"),
        embed_worker_kills=metric(t["worker"], n=kills, unit="workers killed"),
        embed_driver_kills=metric(t["driver"], n=kills, unit="programs killed"),
        embed_rows_wrong=metric(wrong, n=t["rows"], unit="rows missing, twice, or different"),
        embed_runs=metric(t["runs"], n=t["runs"], unit="folders made to the end and compared"),
    )
    rec = record(
        "photographs into shards by two processes, killed with SIGKILL at random moments",
        f"python benchmarks/embed.py kills --kills {args.kills} --seed {args.seed}",
        dict(name="drawn photographs", fingerprint=fingerprint(n, 7), n_images=n, n_people=16),
        metrics,
        curves=dict(counts=t),
        seeds=[args.seed],
    )
    write_record(ROOT / "results/scale/embed.json", rec)
    return wrong


# --- speed


class Watch(threading.Thread):
    "The most memory that the workers of this process have, sampled"

    def __init__(self):
        super().__init__(daemon=True)
        self.uss, self.rss, self.open = {}, {}, True
        self.start()

    def run(self):
        while self.open:
            for p in psutil.Process().children():
                try:
                    if "spawn_main" not in " ".join(p.cmdline()):
                        continue
                    m = p.memory_full_info()
                    self.uss[p.pid] = max(self.uss.get(p.pid, 0), m.uss)
                    self.rss[p.pid] = max(self.rss.get(p.pid, 0), m.rss)
                except psutil.Error:
                    continue
            time.sleep(0.1)


def processor_seconds(pids):
    "Seconds that processes have worked so far"
    return sum(sum(psutil.Process(p).cpu_times()[:2]) for p in pids)


def timed(pipe, photos, out, workers, per_shard):
    "Photographs a second and processor seconds a photograph, from when every worker has made a shard to the last one"
    seen, begin = [], {}

    def watching(work, shards, n):
        for made in pool_spread(work, shards, n):
            seen.append(made)
            pids = {m["process"] for m in seen}
            if not begin and len(pids) == workers:
                begin.update(at=time.perf_counter(), cpu=processor_seconds(pids), done=len(seen), pids=pids)
            if begin:
                begin["end"] = time.perf_counter(), processor_seconds(begin["pids"])
            yield made

    said = embed_photos(pipe, photos, out, per_shard, workers, spread=watching)
    n = sum(m["photographs"] for m in seen[begin["done"] :])
    end, cpu = begin["end"]
    return dict(per_s=n / (end - begin["at"]), cpu=(cpu - begin["cpu"]) / n), said


def large(pipe, rounds=5):
    "Processor seconds for a photograph of twelve million pixels, a portrait that was enlarged"
    file, took = io.BytesIO(), []
    Image.fromarray(public_portraits()["Grace"]).resize((3000, 4000)).save(file, "JPEG", quality=90)
    for _ in range(rounds):
        begin = time.process_time()
        pipe.embed(pipe.find(read_image(file.getvalue())))
        took.append(time.process_time() - begin)
    return took


def spread_of(values, unit, n):
    "Median and extremes of a few rounds as a metric"
    return metric(float(np.median(values)), float(min(values)), float(max(values)), n, unit)


def run_speed(args):
    "One and two processes in turns, as a record"
    paths = photos_below(args.photos)[:: args.every][: args.count]
    pipe = FacePipeline.load(fast=args.fast, threads=1)
    rounds, watch = {1: [], 2: []}, Watch()
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "list.txt"
        names.write_text("\n".join(os.path.abspath(p) for p in paths))
        for r in range(args.rounds):
            for w in (1, 2):
                out = Path(folder) / f"out{r}{w}"
                got, said = timed(pipe, names, out, w, args.per_shard)
                rounds[w].append(got)
                print(w, got, flush=True)
        rows = [r for t in FaceShards(out).tables() for r in t.to_pylist()]
        write_shard(Path(folder) / "all.parquet", rows, FaceShards(out).dim, {})
        size = (Path(folder) / "all.parquet").stat().st_size
    watch.open = False
    n, tag = len(paths), "_fast" if args.fast else ""
    pixels = [np.prod(image_size(p)) / 1e6 for p in paths]
    rate = {w: [g["per_s"] for g in rounds[w]] for w in rounds}
    metrics = {
        f"embed_per_s_1{tag}": spread_of(rate[1], "photographs a second, one process", n),
        f"embed_per_s_2{tag}": spread_of(rate[2], "photographs a second, two processes", n),
        f"embed_speedup{tag}": spread_of([b / a for a, b in zip(rate[1], rate[2])], "two processes over one", n),
        f"embed_cpu_s{tag}": spread_of([g["cpu"] for g in rounds[1] + rounds[2]], "processor s a photograph", n),
        f"embed_cpu_s_12mp{tag}": spread_of(large(pipe), "processor s a photograph of 3000 x 4000 pixels", 5),
        f"embed_memory_mb{tag}": spread_of([v / 1e6 for v in watch.uss.values()], "MB of a worker alone, at most", n),
        f"embed_rss_mb{tag}": spread_of([v / 1e6 for v in watch.rss.values()], "MB of a worker, shared pages too", n),
        f"embed_bytes{tag}": metric(size / n, n=n, unit="bytes of a shard, a photograph, all in one"),
        f"embed_file_bytes{tag}": metric(sum(p.stat().st_size for p in paths) / n, n=n, unit="bytes a photograph"),
        f"embed_megapixels{tag}": metric(float(np.mean(pixels)), n=n, unit="million pixels a photograph"),
        f"embed_faces{tag}": metric(said["faces"] / n, n=n, unit="faces a photograph"),
    }
    rec = record(
        "photographs into shards: one and two processes in turns",
        f"python benchmarks/embed.py speed --photos {Path(args.photos).name} --count {args.count} --every {args.every}"
        f" --rounds {args.rounds}" + " --fast" * args.fast,
        dict(name=Path(args.photos).name, fingerprint=fingerprint([p.name for p in paths]), n_images=n, n_people=0),
        metrics,
        curves=dict(rounds={str(k): v for k, v in rounds.items()}),
    )
    write_record(ROOT / f"results/scale/embed_speed{tag}.json", rec)


# --- plan


def list_of(path, n):
    "A list of names of photographs that are not there"
    rng = np.random.default_rng(0)
    with open(path, "w") as f:
        for i, k in enumerate(rng.integers(0, 16**8, n)):
            f.write(f"bucket/{i // 10000:05d}/{k:08x}-{i:09d}.jpg\n")
    return path


def planned(n, folder):
    "Plan a long list after a short one, and what it took"
    plan_shards(list_of(folder / "short.txt", 1000), folder / "short", dict(model="m", dim=128, settings={}))
    list_of(folder / "list.txt", n)
    had, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    shards, _ = plan_shards(folder / "list.txt", folder / "out", dict(model="m", dim=128, settings={}))
    took, top = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return dict(s=took, mb=(top - had) / 1e3, manifest=(folder / "out/manifest.parquet").stat().st_size)


def run_plan(args):
    "A list becomes a manifest, as a record"
    n = args.photographs
    with tempfile.TemporaryDirectory() as folder:
        p = planned(n, Path(folder))
    print(p)
    metrics = dict(
        embed_plan_us=metric(p["s"] / n * 1e6, n=n, unit="processor µs to plan a photograph"),
        embed_plan_bytes=metric(p["mb"] * 1e6 / n, n=n, unit="bytes of memory at most while planning, a photograph"),
        embed_manifest_bytes=metric(p["manifest"] / n, n=n, unit="bytes of manifest a photograph"),
    )
    rec = record(
        "a list of names becomes a manifest of shards",
        f"python benchmarks/embed.py plan --photographs {n}",
        dict(name="made-up names", fingerprint=fingerprint(n, 0), n_images=n, n_people=0),
        metrics,
    )
    write_record(ROOT / "results/scale/embed_plan.json", rec)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "speed", "plan"])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--each", type=int, default=5, help="kills of one folder at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", help="folder of photographs")
    parser.add_argument("--count", type=int, default=200, help="photographs")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th photograph")
    parser.add_argument("--per_shard", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--photographs", type=int, default=1_000_000)
    args = parser.parse_args()
    sys.exit(bool(dict(kills=record_kills, speed=run_speed, plan=run_plan)[args.what](args)))
