"""How fast a gallery answers, how often it is right, how long it takes to load. Writes results/pipeline/gallery.json.

    python benchmarks/gallery.py [--sizes 10000 200000 1000000] [--queries 200] [--threads 2] [--methods numpy sq8]
        [--dim 128 --common 0.889 --spread 18] [--out results/pipeline/gallery.json]
    python benchmarks/gallery.py --sizes 1000000 --dim 512 --common 0 --spread 0 --methods numpy --out
        results/pipeline/gallery_isotropic.json

Synthetic people: 2 to 60 photographs each (mean 10), 128 numbers as those of the package's recogniser. Embeddings of a
trained network do not point everywhere. Those of the default recogniser, on 300 people it was not trained on, have a
mean of length 0.889 in common; about it the variance falls like exp(-i/18) from direction to direction (16 directions
hold 55 % of it, 64 hold 97 %), and two photographs of one person have a cosine of 0.66. So have the synthetic ones,
turned at random. --common 0 --spread 0 lets them point everywhere, which is the hardest case. The question is a
further photograph of an enrolled person. For each size a gallery file is written, loaded, kept for the next start
(`Gallery.prepare`), loaded again by another process, and searched one face at a time, as `Gallery` does it; the other
methods (numpy, FAISS
flat, 8 bits with re-ranking, inverted lists, a graph) take turns with it on the same vectors in the same run, and are
stated as ratios. Recall is counted against the exact search of all references. Beside the time on the clock stands
the processor time. A million references need 2 GB of memory and of disk.
"""

import argparse, json, os, subprocess, sys, tempfile, threading, time
from pathlib import Path

import faiss
import numpy as np

from facerec_nb.core.files import fingerprint
from facerec_nb.pipeline.gallery import Gallery
from facerec_nb.pipeline.kept_index import index_path
from facerec_nb.core.records import metric, record, write_record

DIM, COSINE, COMMON = 512, 0.64, 0.0  # of `population`, where nothing else is said
K, MODEL, METHODS = 10, "synthetic people", ["numpy", "flat", "sq8", "ivf", "hnsw"]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def population(n, queries, spread, seed=0, dim=DIM, cosine=COSINE, common=COMMON):
    "References (n, dim), the person of each, one further photograph of `queries` of them, and who these are"
    rng = np.random.default_rng(seed)
    sd = np.exp(-np.arange(dim) / (2 * spread)) if spread else np.ones(dim)
    sd, turn = (
        (sd / np.sqrt((sd**2).mean())).astype(np.float32),
        np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32) if spread else None,
    )
    mean = unit(np.random.default_rng(seed + 1).standard_normal((1, dim), dtype=np.float32))
    counts = np.clip(np.rint(rng.lognormal(2.02, 0.76, n // 2)), 2, 60).astype(int)
    person = np.repeat(np.arange(len(counts)), counts)[:n]
    centre = unit(rng.standard_normal((person[-1] + 1, dim), dtype=np.float32) * sd)

    def photos(p):
        e = unit(
            cosine**0.5 * centre[p]
            + ((1 - cosine) / dim) ** 0.5 * rng.standard_normal((len(p), dim), dtype=np.float32) * sd
        )
        e = e if turn is None else e @ turn
        return unit(common * mean + (1 - common**2) ** 0.5 * e) if common else e

    refs = np.empty((n, dim), np.float32)
    for s in range(0, n, 20_000):
        refs[s : s + 20_000] = photos(person[s : s + 20_000])
    asked = rng.choice(len(centre), queries, replace=False)
    return refs, person, photos(asked), asked


def fill(path, refs, person):
    "Write the gallery file, 1,000 people a transaction"
    first = np.flatnonzero(np.r_[True, person[1:] != person[:-1]])
    last = np.r_[first[1:], len(person)]
    with Gallery(path, model=MODEL) as g:
        for s in range(0, len(first), 1000):
            g.add_many(
                (f"p{person[a]}", refs[a:b], [f"p{person[a]}/{i}.jpg" for i in range(b - a)])
                for a, b in zip(first[s : s + 1000], last[s : s + 1000])
            )


def exact(refs, asked, person, k):
    "The k nearest references of each question, and the k people whose mean reference is nearest"
    rows, many = [], 100 * k
    top = [(np.empty(0, np.float32), np.empty(0, np.int64))] * len(asked)
    for s in range(0, len(refs), 50_000):
        part = asked @ refs[s : s + 50_000].T
        for i, row in enumerate(part):
            c = np.argpartition(-row, min(many, len(row) - 1))[:many]
            v, r = np.r_[top[i][0], row[c]], np.r_[top[i][1], c + s]
            o = np.argsort(-v)[:many]
            top[i] = v[o], r[o]
    for _, r in top: rows.append(r[:k])
    first = np.flatnonzero(np.r_[True, person[1:] != person[:-1]])
    near = asked @ unit(np.add.reduceat(refs, first)).T
    return rows, [person[first[np.argsort(-s)[:k]]].tolist() for s in near]


def share(found, want):
    return float(np.mean([len(set(map(int, f)) & set(map(int, w))) / len(w) for f, w in zip(found, want)]))


def clocks(f, asked):
    "Milliseconds on the clock and of the processor for each question, and the answers"
    out, times = [], []
    for q in asked:
        wall, cpu = time.perf_counter(), time.process_time()
        out.append(f(q[None]))
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return np.array(times) * 1e3, out


def rerank(index, refs, candidates):
    "Search of another faiss index with exact cosines of its candidates"

    def f(q):
        c = index.search(q, candidates)[1][0]
        c = c[c >= 0]
        s = refs[c] @ q[0]
        o = np.argsort(-s)[:K]
        return c[o]

    return f


def others(refs, wanted):
    "Name, search and seconds to build of each method to compare with"
    cells = int(len(refs) ** 0.5)

    def made(spec, **params):
        start = time.perf_counter()
        index = faiss.index_factory(refs.shape[1], spec, faiss.METRIC_INNER_PRODUCT)
        index.train(refs[np.random.default_rng(0).choice(len(refs), min(len(refs), 40 * cells), replace=False)])
        index.add(refs)
        for k, v in params.items():
            faiss.ParameterSpace().set_index_parameter(index, k, v)
        return index, time.perf_counter() - start

    def numpy_search(q):
        s = refs @ q[0]
        c = np.argpartition(-s, K)[:K]
        return c[np.argsort(-s[c])]

    flat = lambda q: faiss.knn(q, refs, K, metric=faiss.METRIC_INNER_PRODUCT)[1][0]
    specs = dict(sq8=("SQ8", {}), ivf=(f"IVF{cells},SQ8", dict(nprobe=64)), hnsw=("HNSW16,SQ8", dict(efSearch=256)))
    for name in wanted:
        if name in specs:
            index, s = made(specs[name][0], **specs[name][1])
            yield name, rerank(index, refs, 50), s
            del index
        else:
            yield name, dict(numpy=numpy_search, flat=flat)[name], 0.0


def resident():
    "Memory of this process in GB: now, and at most"
    text = (
        dict(l.split(":", 1) for l in Path("/proc/self/status").read_text().splitlines() if ":" in l)
        if Path("/proc/self/status").exists()
        else {}
    )
    return tuple(int(text[k].split()[0]) / 1e6 if k in text else None for k in ("VmRSS", "VmHWM"))


def load_alone(path, asked, threads, again):
    "Load, build and search in a process of its own, and keep it for the next start, or start so; prints a line of JSON"
    faiss.omp_set_num_threads(threads)
    q = np.load(asked)
    before = resident()[0] or 0
    start, cpu = time.perf_counter(), time.process_time()
    g = Gallery(path, MODEL, exact=None if again else 10**12)
    g.search(q[:1])
    took = dict(load=(time.perf_counter() - start, time.process_time() - cpu))
    near = g.index
    near.exact = 200_000
    if again:
        assert near.coded == len(near) or len(near) <= near.exact, "the kept file was not used"
    else:
        start, cpu = time.perf_counter(), time.process_time()
        if len(near) > near.exact:
            near.build()
        took["build"] = time.perf_counter() - start, time.process_time() - cpu
        start = time.perf_counter()
        g.prepare()
        took["keep"] = time.perf_counter() - start
    now, most = resident()
    print(json.dumps(dict(took, memory=now and now - before, peak=most and most - before)))


def alone(path, folder, threads, *again):
    "What load_alone says"
    args = [sys.executable, __file__, "--alone", str(path), str(Path(folder) / "asked.npy"), "--threads", str(threads)]
    env = dict(os.environ, OMP_NUM_THREADS=str(threads))
    return json.loads(subprocess.run([*args, *again], env=env, stdout=subprocess.PIPE, text=True, check=True).stdout)


def while_adding(g, asked, seconds=3.0):
    "Milliseconds a search while another thread adds a person every 10 ms, and how many were added"
    stop, added, rng, times = threading.Event(), [], np.random.default_rng(1), []

    def adder():
        while not stop.wait(0.01):
            g.add(f"new {len(added)}", unit(rng.standard_normal((3, asked.shape[1])).astype(np.float32)))
            added.append(1)

    t = threading.Thread(target=adder)
    t.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        times.append(clocks(lambda v: g.search(v, K), asked[:1])[0][0, 0])
    stop.set()
    t.join()
    assert g.search(asked[:1], 1) and len(added) > 0
    return np.array(times), len(added)


def quantiles(v):
    return dict(
        value=float(np.median(v)), low=float(np.percentile(v, 2.5)), high=float(np.percentile(v, 97.5)), n=len(v)
    )


def one_size(n, args, folder):
    "All metrics of one size"
    tag = {10**6: "1m"}.get(n, f"{n // 1000}k")
    out, rows = {}, {}
    refs, person, asked, _ = population(
        n, args.queries, args.spread, dim=args.dim, cosine=args.cosine, common=args.common
    )
    path = Path(folder) / f"{tag}.db"
    start = time.perf_counter()
    fill(path, refs, person)
    wrote = time.perf_counter() - start
    np.save(Path(folder) / "asked.npy", asked)
    first, again = alone(path, folder, args.threads), alone(path, folder, args.threads, "--again")
    size = (path.stat().st_size, index_path(path).stat().st_size if index_path(path).exists() else 0)
    want, people = exact(refs, asked, person, K)
    with Gallery(path, MODEL, exact=10**12) as g:
        g.search(asked[:1])
        near = g.index
        near.exact = 200_000
        del refs
        refs = near.vectors[:n]  # one copy of the vectors serves all methods
        if n > near.exact:
            near.build()
        own = lambda q: near.search(q, K)
        clocks(own, asked[:20])
        ours, answers = clocks(own, asked)
        found = [a[1][0] for a in answers]
        cosine_error = max(float(np.abs(s[0] - refs[r[0]] @ q).max()) for (s, r), q in zip(answers, asked))
        top = g.search(asked, K)
        named = [[int(m.name[1:]) for m in t] for t in top]
        whole, _ = clocks(lambda q: g.search(q, K), asked)
        for name, f, built in others(refs, [m for m in args.methods if m != "hnsw" or n <= 200_000]):
            clocks(f, asked[:3])
            few = asked[: args.turns]
            ratios, cpu = [], []
            for _ in range(3):  # side by side: ours, the other, ours, the other ...
                a, (b, r) = clocks(own, few)[0], clocks(f, few)
                ratios.append(np.median(b, 0) / np.median(a, 0))
                cpu.append(b)
            rows[name] = dict(
                ms=float(np.median(np.concatenate(cpu)[:, 0])),
                cpu_ms=float(np.median(np.concatenate(cpu)[:, 1])),
                ratio=[float(x[0]) for x in ratios],
                cpu_ratio=[float(x[1]) for x in ratios],
                recall=share(r, want),
                build_s=built,
            )
            m = np.median([x[1] for x in ratios])
            out[f"gallery_{tag}_over_{name}"] = metric(
                float(m),
                float(min(x[1] for x in ratios)),
                float(max(x[1] for x in ratios)),
                len(ratios),
                "times as much processor time as Nearest",
            )
        adding, added = while_adding(g, asked)
    out |= {
        f"gallery_{tag}_ms": dict(
            quantiles(ours[:, 0]), unit=f"ms a face on the clock, {args.threads} threads, median and 95 % of the faces"
        ),
        f"gallery_{tag}_cpu_ms": dict(quantiles(ours[:, 1]), unit="ms of processor time a face"),
        f"gallery_{tag}_people_ms": dict(
            quantiles(whole[:, 0]), unit="ms a face for ten people with names and sources"
        ),
        f"gallery_{tag}_recall": metric(
            share(found, want), n=args.queries * K, unit="share of the ten nearest references"
        ),
        f"gallery_{tag}_first_recall": metric(
            float(np.mean([n[0] == p[0] for n, p in zip(named, people)])),
            n=args.queries,
            unit="share of questions: the person whose mean reference is nearest comes first",
        ),
        f"gallery_{tag}_people_recall": metric(
            share(named, people), n=args.queries * K, unit="share of the ten nearest people"
        ),
        f"gallery_{tag}_cosine_error": metric(
            cosine_error, n=args.queries * K, unit="largest difference to the cosine"
        ),
        f"gallery_{tag}_load_s": metric(first["load"][0], n=1, unit="s to read the file"),
        f"gallery_{tag}_load_seconds": metric(
            again["load"][0], n=1, unit="s to the first answer of a process that starts with what was kept"
        ),
        f"gallery_{tag}_load_seconds_before": metric(
            first["load"][0] + first["build"][0], n=1, unit="s to read the file and to build the first stage"
        ),
        f"gallery_{tag}_keep_s": metric(first["keep"], n=1, unit="s to write what is kept"),
        f"gallery_{tag}_kept_gb": metric(size[1] / 1e9, n=1, unit="GB on the disk beside the gallery's file"),
        f"gallery_{tag}_load_cpu_s": metric(first["load"][1], n=1, unit="s of processor time"),
        f"gallery_{tag}_build_s": metric(first["build"][0], n=1, unit="s to build the first stage, in the background"),
        f"gallery_{tag}_build_cpu_s": metric(first["build"][1], n=1, unit="s of processor time"),
        f"gallery_{tag}_memory_gb": metric(first["memory"], n=1, unit="GB with everything loaded"),
        f"gallery_{tag}_peak_gb": metric(first["peak"], n=1, unit="GB at most while loading and building"),
        f"gallery_{tag}_file_gb": metric(size[0] / 1e9, n=1, unit="GB on the disk"),
        f"gallery_{tag}_write_s": metric(wrote, n=1, unit="s to write the file"),
        f"gallery_{tag}_adding_ms": dict(quantiles(adding), unit=f"ms a face while {added} people are added in 3 s"),
    }
    for p in Path(folder).glob(f"{tag}.db*"):
        p.unlink()
    return out, dict(references=n, people=int(person[-1]) + 1, photos_mean=n / (int(person[-1]) + 1), methods=rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 200_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--turns", type=int, default=30, help="faces in each turn of a comparison")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--methods",
        nargs="*",
        choices=METHODS,
        default=METHODS,
        help="what to compare with; the graph up to 200,000 only, it takes long to build",
    )
    parser.add_argument(
        "--spread", type=float, default=18.0, help="how fast the variance of the directions falls; 0: not at all"
    )
    parser.add_argument("--dim", type=int, default=128, help="numbers in an embedding")
    parser.add_argument("--common", type=float, default=0.889, help="length of the mean of all embeddings")
    parser.add_argument("--cosine", type=float, default=0.66, help="of two photographs of a person, about that mean")
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help="where the gallery files go")
    parser.add_argument("--out", default="results/pipeline/gallery.json")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        load_alone(*args.alone, args.threads, args.again)
        sys.exit()
    faiss.omp_set_num_threads(args.threads)
    metrics, sizes = {}, []
    for n in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            got, row = one_size(n, args, folder)
        metrics |= got
        sizes.append(row)
        for k, m in got.items():
            print(f"{k:32s} {m['value']:.4g}  [{m['low']}, {m['high']}]  {m['unit']}", flush=True)
        for k, r in row["methods"].items():
            print(
                f"  {k:8s} {r['ms']:8.2f} ms  {r['cpu_ms']:8.2f} cpu ms  recall {r['recall']:.3f}  "
                f"built in {r['build_s']:.1f} s",
                flush=True,
            )
    rec = record(
        f"search of synthetic galleries, {args.threads} threads, one face at a time",
        f"python benchmarks/gallery.py --sizes {' '.join(map(str, args.sizes))} --queries {args.queries} "
        f"--threads {args.threads} --dim {args.dim} --common {args.common:g} --cosine {args.cosine:g} "
        f"--spread {args.spread:g}"
        + ("" if args.methods == METHODS else f" --methods {' '.join(args.methods)}"),
        dict(
            name=f"synthetic people, {args.dim} numbers",
            fingerprint=fingerprint(args.sizes, args.dim, args.cosine, args.common, args.spread),
            n_images=max(args.sizes),
            n_people=sizes[-1]["people"],
        ),
        metrics,
        curves=dict(sizes=sizes, spread=args.spread, candidates=1000, exact_to=200_000),
        seeds=[0],
    )
    write_record(args.out, rec)
