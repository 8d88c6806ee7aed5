"""The package's recogniser with 8-bit convolutions: what it loses here, and on a processor without AVX-512 and VNNI.

Writes results/pipeline/processors.json.

    python benchmarks/processors.py [--faces runs/recognition/faces-150] [--data ../shared/data] [--emulated 24]

Three files: in 32 bits, with 8-bit weights everywhere, and with 7-bit weights as `quantise_onnx` writes them. The
scales come from training people of the study; asked are 300 other people of CelebA (whom the network's author may
have used) and LFW View 1 (whose people he left out). The other processor is played by an emulator, qemu-user (Debian:
apt-get install qemu-user). It runs every instruction as a Haswell would: ONNX Runtime then takes the kernels that it
takes there. It has no fast floating point, so only the 8-bit files go through it; the reference is float32 here.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.metrics import auc, pair_scores
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.engines.dlib_onnx import export_dlib, read_shipped
from facerec_nb.engines.onnx_embedder import OnnxEmbedder
from facerec_nb.engines.onnx_files import onnx_session
from facerec_nb.engines.quantise import eight_bits, quantise_onnx
from facerec_nb.evaluation.verification import PairCurve, people_weights
from studies.recognition import Study
from studies.recognition_faces import read_faces

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


def times(files, pixels):
    "Milliseconds per face of every file, and how many times as long 32 bits take, round by round"
    took = milliseconds(files, pixels)
    took["ratio_float_seven"], took["ratio_seven_full"] = took["float"]/took["seven"], took["seven"]/took["full"]
    units = dict.fromkeys(("ratio_float_seven", "ratio_seven_full"), "ratio of processor times, in turns")
    return {f"ms_{k}": metric(float(np.median(t)), *np.quantile(t, [.025, .975]).tolist(), n=len(t),
                              unit=units.get(k, "ms of processor time per face, 1 thread")) for k, t in took.items()}


def make_files(study, tmp, n=512):
    "The three files; their scales come from faces of training people"
    faces = study.part("train")[1]
    faces = np.stack([faces[k] for k in np.sort(np.random.default_rng(0).permutation(len(faces))[:2*n])])
    export_dlib(tmp/"float.onnx", shipped=read_shipped())
    quantise_onnx(tmp/"float.onnx", faces, tmp/"seven.onnx")
    x = np.ascontiguousarray(faces[::2].transpose(0, 3, 1, 2), np.float32)
    onnx.save(eight_bits(tmp/"float.onnx", x, full_range=True), tmp/"full.onnx")
    return {k: tmp/f"{k}.onnx" for k in ("float", "full", "seven")}


def exam(study, path):
    "Numbers and embeddings of one file, without mirror images, on 300 people of CelebA and on LFW View 1"
    net = OnnxEmbedder(path, 1)
    (rows, faces), (_, lfw) = study.part("unseen"), study.part("lfw")
    emb, ids = net.embed(faces, flip=False), rows.identity.to_numpy()
    genuine, impostor = pair_scores(emb, ids)
    accepted = float((genuine > np.quantile(impostor, 0.999)).mean())
    out = dict(auc=metric(auc(genuine, impostor), n=len(genuine) + len(impostor), unit="AUC"),
               tar_at_far001=metric(accepted, n=len(genuine), unit="share"),
               bytes=metric(Path(path).stat().st_size, unit="bytes"))
    return out | study.lfw(net.embed(lfw, flip=False))[0], emb, ids


def exams(study, files):
    "Numbers of 32 bits and of 7-bit weights, and the difference of their AUC with its interval over people"
    out, draws = {}, {}
    for name in ("float", "seven"):
        got, emb, ids = exam(study, files[name])
        out |= {f"{k}_{name}": m for k, m in got.items()}
        curve = PairCurve(emb, np.unique(ids, return_inverse=True)[1])
        draws[name] = np.array([curve.values(w)["auc"] for w in people_weights(len(np.unique(ids)), 200, 0)])
    low, high = np.quantile(draws["seven"] - draws["float"], [0.025, 0.975]).tolist()
    value = out["auc_seven"]["value"] - out["auc_float"]["value"]
    unit = "difference of AUC, people drawn together"
    gap = metric(value, min(low, value), max(high, value), n=out["auc_seven"]["n"], unit=unit)
    return out | dict(auc_seven_minus_float=gap)


def measure(study, n, emulated, tmp):
    "All numbers of the record"
    files = make_files(study, tmp)
    faces = study.part("unseen")[1]
    asked = np.sort(np.random.default_rng(0).permutation(len(faces))[:n])
    pixels = np.ascontiguousarray(np.stack([faces[k] for k in asked]).transpose(0, 3, 1, 2), np.float32)
    here, out = embeddings(files, pixels, tmp), times(files, pixels) | exams(study, files)
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
    parser.add_argument("--faces", default="runs/recognition/faces-150", type=Path)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--n", default=600, type=int)
    parser.add_argument("--emulated", default=24, type=int)
    args = parser.parse_args()
    study = Study(*read_faces(args.faces), args.faces.parent, raw=args.data)
    with tempfile.TemporaryDirectory() as tmp: out = measure(study, args.n, args.emulated, Path(tmp))
    about = dict(flags=flags(), machine=platform.machine(), emulator=" ".join(EMULATOR))
    key = json.loads((args.faces/"faces.json").read_text())["key"]
    data = dict(name="celeba-aligned-3000x5, 300 people who set no scale, and lfw-view1-devtest", n_people=300,
                n_images=len(study.part("unseen")[0]), fingerprint=key)
    what = "The public-domain network in 32 bits, with 8-bit and with 7-bit weights, with and without VNNI"
    write_record("results/pipeline/processors.json", record(what, "python benchmarks/processors.py", data, out, about))
    for k, v in out.items(): print(f"{k:36s} {v['value']:.4f}")
