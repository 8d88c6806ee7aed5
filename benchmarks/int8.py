"""The recogniser of the package in 8 bits, against 32 bits. Writes results/recognition/int8.json.

    python benchmarks/int8.py [--embedder NAME] [--data ../shared/data] [--runs runs] [--boot 200]

The scales of the 8-bit form are those that ship_faces.py measured on training people. Asked are the 48 calibration
people, the 300 held-out people and LFW View 1 (`studies.tuning_exam`), aligned by the package's points, without mirror
images, as the pipeline asks at its fast setting. Differences are paired, intervals drawn over people. Times: processor
time of one thread, one face at a time, both forms in turns.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.processors import milliseconds
from facerec_nb.core.files import fingerprint
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.engines.dlib_onnx import DEFAULT, SHIPPED, export_dlib, read_shipped
from facerec_nb.engines.onnx_embedder import OnnxEmbedder
from facerec_nb.faces.landmarks import LandmarkModel
from studies.recognition_faces import align_all, sources
from studies.tuning_exam import against, open_exam

ASKED = ("dir_1", "dir_3", "dir_5", "rank1_1", "rank1_3", "rank1_5", "calibration_tar0.001", "unseen_tar0.001",
         "lfw_accuracy", "lfw_tar0.001", "pose_tar0.01")


def make_files(name, tmp):
    "Both forms: name -> file"
    shipped, out = read_shipped(name), {k: tmp/f"{k}.onnx" for k in ("float", "int8")}
    export_dlib(out["float"], name, shipped)
    export_dlib(out["int8"], name, shipped, eight=True)
    return out


def differences(numbers):
    "Values of every form, and what 8 bits lose"
    out = {}
    for name, d in numbers.items():
        gap = against(d, numbers["float"]).loc[list(ASKED)]
        for k, r in gap.iterrows():
            low, high = d[k].iloc[1:].quantile([.025, .975])
            out[f"{k}_{name}"] = metric(r.value, min(low, r.value), max(high, r.value), unit="share")
            if name == "float": continue
            out[f"{k}_{name}_minus_float"] = metric(r.difference, min(r.low, r.difference), max(r.high, r.difference),
                                                    unit="difference, people drawn together")
    return out


def times(files, faces):
    "Milliseconds per face, and how many times as long 32 bits take"
    took = milliseconds(files, np.ascontiguousarray(faces.transpose(0, 3, 1, 2), np.float32))
    took["ratio_float_int8"] = took["float"]/took["int8"]
    return {f"ms_{k}": metric(float(np.median(t)), *np.quantile(t, [.025, .975]).tolist(), n=len(t),
                              unit="ratio, in turns" if "ratio" in k else "ms of processor time per face, 1 thread")
            for k, t in took.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--embedder", default=DEFAULT, choices=list(SHIPPED))
    say("--data", default="../shared/data", type=Path)
    say("--runs", default="runs", type=Path, help="aligned faces are kept here")
    say("--boot", type=int, default=200, help="bootstrap draws over people")
    say("--out", default="results/recognition/int8.json")
    args = parser.parse_args()
    rows, folder = sources(args.data, more=True), args.runs/"faces-dlib_close"
    table, faces = align_all(rows, LandmarkModel.load("big"), folder, 150, name="dlib_close")
    exam = open_exam(table, faces, args.data, n_boot=args.boot)
    plain = {k: exam.sets[k] for k in exam.rows}
    with tempfile.TemporaryDirectory() as tmp:
        files = make_files(args.embedder, Path(tmp))
        nets = {k: OnnxEmbedder(f, 1) for k, f in files.items()}
        emb = {k: {s: net.embed(x, flip=False) for s, x in plain.items()} for k, net in nets.items()}
        out = times(files, plain["unseen"][:20])
        out |= {f"bytes_{k}": metric(f.stat().st_size, unit="bytes") for k, f in files.items()}
    c = np.concatenate([(emb["int8"][s]*emb["float"][s]).sum(1) for s in plain])
    out |= {f"{k}_cosine": metric(float(v), n=len(c), unit="cosine with 32 bits")
            for k, v in dict(mean=c.mean(), lowest=c.min()).items()}
    out |= differences({k: exam.numbers(e) for k, e in emb.items()})
    data = dict(name="celeba-wild-60x30 (48 people), celeba-aligned-3000x5 (300 people), lfw-view1-devtest",
                n_people=int(sum(w.max() + 1 for w in exam.who.values())), fingerprint=fingerprint(table.to_csv()),
                n_images=int(sum(len(v) for v in exam.rows.values())))
    what = f"The recogniser {args.embedder} in 8 bits, against 32 bits"
    write_record(args.out, record(what, f"python benchmarks/int8.py --embedder {args.embedder}", data, out))
    for k, v in out.items(): print(f"{k:40s} {show_metric(v, 4)}")
