"""Put trained landmark networks into the package: half-precision weights, their ONNX form and their model card, every
number from results/landmarks/*.json.

    python benchmarks/ship_landmarks.py [--runs runs/landmarks]
    python benchmarks/ship_landmarks.py --quick    # only `quick`, out of the packaged `big`

The first seed of each recipe is shipped, not the best one. Run after benchmarks/landmarks.py and
benchmarks/landmark_speed.py.
"""

import argparse
from pathlib import Path

from facerec_nb.models.checkpoint import load_checkpoint, save_checkpoint
from facerec_nb.core.files import atomic_path, read_json
from facerec_nb.engines.onnx_export import export_onnx
from facerec_nb.core.records import show_metric

WEIGHTS, LICENCE = (
    Path("facerec_nb/weights"),
    "Research only: trained on CelebA, whose pictures may be used for non-commercial research; "
    "the code around the weights is Apache-2.0",
)
CARD = """# Model card: landmark networks

{names}: five points (left eye, right eye, nose, left mouth corner, right mouth corner; left in the image) of a face
in a box. `LandmarkModel.load("big")` loads one by its name;
`facerec_align` uses `big`, the pipeline `quick` unless another is named.

`quick` is `big`, asked once and without a mirror image, and a second time where it is unsure or the face is tilted.
Its error in detected boxes, beside that of `big` asked four times in the same boxes, is in
`results/landmarks/quick.json`.

{rows}

All on {n} photographs of 12 people who were in no training (CelebA `celeba-wild-60x30`, split by seed 21), intervals
over people.

## Training data
{photos:.0f} photographs of 48 people and {extra:.0f} of CelebA's aligned pictures of other people, whose original
points are known (`studies/celeba_aligned`). People held out for
recognition are not among them. Made by `python benchmarks/landmarks.py --train NAME:0`; settings are in the
checkpoints (`config`).

## Licence
{licence}. Not for identifying people without their consent.

## Limits
- Twelve people say little about groups of people: errors by attribute, with their wide intervals, are in
  `results/landmarks/big.json`.
- The true points are CelebA's, whole pixels of the original photograph, set by hand: part of the error is theirs.
- On 510 annotated photographs of 17 other people `big` has an NME of 0.0332 in detected boxes and 0.0323 in annotated
  ones (median 0.0239): more than here. The twelve worst are profiles and mouths behind microphones and hands.
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


QUICK = dict(flip=False, unsure=0.92)  # `benchmarks/quick_points.py` says why


def ship_quick():
    "`big`, asked once, and twice where it is unsure"
    ck = load_checkpoint(WEIGHTS / "landmarks_big.pth", kind="landmarks")
    keep = {k: ck[k] for k in ("arch", "config", "seed", "data", "epoch", "metrics", "licence")}
    out = WEIGHTS / "landmarks_quick.pth"
    save_checkpoint(out, "landmarks", ck["weights"], preprocessing=ck["preprocessing"] | QUICK, **keep)
    print(export_onnx(out, out.with_suffix(".onnx")))


def row(title, values):
    return f"| {title} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="runs/landmarks", type=Path)
    parser.add_argument("--results", default="results/landmarks", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        ship_quick()
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
    ship_quick()
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
