"""Is anything lost when enrolment is killed? Processes that enrol people are killed with SIGKILL at random moments.

Writes results/pipeline/kills.json.

    python benchmarks/kills.py [--kills 1000] [--out results/pipeline/kills.json]

A process adds people with 2 to 6 references each and writes a person's name to a pipe only after `add` has returned.
After each kill the gallery is opened anew: everybody who was acknowledged must be there, and everybody who is there
must be whole, with the embeddings that were sent. All kills hit the same file. A second connection, open all the
time, must never see a half-written person either. benchmarks/scale.py does the same to a shared gallery.
"""

import argparse, contextlib, os, random, select, signal, sqlite3, sys, tempfile, time
from pathlib import Path

import numpy as np

from facerec_nb.core.files import fingerprint
from facerec_nb.pipeline.gallery import Gallery, is_address
from facerec_nb.core.records import metric, record, write_record

DIM, KEEP = 128, 3000  # numbers in an embedding; people after which a new gallery is begun


def person(number):
    "The references of a person, the same in every process"
    rng = np.random.default_rng(number)
    e = rng.standard_normal((int(rng.integers(2, 7)), DIM)).astype(np.float32)
    return e / np.linalg.norm(e, axis=1, keepdims=True)


def enrol(path, first):
    "Add people for ever; acknowledge each on standard output"
    gallery = Gallery(path, model="kill test")
    for number in range(first, first + 10**6):
        e = person(number)
        gallery.add(f"p{number}", e, [f"{number}/{i}" for i in range(len(e))])
        os.write(1, f"{number}\n".encode())


def whole(rows):
    "People whose references are not exactly those that were sent"
    have = {}
    for name, e in rows:
        have.setdefault(name, []).append(e)
    return [n for n, e in have.items() if b"".join(e) != person(int(n[1:])).tobytes()], set(have)


ROWS = "SELECT name, embedding FROM people LEFT JOIN refs ON person=people.id WHERE people.id>? ORDER BY refs.id"
SHARED = ("SELECT name, embedding::real[] FROM facerec.people LEFT JOIN facerec.refs ON person=people.id "
          "WHERE people.id>%s ORDER BY refs.id")


def read(path, since=0):
    "Names and embeddings as the file or the server has them, through a connection of its own"
    if is_address(path):
        import psycopg

        with psycopg.connect(path) as db:
            return [(n, np.array(e or [], "<f4").tobytes()) for n, e in db.execute(SHARED, (since,)).fetchall()]
    with contextlib.closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(ROWS, (since,)).fetchall()


def start(enrolling, *args):
    "A process that enrols; a forked child, so that a kill costs no interpreter start"
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(into, 1)
        try:
            enrolling(*args)
        finally:
            os._exit(1)
    os.close(into)
    return pid, out


def kill_once(path, first, rng, longest, witness):
    "Start, wait a random moment, kill; the numbers acknowledged, and half-written people that a witness saw meanwhile"
    pid, out = start(enrol, path, first)
    witness = (
        Gallery(path, model="kill test") if witness else None
    )  # opened after the fork: SQLite must not be carried across one
    data, seen, stop = b"", [], time.monotonic() + rng.uniform(0, longest)
    while (left := stop - time.monotonic()) > 0:
        if select.select([out], [], [], left)[0]:
            got = os.read(out, 65536)
            if not got:
                break
            data += got
        if witness is not None and rng.random() < 0.2:
            seen += whole(read(path, max(0, len(witness) - 20)))[0]
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    while got := os.read(out, 65536):
        data += got
    os.close(out)
    if witness:
        witness.close()
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the enrolling process ended by itself: {data[-200:]!r}")
    return [int(n) for n in data.split(b"\n")[:-1]], seen


def kills(place, count, seed=0, longest=0.25, progress=None):
    "Kill `count` enrolments; place: number -> a new gallery. Counts of what was acknowledged, lost or half-written"
    rng, total = (
        random.Random(seed),
        dict(
            kills=0,
            acknowledged=0,
            lost=0,
            half_written=0,
            seen_half_written=0,
            unacknowledged_whole=0,
            killed_before_first=0,
        ),
    )
    first, acknowledged, path = 0, set(), place(0)
    for i in range(count):
        done, seen = kill_once(path, first, rng, longest, i % 2 and acknowledged)
        acknowledged |= {f"p{n}" for n in done}
        with Gallery(path, model="kill test") as gallery:
            half, have = whole(read(path))
            if have:
                gallery.search(person(int(next(iter(have))[1:])), k=1)
        for key, n in dict(
            kills=1,
            acknowledged=len(done),
            lost=len(acknowledged - have),
            half_written=len(half),
            seen_half_written=len(seen),
            killed_before_first=not done,
        ).items():
            total[key] += int(n)
        total["unacknowledged_whole"] += len(have - acknowledged)
        acknowledged |= have
        first = 1 + max((int(n[1:]) for n in acknowledged), default=first - 1)
        if len(have) > KEEP:
            path, acknowledged = place(i + 1), set()
        if progress and not (i + 1) % progress:
            print(total, flush=True)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=0.25, help="seconds that a process may live")
    parser.add_argument("--folder", help="where the galleries go: a disk, not memory")
    parser.add_argument("--out", default="results/pipeline/kills.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        total = kills(lambda i: Path(folder) / f"g{i}.db", args.kills, args.seed, args.longest, progress=100)
    n = total["kills"]
    metrics = dict(
        kills=metric(n, n=n, unit="processes killed"),
        kills_lost=metric(total["lost"], n=total["acknowledged"], unit="acknowledged people lost"),
        kills_half=metric(total["half_written"], n=n, unit="people found half-written after a kill"),
        kills_seen_half=metric(total["seen_half_written"], n=n, unit="people seen half-written meanwhile"),
        kills_acknowledged=metric(total["acknowledged"], n=n, unit="people acknowledged"),
        kills_unacknowledged_whole=metric(
            total["unacknowledged_whole"], n=n, unit="people on the disk, killed before the acknowledgement"
        ),
        kills_before_first=metric(total["killed_before_first"], n=n, unit="killed before the first acknowledgement"),
    )
    rec = record(
        f"{n:,} enrolments killed with SIGKILL after a random time up to {args.longest} s",
        f"python benchmarks/kills.py --kills {args.kills} --seed {args.seed}",
        dict(
            name="random embeddings",
            fingerprint=fingerprint(DIM, args.seed),
            n_images=0,
            n_people=total["acknowledged"],
        ),
        metrics,
        seeds=[args.seed],
    )
    write_record(args.out, rec)
    for k, m in metrics.items():
        print(f"{k:28s} {m['value']:8,}  {m['unit']}")
    sys.exit(bool(total["lost"] or total["half_written"] or total["seen_half_written"]))
