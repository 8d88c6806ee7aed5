"""Put trained landmark networks into the package: half-precision weights, their ONNX form and their model card, every
number from results/landmarks/*.json.

    python benchmarks/ship_landmarks.py [--runs runs/landmarks]
    python benchmarks/ship_landmarks.py --ways     # only `quick` and `fast`, out of the packaged `big` and `small`

The first seed of each recipe is shipped, not the best one. Run after benchmarks/landmarks.py and
benchmarks/landmark_speed.py. The ways to ask (`faces.points.WAYS`) are files in 8 bits without weights of their own;
their scales come from crops of the 48 calibration people, in detected boxes, and from a few drawn faces: those of the
recorded answers are drawn.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from facerec_nb.models.checkpoint import load_checkpoint, save_checkpoint
from facerec_nb.core.files import atomic_path, read_json
from facerec_nb.core.installed import packaged
from facerec_nb.engines.onnx_export import export_onnx, read_network
from facerec_nb.engines.onnx_files import read_onnx, seal, set_about
from facerec_nb.engines.proof import N_FACES, make_proof, proof_pixels
from facerec_nb.engines.quantise import eight_bits
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.faces.points import WAYS, way_of
from facerec_nb.core.records import show_metric

WEIGHTS, LICENCE = (
    Path("facerec_nb/weights"),
    "Research only: trained on CelebA, whose pictures may be used for non-commercial research; "
    "the code around the weights is Apache-2.0",
)
CARD = """# Model card: landmark networks

{names}: five points (left eye, right eye, nose, left mouth corner, right mouth corner; left in the image) of a face
in a box. `LandmarkModel.load("big")` loads one by its name;
`facerec_align` uses `big`, the pipeline `quick` unless another is named, and `fast` with `--fast`.

`quick` is `big` in 8 bits, asked once, without a mirror image and in a tighter crop, and a second time where it is
unsure or the face is tilted. `fast` is `small` in 8 bits, asked once. They have no weights of their own. Their errors
in detected boxes, beside that of `big` asked four times in the same boxes, are in `results/landmarks/quick.json`.

{rows}

All on {n} photographs of 12 people who were in no training (CelebA `celeba-wild-60x30`, split by seed 21), intervals
over people.

## Training data
{photos:.0f} photographs of 48 people and {extra:.0f} of CelebA's aligned pictures of other people, whose original
points are known (`studies/celeba_aligned`). People held out for
recognition are not among them. At the end the training went on with faces that look aside shown more often, and with a
profile of each photograph, turned in depth (`datasets/turned`). Made by
`python benchmarks/landmarks.py --train NAME_first:0 NAME:0`; settings are in the checkpoints (`config`).

## Licence
{licence}. Not for identifying people without their consent.

## Limits
- Twelve people say little about groups of people: errors by attribute, with their wide intervals, are in
  `results/landmarks/big.json`.
- The true points are CelebA's, whole pixels of the original photograph, set by hand: part of the error is theirs.
- On 510 annotated photographs of 17 other people `big`, before it was trained on with profiles, had an NME of 0.0332
  in detected boxes and 0.0323 in annotated ones (median 0.0239): more than here. The twelve worst were profiles and
  mouths behind microphones and hands. Profiles now: `results/landmarks/profiles.json`.
- In the copies turned by 35 to 45 degrees the far corner of the mouth lay on the outline of the cheek; that was mended
  after this training.
- Drawings, masks and infrared pictures are untested.
- The box must be like CelebA's (forehead to chin, loose by a tenth at most) or mapped to it, as `faces/detection` does.
"""

TITLES = dict(big="big", small="small", course="the course's recipe, for comparison (not shipped)")
ROWS = (
    ("NME, mean over the seeds", "nme_unseen", 4),
    ("share with NME above 0.10", "failure_rate_10", 3),
    ("NME, boxes jittered by 10 % and heads rolled by up to 30 degrees", "nme_shaken", 4),
    ("NME of the 95 % most confident", "nme_kept_95", 4),
)


def ship_way(name, data):
    "A way to ask a network, as a file in 8 bits that carries the answers of the 32 bits"
    from quick_points import scale_crops

    net, out = WAYS[name]["net"], WEIGHTS / f"landmarks_{name}.onnx"
    about = way_of(name, read_onnx(packaged(f"landmarks_{net}.onnx"))[2])
    drawn = proof_pixels(about, 40)[N_FACES:].astype(np.float32)
    crops = np.concatenate([scale_crops(data, about["shrink"]), drawn])
    answers = read_network(packaged(f"landmarks_{net}"))[0]
    about |= dict(
        fingerprint=LandmarkModel.load(name, "cpu").fingerprint,
        int8=len(crops),
        proof=make_proof(about, lambda x: answers(torch.from_numpy(x))[0]),
    )
    graph = eight_bits(packaged(f"landmarks_{net}.onnx"), crops, whole=True)
    set_about(graph, {k: v for k, v in about.items() if k != "sha256"})
    with atomic_path(out) as temp:
        temp.write_bytes(seal(graph.SerializeToString()))
    print(out, out.stat().st_size)


def row(title, values):
    return f"| {title} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="runs/landmarks", type=Path)
    parser.add_argument("--results", default="results/landmarks", type=Path)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--ways", action="store_true")
    args = parser.parse_args()
    if args.ways:
        for way in WAYS:
            ship_way(way, args.data)
        raise SystemExit
    WEIGHTS.mkdir(exist_ok=True)
    got = {
        n: read_json(args.results / f"{n}.json")
        for n in ("big", "small", "course")
        if (args.results / f"{n}.json").exists()
    }
    speed = read_json(args.results / "speed.json")["metrics"] if (args.results / "speed.json").exists() else None
    for name in [n for n in got if n != "course"]:
        ck = load_checkpoint(args.runs / f"{name}-0" / "best_stacked_hg.pth", kind="landmarks")
        keep = {k: ck[k] for k in ("arch", "preprocessing", "config", "seed", "data", "epoch")}
        weights = {
            part: {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
            for part, state in ck["weights"].items()
        }
        metrics = {
            k: v["value"]
            for k, v in got[name]["metrics"].items()
            if k in ("nme_unseen", "failure_rate_10", "nme_shaken")
        } | dict(nme_shipped=got[name]["curves"]["nme_seeds"][0])
        save_checkpoint(
            WEIGHTS / f"landmarks_{name}.pth", "landmarks", weights, metrics=metrics, licence=LICENCE, **keep
        )
        export_onnx(WEIGHTS / f"landmarks_{name}.pth", WEIGHTS / f"landmarks_{name}.onnx")
    for way in WAYS:
        ship_way(way, args.data)
    m = [r["metrics"] for r in got.values()]
    rows = [
        row("", [TITLES[n] for n in got]),
        row("---", ["---"] * len(got)),
        row("weights (millions)", [f"{x['parameters']['value'] / 1e6:.2f}" for x in m]),
    ]
    rows += [
        row("input (px)", [str(r["curves"]["config"]["input_size"]) for r in got.values()]),
        row("seeds", [str(len(r["seeds"])) for r in got.values()]),
    ]
    rows += [row("NME of seed 0, which is shipped", [f"{r['curves']['nme_seeds'][0]:.4f}" for r in got.values()])]
    rows += [row(title, [show_metric(x[key], digits) for x in m]) for title, key, digits in ROWS]
    if speed:
        rows += [
            row(f"ms per face, one CPU thread, {engine}", [f"{speed[f'{n}_{key}_1']['value']:.1f}" for n in got])
            for engine, key in (("PyTorch", "torch"), ("ONNX Runtime", "onnx"))
        ]
    big = m[0]
    with atomic_path(WEIGHTS / "landmarks.md") as temp:
        temp.write_text(
            CARD.format(
                names=" and ".join(f"`{n}`" for n in got if n != "course"),
                rows="\n".join(rows),
                n=big["nme_unseen"]["n"],
                photos=big["train_images"]["value"],
                extra=big["extra_images"]["value"],
                licence=LICENCE,
            )
        )
    print((WEIGHTS / "landmarks.md").read_text())
