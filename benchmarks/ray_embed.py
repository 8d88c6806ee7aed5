"""Shards of faces by Ray Data beside the pool of processes: the same rows, also when a node and a driver are killed,
and what Ray costs. Writes results/scale/ray_embed.json.

    python benchmarks/ray_embed.py [--people 24] [--photos 8] [--per-shard 4] [--kills 3] [--repeats 3] [--copies 8]

Drawn photographs. A cluster of two nodes with one processor each, both on this machine. In each round a driver is
killed (SIGKILL) when some shards are there, then, while another goes on, the second node (SIGKILL of its raylet and of
its workers, as on a machine that loses power); the rows of the shards are compared with those of one process. Then the
pool of two processes and the cluster take turns at the same photographs under more names, four times as many in a
shard, from the first finished shard to the last.
"""
import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from facerec_nb.core.files import fingerprint, write_image
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.synthetic import sample_faces
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.face_shards import FaceShards
from facerec_nb.pipeline.ray_spread import ray_cluster, ray_spread
from facerec_nb.pipeline.shard_workers import embed_photos, pool_spread

STORE, MB = 80*2**20, 2**20
SOON = dict(health_check_initial_delay_ms=5000, health_check_period_ms=500, health_check_timeout_ms=10_000,
            health_check_failure_threshold=6) # a dead node is noticed after three seconds, a slow one is left alone
DRIVER = """import sys
from facerec_nb.apps.embed import facerec_embed
address, photos, out, per_shard = sys.argv[1:]
sys.exit(facerec_embed(photos, out, ray=address, per_shard=int(per_shard), fast=True))
"""


def two_nodes(tries=3):
    "A cluster of two nodes with a processor each, and its second node; a busy machine may need another try"
    from ray.cluster_utils import Cluster
    node, cluster = dict(num_cpus=1, object_store_memory=STORE), Cluster()
    try:
        cluster.add_node(**node, include_dashboard=False, _system_config=SOON)
        return cluster, cluster.add_node(**node)
    except Exception as e:
        cluster.shutdown()
        if "timed out during startup" not in str(e) or tries == 1: raise
        return two_nodes(tries - 1)


def kill_node(cluster, node):
    "As a machine that loses power"
    raylet = psutil.Process(next(p.process.pid for p in node.all_processes["raylet"]))
    for p in [*raylet.children(recursive=True), raylet]:
        try: p.kill()
        except psutil.NoSuchProcess: pass
    cluster.remove_node(node, allow_graceful=False)


def embed(address, photos, out, per_shard, each=lambda made: None):
    "Make shards with a cluster; `each` sees every summary"
    def spread(*args):
        for made in ray_spread(*args):
            each(made)
            yield made
    with ray_cluster(address) as workers:
        embed_photos(FacePipeline.load(fast=True, threads=1), photos, out, per_shard, workers, spread=spread)


def rows(out):
    "How often each row of a folder of shards occurs"
    tables = FaceShards(out).tables()
    return Counter(json.dumps(r, sort_keys=True) for t in tables for r in t.to_pylist())


def wrong(out, right):
    "Rows that are missing, wrong or there twice"
    got = rows(out)
    return ((got - right) + (right - got)).total()


def kill_driver(address, photos, out, per_shard, after=2):
    "Start a driver, kill it when some shards are there; how many are"
    driver = subprocess.Popen(list(map(str, [sys.executable, "-c", DRIVER, address, photos, out, per_shard])))
    def there(): return len(list((Path(out)/"shards").glob("part-*")))
    while there() < after and driver.poll() is None: time.sleep(.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    return there()


def one_round(photos, out, per_shard, right):
    "A driver and a node are killed in the middle; rows that are wrong, and the shards when each was killed"
    cluster, node = two_nodes()
    try:
        before, made = kill_driver(cluster.address, photos, out, per_shard), []
        def each(summary):
            made.append(summary)
            if len(made) == 2: kill_node(cluster, node)
        embed(cluster.address, photos, out, per_shard, each)
        return wrong(out, right), before, len(made)
    finally: cluster.shutdown()


class Watch:
    "Photographs a second between the first finished shard and the last, and the memory of the workers"
    def __init__(self, out): self.shards, self.photos, self.memory = Path(out)/"shards", {}, {}

    def __call__(self, made):
        self.photos[made["part"]] = made["photographs"]
        try: self.memory[made["process"]] = psutil.Process(made["process"]).memory_info().rss/MB
        except psutil.NoSuchProcess: pass

    @property
    def rate(self):
        first, *others = sorted(((self.shards/name).stat().st_mtime, n) for name, n in self.photos.items())
        return sum(n for _, n in others)/(others[-1][0] - first[0])


def by_pool(photos, out, per_shard, watch):
    "The same with processes of this machine"
    def spread(*args):
        for made in pool_spread(*args):
            watch(made)
            yield made
    embed_photos(FacePipeline.load(fast=True, threads=1), photos, out, per_shard, 2, spread=spread)


def turns(photos, here, args):
    "Watches of both ways, turn by turn"
    cluster, _ = two_nodes()
    try:
        seen = []
        for i in range(args.repeats):
            pool, on_ray = Watch(here/f"pool{i}"), Watch(here/f"ray{i}")
            by_pool(photos, here/f"pool{i}", 4*args.per_shard, pool)
            embed(cluster.address, photos, here/f"ray{i}", 4*args.per_shard, on_ray)
            seen.append((pool, on_ray))
        return zip(*seen)
    finally: cluster.shutdown()


def spread_of(values, unit):
    return metric(float(np.median(values)), float(min(values)), float(max(values)), len(values), unit)


def speeds(photos, here, args):
    "Rates, their ratio turn by turn, memory of a worker"
    pool, on_ray = turns(photos, here, args)
    for watch in (*pool, *on_ray): print(f"{watch.rate:.2f} photographs/s", list(watch.memory.values()))
    def memory(ws): return [m for w in ws for m in w.memory.values() if m]
    return dict(
        ray_pool_rate=spread_of([w.rate for w in pool], "photographs/s, pool of 2 processes"),
        ray_rate=spread_of([w.rate for w in on_ray], "photographs/s, Ray on the same 2 processors"),
        ray_share=spread_of([r.rate/p.rate for p, r in zip(pool, on_ray)], "of the pool's rate"),
        ray_pool_worker_mb=spread_of(memory(pool), "MB resident, a process of the pool"),
        ray_worker_mb=spread_of(memory(on_ray), "MB resident, a process of Ray"))


def kills(photos, here, args):
    "Rounds of killed drivers and nodes"
    embed_photos(FacePipeline.load(fast=True, threads=1), photos, here/"right", args.per_shard, workers=0)
    right = rows(here/"right")
    got = [one_round(photos, here/f"round{i}", args.per_shard, right) for i in range(args.kills)]
    print("wrong rows, shards of the killed driver, shards after:", got)
    what = "rows missing, wrong or twice after a driver and a node were killed"
    return dict(ray_kills=metric(2*len(got), n=2*len(got), unit="drivers and nodes killed"),
                ray_rows_wrong=metric(sum(w for w, *_ in got), n=right.total()*len(got), unit=what))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in dict(people=24, photos=8, per_shard=4, kills=3, repeats=3, copies=8).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as d:
        here, drawn = Path(d), sample_faces(args.people, args.photos)["images"]
        for i, img in enumerate(drawn):
            write_image(here/f"photos/{i:04}.jpg", img)
            for k in range(args.copies): write_image(here/f"many/{k}/{i:04}.jpg", img)
        (here/"photos/broken.jpg").write_text("no picture")
        metrics = kills(here/"photos", here, args) | speeds(here/"many", here, args)
    data = dict(name="drawn photographs", fingerprint=fingerprint(args.people, args.photos), n_images=len(drawn),
                n_people=args.people)
    what = "shards of faces on a Ray cluster of two nodes"
    rec = record(what, "python benchmarks/ray_embed.py", data, metrics, seeds=[0])
    rec["interval"] = "smallest and largest"
    write_record("results/scale/ray_embed.json", rec)


if __name__ == "__main__": main()
