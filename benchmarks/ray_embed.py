"""Shards of faces by Ray Data beside the pool of processes: the same rows, also when a node and a driver are killed, and
what Ray costs. Writes results/scale/ray_embed.json.

    python benchmarks/ray_embed.py [--photos 96] [--people 12] [--per-shard 4] [--kills 3]

Drawn photographs. A cluster of two nodes with one processor each, both on this machine. In each round of `kills` a driver
is killed (SIGKILL), then, while another goes on, the second node (SIGKILL of its raylet and, as on a machine that loses
power, of its workers); the rows of the shards are compared with those of one process.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

import psutil

from facerec_nb.core.files import fingerprint, write_image
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.synthetic import sample_faces
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.face_shards import FaceShards
from facerec_nb.pipeline.ray_spread import ray_cluster, ray_spread
from facerec_nb.pipeline.shard_workers import embed_photos, pool_spread

STORE, MB = 80*2**20, 2**20
SOON = dict(health_check_initial_delay_ms=1000, health_check_period_ms=500, health_check_timeout_ms=1000,
            health_check_failure_threshold=2) # a dead node is noticed after two seconds
DRIVER = """import sys
from benchmarks.ray_embed import embed
embed(*sys.argv[1:4], int(sys.argv[4]))
"""


def two_nodes():
    "A cluster of two nodes with a processor each, and its second node"
    from ray.cluster_utils import Cluster
    node = dict(num_cpus=1, object_store_memory=STORE)
    cluster = Cluster(initialize_head=True, head_node_args=node | dict(include_dashboard=False, _system_config=SOON))
    return cluster, cluster.add_node(**node)


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
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", DRIVER, address, photos, out, per_shard]
    driver = subprocess.Popen(list(map(str, command)), env=env)
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
