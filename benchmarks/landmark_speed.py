"""Milliseconds per face on one CPU thread: the course's network beside ours, PyTorch beside ONNX Runtime, in one run.
Writes results/landmarks/speed.json and summary.json.

    python benchmarks/landmark_speed.py [--runs runs/landmarks] [--faces 64]

Crops in, points out, everything included that a model does with a crop: mirror image and second pass where the recipe
has them. Run after benchmarks/landmarks.py.
"""

import argparse, tempfile, time
from pathlib import Path

import numpy as np
import torch

from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.core.files import read_json
from facerec_nb.engines.onnx_export import export_onnx
from facerec_nb.engines.onnx_landmarks import OnnxLandmarks
from facerec_nb.core.records import metric, record, write_record


def ms(model, crops, batch, repeat=7):
    "Median and range of the milliseconds per face"
    model.predict(crops[:batch], batch_size=batch)
    took = []
    for _ in range(repeat):
        start = time.perf_counter()
        model.predict(crops, batch_size=batch)
        took.append(1000 * (time.perf_counter() - start) / len(crops))
    return metric(float(np.median(took)), min(took), max(took), n=len(crops) * repeat, unit="ms per face")


def measure(args):
    "Milliseconds of the three networks, in both engines"
    rng, numbers = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as tmp:
        for name in ("course", "big", "small"):
            model = LandmarkModel.load(args.runs / f"{name}-0")
            size = model.crop.size + 2 * model.rim
            crops = rng.integers(0, 256, (args.faces, size, size, 3), dtype=np.uint8)
            for batch in (1, 16):
                numbers[f"{name}_torch_{batch}"] = ms(
                    model, crops[: args.faces // (4 if name == "course" else 1)], batch
                )
            export_onnx(args.runs / f"{name}-0" / "best_stacked_hg.pth", Path(tmp) / f"{name}.onnx")
            model = OnnxLandmarks(Path(tmp) / f"{name}.onnx", threads=1)
            for batch in (1, 16):
                numbers[f"{name}_onnx_{batch}"] = ms(
                    model, crops[: args.faces // (4 if name == "course" else 1)], batch
                )
            print(name, {k: round(v["value"], 1) for k, v in numbers.items() if k.startswith(name)})
    for name in ("big", "small"):
        numbers[f"{name}_ratio"] = metric(
            numbers["course_torch_1"]["value"] / numbers[f"{name}_torch_1"]["value"],
            unit="times as fast as the course's network",
        )
    about = dict(name="random crops", fingerprint="numpy default_rng(0)", n_images=args.faces, n_people=0)
    write_record(
        args.out / "speed.json",
        record(
            "Milliseconds per face on one CPU thread, crop in, points out",
            "python benchmarks/landmark_speed.py",
            about,
            numbers,
            dict(torch=torch.__version__),
        ),
    )


def summarise(out):
    "The headline numbers, out of the records"
    numbers = read_json(out / "speed.json")["metrics"]
    got = {n: read_json(out / f"{n}.json") for n in ("big", "small", "course")}
    of = {n: r["metrics"] for n, r in got.items()}
    headline = dict(
        nme_unseen=of["big"]["nme_unseen"],
        nme_unseen_baseline=of["course"]["nme_unseen"],
        baseline_ratio=of["big"]["baseline_ratio"],
        failure_rate_10=of["big"]["failure_rate_10"],
        nme_small=of["small"]["nme_unseen"],
        ms_big=numbers["big_torch_1"],
        ms_small=numbers["small_torch_1"],
        ms_baseline=numbers["course_torch_1"],
        shaken_ratio=of["big"]["shaken_ratio"],
    )
    write_record(
        out / "summary.json",
        record(
            "Headline numbers of the landmarks",
            "python benchmarks/landmarks.py; python benchmarks/landmark_speed.py",
            got["big"]["data"],
            headline,
            seeds=got["big"]["seeds"],
        ),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(runs="runs/landmarks", out="results/landmarks").items():
        parser.add_argument("--" + k, default=v, type=Path)
    parser.add_argument("--faces", default=64, type=int)
    parser.add_argument("--summary", action="store_true", help="measure nothing: only write summary.json anew")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.summary:
        measure(args)
    summarise(args.out)
