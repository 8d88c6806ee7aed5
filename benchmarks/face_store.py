"""25,000 aligned faces as JPEG files and as one memory-mapped array: how fast it is built, opened and read in shuffled
batches. Writes results/training/face_store.json.

    python benchmarks/face_store.py [--faces 25000] [--folder DISK] [--out results/training/face_store.json]

Drawn faces of 112 x 112 pixels, 1,000 different ones under 25,000 names. Decoding all files into memory (`read_aligned`
without a store, what a training did before) takes turns with building. "Warm": the file is in the system's memory.
"Cold": it was dropped from it before every batch (as far as the system obeys). Memory is that of a fresh process.
"""
import argparse, json, os, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

from facerec_nb.faces.aligned import ALIGNED_COLUMNS, read_aligned
from facerec_nb.datasets.face_store import FaceStore, face_store
from facerec_nb.core.files import fingerprint, thread_map, write_image
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.synthetic import calm_moment, face_params, photo_params, portrait

BATCH, BATCHES = 512, 40

def face(k):
    "A drawn face, aligned near enough"
    f = face_params(k, 0)
    return portrait(f, photo_params(f, np.random.default_rng(k)) if k % 2 else calm_moment(f), size=112)[0]

def aligned(folder, n, drawn):
    "A folder as `align` leaves it"
    faces = folder/"faces_aligned"
    first = min(n, drawn)
    thread_map(lambda k: write_image(faces/f"{k:06}.jpg", face(k)), range(first))
    data = [(faces/f"{k:06}.jpg").read_bytes() for k in range(first)]
    for k in range(first, n): (faces/f"{k:06}.jpg").write_bytes(data[k % first])
    table = pd.DataFrame(dict(image_id=[f"{k:06}.jpg" for k in range(n)], identity=np.arange(n)//25,
                              class_id=np.arange(n)//25, split="train", people="seen"))
    table.assign(**{c: 1. for c in ALIGNED_COLUMNS
                    if c not in table})[ALIGNED_COLUMNS].to_csv(folder/"aligned_pred_all.csv", index=False)

def seconds(f):
    start = time.perf_counter()
    got = f()
    return time.perf_counter() - start, got

def batch_ms(n, read, before=None):
    "Milliseconds of shuffled batches of `n` faces; `before` is called before each"
    rng, took = np.random.default_rng(0), []
    for _ in range(BATCHES):
        rows = rng.permutation(n)[:BATCH]
        if before: before()
        took.append(1000*seconds(lambda rows=rows: read(rows))[0])
    return took

def drop(npy):
    "Ask the system to forget a file; pages that somebody has mapped stay"
    with open(npy, "rb") as f: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

def one(folder):
    "In a fresh process: open, read batches, print the milliseconds and the memory that is its own"
    table = pd.read_csv(folder/"aligned_pred_all.csv")
    took, store = seconds(lambda: face_store(folder/"faces_aligned", table, folder.with_name(f"{folder.name}.store")))
    def own(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon"))/1024
    before = own()
    ms = batch_ms(len(store), store.batch)
    print(json.dumps([took, ms, before, own()]))

def spread(values, unit, n=None):
    return metric(float(np.median(values)), float(min(values)), float(max(values)), n or len(values), unit)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=25_000)
    parser.add_argument("--drawn", type=int, default=1000, help="different ones")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where the files go: a disk, not memory")
    parser.add_argument("--out", default="results/training/face_store.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: return one(Path(args.one))
    with tempfile.TemporaryDirectory(dir=args.folder) as d:
        folder = Path(d)/"data-for-recognition"
        aligned(folder, args.faces, args.drawn)
        decode, build, opening, reading = [], [], [], []
        for i in range(args.repeats):
            decode.append(seconds(lambda: read_aligned(folder, store=False))[0])
            os.utime(folder/"faces_aligned/000000.jpg", ns=(i, i)) # another store has to be built
            build.append(seconds(lambda: read_aligned(folder, store=True))[0])
            reading += [seconds(lambda: read_aligned(folder, store=True))[0] for _ in range(3)]
        table = pd.read_csv(folder/"aligned_pred_all.csv")
        for _ in range(9):
            took, store = seconds(lambda: face_store(folder/"faces_aligned", table,
                                                     folder.with_name(f"{folder.name}.store")))
            opening.append(took)
        store.batch(slice(None)) # warm
        warm, fancy = batch_ms(len(store), store.batch), batch_ms(len(store), lambda rows: np.array(store.faces[rows]))
        fresh = json.loads(subprocess.run([sys.executable, __file__, "--one", str(folder)], capture_output=True,
                                          text=True, check=True).stdout)
        size, path = store.faces.nbytes, store.path  # nothing is mapped any more
        store = None
        cold = batch_ms(args.faces, lambda rows: FaceStore(np.load(path/"faces.npy", mmap_mode="r", allow_pickle=False),
                                                           table, None, path).batch(rows),
                        lambda: drop(path/"faces.npy"))
    n = args.faces
    build_rate = spread([n/s for s in build], "faces/s, table read and store built")
    decode_rate = spread([n/s for s in decode], "faces/s, table read and decoded into memory")
    shuffled = f"ms for {BATCH} shuffled faces"
    metrics = dict(
        face_store_build_rate=build_rate, face_store_decode_rate=decode_rate,
        face_store_build_ratio=spread(np.array(decode)/np.array(build), "of the rate of decoding into memory"),
        face_store_open_s=spread(opening, "s, files checked"),
        face_store_read_aligned_s=spread(reading, "s, table read and checked, store opened"),
        face_store_batch_ms=spread(warm, f"{shuffled}, warm"),
        face_store_batch_arraydata_ms=spread(fancy, f"{shuffled} by plain indexing, warm"),
        face_store_batch_cold_ms=spread(cold, f"{shuffled}, cold"),
        face_store_open_fresh_s=metric(fresh[0], n=1, unit="s, first call of a process"),
        face_store_batch_fresh_ms=spread(fresh[1], f"{shuffled}, a process that begins with no page mapped"),
        face_store_own_memory_mb=metric(fresh[3] - fresh[2], n=1, unit=f"MB more than before {BATCHES} batches, "
                                                                       "without the file's own pages"),
        face_store_mb=metric(size/1e6, n=n, unit="MB on disk"))
    rec = record(f"{n:,} aligned faces of 112 pixels as one memory-mapped array",
                 f"python benchmarks/face_store.py --faces {n}",
                 dict(name="drawn faces", fingerprint=fingerprint(n, args.drawn), n_images=n, n_people=n//25), metrics,
                 seeds=[0])
    rec["interval"] = "smallest and largest"
    rec["store"] = path.name
    write_record(args.out, rec)
    for k, m in metrics.items():
        print(f"{k:32} {m['value']:10.3f}" + (f"  [{m['low']:.3f}, {m['high']:.3f}]" if m["low"] is not None else "")
              + f" {m['unit']}")

if __name__ == "__main__": main()
