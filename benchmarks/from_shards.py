"""A million faces in shards become a gallery: how long it takes and how much memory, for a file and for a server; and
what grouping takes. Writes results/scale/from_shards.json.

    python benchmarks/from_shards.py [--people 100000] [--per-person 10] [--dim 128] [--grouped 50000]

The faces are drawn: a direction for each person, and each photograph near it. Each way runs in a process of its own.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from facerec_nb.core.files import fingerprint  # noqa: E402
from facerec_nb.core.records import metric, record, write_record  # noqa: E402
from facerec_nb.pipeline.embedded import FaceShards  # noqa: E402
from facerec_nb.pipeline.face_pipeline import FacePipeline  # noqa: E402
from facerec_nb.pipeline.face_shards import plan_shards, write_shard  # noqa: E402
from facerec_nb.pipeline.gallery import Gallery  # noqa: E402
from facerec_nb.pipeline.photo_groups import cluster_photos  # noqa: E402
from studies.postgres import Server  # noqa: E402

PLAIN = dict(face=0, width=400, height=400, score=.9, sure=.95, box=[100, 100, 200, 230], quality_reason="",
             points=[130., 150, 170, 150, 150, 175, 135, 200, 165, 200])


def near(directions, rng, noise=.5):
    "Unit vectors near others"
    e = directions + noise*rng.normal(size=directions.shape)/np.sqrt(directions.shape[1])
    return (e/np.linalg.norm(e, axis=1, keepdims=True)).astype(np.float32)


def draw(out, people, per_person, dim, seed=0):
    "A folder of shards, as of a list of photographs with a folder for each person"
    rng = np.random.default_rng(seed)
    listed = out.with_suffix(".txt")
    listed.write_text("".join(f"p{i:07d}/{k}.jpg\n" for i in range(people) for k in range(per_person)))
    shards, _ = plan_shards(listed, out, dict(model="drawn", dim=dim, settings={}), 1000)
    who = rng.normal(size=(people, dim))
    who /= np.linalg.norm(who, axis=1, keepdims=True)
    for name in shards.names:
        sources = shards.shard(name)["inputs"]["source"]
        emb = near(who[[int(s[1:8]) for s in sources]], rng)
        rows = [PLAIN | dict(source=s, sha256=f"{s:0>32}", embedding=e) for s, e in zip(sources, emb)]
        write_shard(shards.path(name), rows, dim, {})


def judge(): return FacePipeline(None, None, None, "drawn", threshold=.5)


def timed(f):
    begin = time.monotonic()
    got = f()
    return time.monotonic() - begin, got


def one(what, out, to):
    "In a fresh process: seconds, photographs, people, peak of its memory in MB"
    shards, pipe = FaceShards(out), judge()
    if what == "group":
        s, (g, _) = timed(lambda: cluster_photos(pipe, shards, to, .6))
        n, people = len(g.table), g.table.person.nunique()
    else:
        with Gallery(to, "drawn") as g:
            s, rows = timed(lambda: pipe.enroll(shards, g))
            if what == "again": assert not (rows.status == "enrolled").any()
            n, people = g.size[1], g.size[0]
    print(json.dumps(dict(s=s, n=n, people=people, mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024)))


def fresh(what, out, to):
    got = subprocess.run([sys.executable, __file__, "--one", what, str(out), str(to)], capture_output=True, text=True)
    if got.returncode: raise SystemExit(got.stderr)
    print(what, got.stdout.strip(), flush=True)
    return json.loads(got.stdout.splitlines()[-1])


def as_metrics(name, got):
    rate = metric(got["n"]/got["s"], n=got["n"], unit="photographs a second")
    return {f"{name}_rate": rate, f"{name}_mb": metric(got["mb"], n=got["n"], unit="MB, peak of the process")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--per-person", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--grouped", type=int, default=50_000, help="faces that are grouped")
    parser.add_argument("--out", default="results/scale/from_shards.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return one(args.one[0], Path(args.one[1]), args.one[2])
    os.chdir(ROOT)
    n, metrics = args.people*args.per_person, {}
    with tempfile.TemporaryDirectory() as d, Server() as server:
        here = Path(d)
        draw(here/"all", args.people, args.per_person, args.dim)
        size = sum(p.stat().st_size for p in (here/"all").rglob("*.parquet"))
        metrics["shards_mb"] = metric(size/1e6, n=n, unit="MB on disk")
        for name, to in dict(file=here/"g.db", server=server.database("g")).items():
            metrics |= as_metrics(f"from_{name}", fresh("enroll", here/"all", to))
            metrics |= as_metrics(f"from_{name}_again", fresh("again", here/"all", to))
        draw(here/"few", args.grouped//args.per_person, args.per_person, args.dim)
        metrics |= as_metrics("from_group", fresh("group", here/"few", here/"groups"))
    data = dict(name="drawn faces", fingerprint=fingerprint(args.people, args.per_person, args.dim), n_images=n,
                n_people=args.people)
    command = f"python benchmarks/from_shards.py --people {args.people}"
    write_record(args.out, record(f"{n:,} faces from shards into galleries", command, data, metrics, seeds=[0]))


if __name__ == "__main__": main()
