"""The recogniser of the package in 8 and in 32 bits, with and without mirror images: what may the default leave out?
Writes results/recognition/int8.json.

    python benchmarks/int8.py [--embedder NAME] [--data ../shared/data] [--runs runs] [--boot 200]

The scales of the 8-bit form are those that ship_faces.py measured on training people. Asked are the 48 calibration
people, the 300 held-out people and LFW View 1 (`studies.tuning_exam`), aligned by the package's points. Differences are
paired, intervals drawn over people: 8 against 32 bits without mirror images, and every form against 32 bits with them.
Times: processor time of one thread, one face at a time, both networks in turns.
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


FORMS = dict(float=("float", False), int8=("int8", False), float_mirror=("float", True), int8_mirror=("int8", True))
AGAINST = [("int8", "float"), ("int8", "float_mirror"), ("int8_mirror", "float_mirror"), ("float", "float_mirror")]


def embeddings(files, sets):
    "What every form makes of the faces: form -> set -> (N, D)"
    nets = {k: OnnxEmbedder(f, 1) for k, f in files.items()}
    return {form: {s: nets[net].embed(x, flip=flip) for s, x in sets.items()} for form, (net, flip) in FORMS.items()}


def told(value, draws, unit):
    "A number with its interval"
    low, high = np.quantile(draws, [.025, .975])
    return metric(float(value), float(min(low, value)), float(max(high, value)), unit=unit)


def differences(numbers):
    "Values of every form, and what one loses against another"
    out = {f"{k}_{name}": told(d[k].iloc[0], d[k].iloc[1:], "share") for name, d in numbers.items() for k in ASKED}
    for one, other in AGAINST:
        for k, r in against(numbers[one], numbers[other]).loc[list(ASKED)].iterrows():
            out[f"{k}_{one}_minus_{other}"] = told(r.difference, [r.low, r.high], "difference, people drawn together")
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
    say("--out", help="the record; of another recogniser than the default its name is added")
    args = parser.parse_args()
    rows, folder = sources(args.data), args.runs/"few-dlib_close"
    rows = rows[rows.role.isin(["calibration", "unseen", "lfw"])]
    table, faces = align_all(rows, LandmarkModel.load("big"), folder, 150, name="dlib_close")
    exam = open_exam(table, faces, args.data, n_boot=args.boot)
    plain = {k: exam.sets[k] for k in exam.rows}
    with tempfile.TemporaryDirectory() as tmp:
        files = make_files(args.embedder, Path(tmp))
        emb = embeddings(files, plain)
        out = times(files, plain["unseen"][:20])
        out |= {f"bytes_{k}": metric(f.stat().st_size, unit="bytes") for k, f in files.items()}
    c = np.concatenate([(emb["int8"][s]*emb["float"][s]).sum(1) for s in plain])
    out |= {f"{k}_cosine": metric(float(v), n=len(c), unit="cosine with 32 bits")
            for k, v in dict(mean=c.mean(), lowest=c.min()).items()}
    out |= differences({k: exam.numbers(e) for k, e in emb.items()})
    data = dict(name="celeba-wild-60x30 (48 people), celeba-aligned-3000x5 (300 people), lfw-view1-devtest",
                n_people=int(sum(w.max() + 1 for w in exam.who.values())), fingerprint=fingerprint(table.to_csv()),
                n_images=int(sum(len(v) for v in exam.rows.values())))
    what = f"The recogniser {args.embedder} in 8 and in 32 bits, with and without mirror images"
    path = "int8" if args.embedder == DEFAULT else f"int8_{args.embedder}"
    write_record(args.out or f"results/recognition/{path}.json",
                 record(what, f"python benchmarks/int8.py --embedder {args.embedder}", data, out))
    for k, v in out.items(): print(f"{k:40s} {show_metric(v, 4)}")
