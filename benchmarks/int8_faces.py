"""What 8-bit convolutions cost and save on the default recogniser. Writes results/recognition/int8_faces.json.

    python benchmarks/int8_faces.py [--faces runs/recognition/faces-150] [--data ../shared/data]

The exam of `studies.tuning_exam` on the calibration people, the held-out people and LFW View 1, the same faces through
both files, with the mirrored face; times of both in turns, one thread. The scales come from 400 training faces.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.engines.dlib_onnx import export_dlib
from facerec_nb.engines.onnx_embedder import OnnxEmbedder
from facerec_nb.engines.quantise import largest_pair, quantise_onnx
from studies.recognition_faces import read_faces
from studies.tuning_exam import against, open_exam, plain_parts

SHOWN = ("dir_1", "dir_3", "dir_5", "rank1_1", "rank1_3", "rank1_5", "lfw_accuracy", "lfw_tar0.001",
         "unseen_tar0.001", "calibration_tar0.001")


def milliseconds(nets, faces, batch, repeats=60):
    "Processor time of a face for each network, in turns, one thread"
    took = {name: [] for name in nets}
    for k in range(repeats):
        part = faces[k*batch % 400:][:batch]
        for name, net in nets.items():
            start = time.process_time()
            net.embed(part, flip=False)
            took[name].append((time.process_time() - start)*1e3/batch)
    unit = f"ms of processor time per face, 1 thread, {batch} at once, no mirror image"
    def one(v): return metric(float(np.median(v)), *np.quantile(v, [.025, .975]).tolist(), n=repeats, unit=unit)
    return {name: one(v[5:]) for name, v in took.items()}


def spread(table, unit):
    "Differences as metrics"
    return {name: metric(r.difference, min(r.low, r.difference), max(r.high, r.difference), unit=unit)
            for name, r in table.iterrows()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", default="runs/recognition/faces-150", help="folder of the aligned faces")
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--boot", type=int, default=200, help="bootstrap draws over people")
    args = parser.parse_args()
    table, faces = read_faces(args.faces)
    exam = open_exam(table, faces, args.data, n_boot=args.boot)
    train = table.row[table.role == "train"].to_numpy()
    some = faces[np.sort(np.random.default_rng(0).permutation(train)[:800])]
    with tempfile.TemporaryDirectory() as tmp:
        full, eight = export_dlib(Path(tmp)/"full.onnx"), Path(tmp)/"int8.onnx"
        start = time.perf_counter()
        said = quantise_onnx(full, some, eight)
        said = dict(said, path="int8.onnx", seconds=round(time.perf_counter() - start, 1))
        nets = dict(fp32=OnnxEmbedder(full, 1), int8=OnnxEmbedder(eight, 1))
        ms = {f"ms_{n}_{b}": v for b in (1, 16) for n, v in milliseconds(nets, some, b).items()}
        numbers = {n: exam.numbers(plain_parts(exam, net.embed)) for n, net in nets.items()}
        sizes = {f"bytes_{n}": metric(p.stat().st_size, unit="bytes") for n, p in dict(fp32=full, int8=eight).items()}
        said["largest_pair"] = largest_pair(eight)
    gap = against(numbers["int8"], numbers["fp32"])
    out = {f"{k}_{n}": metric(float(d[k].iloc[0]), unit="share") for n, d in numbers.items() for k in SHOWN}
    out |= {f"{k}_int8_minus_fp32": v for k, v in spread(gap, "difference, people drawn together").items()}
    out |= ms | sizes
    data = dict(name="celeba-wild-60x30 (48), celeba-aligned-3000x5 (300), lfw-view1-devtest", n_people=48 + 300)
    what = "The public-domain recogniser with 8-bit convolutions (seven-bit weights) against 32 bits, the same faces"
    write_record("results/recognition/int8_faces.json",
                 record(what, "python benchmarks/int8_faces.py", data, out, dict(quantised=said)))
    for k, v in out.items(): print(f"{k:40s} {show_metric(v, 4)}")
