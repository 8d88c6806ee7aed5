"""The embedder's 8-bit file on this processor and on one without AVX-512 and VNNI, which an emulator plays.

Writes results/pipeline/processors.json.

    python benchmarks/processors.py [--faces runs/recognition/faces-112] [--n 600] [--emulated 24]

The emulator is qemu-user (Debian: apt-get install qemu-user). It runs every instruction as a Haswell would: ONNX
Runtime then takes the kernels that it takes there. It has no fast floating point (51 s for a face in float32), so
only the 8-bit files go through it. The faces are of people who set no scale; the reference is float32 here.
"""
import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from facerec_nb.models.checkpoint import packaged
from facerec_nb.engines.onnx_export import export_onnx
from facerec_nb.engines.onnx_files import onnx_session
from facerec_nb.engines.quantise import eight_bits
from studies.recognition_faces import read_faces
from facerec_nb.core.records import metric, record, write_record

EMULATOR = ["qemu-x86_64", "-cpu", "Haswell"]
CHILD = """
import sys, numpy as np, onnxruntime as ort
faces, out, *files = sys.argv[1:]
options = ort.SessionOptions(); options.intra_op_num_threads, options.log_severity_level = 1, 4
x = np.load(faces)
def embed(file):
    net = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return np.concatenate([net.run(["embedding"], dict(pixels=x[i:i + 1]))[0] for i in range(len(x))])
np.savez(out, *[embed(f) for f in files])
"""


def embeddings(files, pixels, folder, emulator=()):
    "Embeddings of all files, each by its own process: name -> (N, D)"
    np.save(folder/"faces.npy", pixels)
    command = [*emulator, sys.executable, "-c", CHILD, folder/"faces.npy", folder/"out.npz", *files.values()]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    with np.load(folder/"out.npz") as got: return dict(zip(files, [got[k] for k in got]))


def milliseconds(files, pixels, rounds=15, faces=20):
    "Processor time of a face on one thread, the files in turns: name -> (rounds,)"
    nets, took = {k: onnx_session(Path(f).read_bytes(), 1) for k, f in files.items()}, {k: [] for k in files}
    for _ in range(rounds):
        for name, net in nets.items():
            start = time.process_time()
            for i in range(faces): net.run(["embedding"], dict(pixels=pixels[i:i + 1]))
            took[name].append((time.process_time() - start)/faces*1e3)
    return {k: np.array(v) for k, v in took.items()}


def cosines(one, two, name, unit):
    "Mean and lowest cosine of two sets of embeddings, as metrics"
    c = (one*two).sum(1)
    low, high = np.quantile([np.random.default_rng(s).choice(c, len(c)).mean() for s in range(500)], [0.025, 0.975])
    return {f"mean_cosine_{name}": metric(float(c.mean()), float(low), float(high), n=len(c), unit=unit),
            f"lowest_cosine_{name}": metric(float(c.min()), n=len(c), unit=unit)}


def flags():
    "What the processor says it can do with bytes"
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "amx_bf16")
    info = Path("/proc/cpuinfo")
    words = info.read_text().split() if info.exists() else []
    return [k for k in known if k in words]


def choose(folder, n):
    "Faces of people who set no scale, faces for the scales, and what to say about the first: arrays (N, 3, 112, 112)"
    table, faces = read_faces(folder)
    pick = np.random.default_rng(0).permutation
    train, unseen = (table.row[table.role == role].to_numpy() for role in ("train", "unseen"))
    asked, scaled = np.sort(pick(unseen)[:n]), np.sort(pick(train)[:1024])[::2]
    pixels = [np.ascontiguousarray(faces[k].transpose(0, 3, 1, 2), np.float32) for k in (asked, scaled)]
    data = dict(name="celeba-aligned-3000x5, people who set no scale", n_images=len(asked),
                n_people=int(table[table.row.isin(asked)].identity.nunique()),
                fingerprint=json.loads((folder/"faces.json").read_text())["key"])
    return *pixels, data


def times(files, pixels):
    "Milliseconds per face of every file, and the ratio of seven to eight bits, round by round"
    took = milliseconds(files, pixels)
    took["ratio_shipped_full"] = took["shipped"]/took["full"]
    units = dict(ratio_shipped_full="ratio of processor times, in turns")
    return {f"ms_{k}": metric(float(np.median(t)), *np.quantile(t, [.025, .975]).tolist(), n=len(t),
                              unit=units.get(k, "ms of processor time per face, 1 thread")) for k, t in took.items()}


def measure(pixels, scales, emulated, tmp):
    "All numbers of the record"
    export_onnx(packaged("embedder_small"), tmp/"float.onnx")
    onnx.save(eight_bits(tmp/"float.onnx", scales, full_range=True), tmp/"full.onnx")
    files = dict(float=tmp/"float.onnx", full=tmp/"full.onnx", shipped=packaged("embedder_small").with_suffix(".onnx"))
    here, out = embeddings(files, pixels, tmp), times(files, pixels)
    for name, e in here.items():
        out |= cosines(here["float"], e, f"{name}_native", "cosine with float32 on this processor")
    if not shutil.which(EMULATOR[0]):
        print(f"{EMULATOR[0]} is not installed: only this processor is measured")
        return out
    unit = "cosine of an emulated Haswell's embedding with float32 on this processor"
    del files["float"]
    for name, e in embeddings(files, pixels[:emulated], tmp, EMULATOR).items():
        out |= cosines(here["float"][:emulated], e, f"{name}_haswell", unit)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", default="runs/recognition/faces-112", type=Path)
    parser.add_argument("--n", default=600, type=int)
    parser.add_argument("--emulated", default=24, type=int)
    args = parser.parse_args()
    pixels, scales, data = choose(args.faces, args.n)
    with tempfile.TemporaryDirectory() as tmp: out = measure(pixels, scales, args.emulated, Path(tmp))
    about = dict(flags=flags(), machine=platform.machine(), emulator=" ".join(EMULATOR))
    what = "The embedder's file with eight bits everywhere, and as shipped (7-bit weights), with and without VNNI"
    write_record("results/pipeline/processors.json", record(what, "python benchmarks/processors.py", data, out, about))
    for k, v in out.items(): print(f"{k:36s} {v['value']:.4f}")
