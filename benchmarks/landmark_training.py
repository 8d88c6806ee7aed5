"""Where does a training step of the landmark networks spend its time, and does the data keep up?

    python benchmarks/landmark_training.py [--steps 20]      # about two minutes

The step is that of `training.fit` (AdamW, channels_last, mixed precision where the processor has it), taken apart by
a clock. Crops are random pixels: time does not depend on them.
Beside it: how many JPEG photographs two threads decode and cut per second, which is what a loader that reads files in
every epoch would have to live on.
"""

import argparse, sys, tempfile, time
from pathlib import Path

import numpy as np
import torch

from facerec_nb.faces.alignment import LandmarkCfg
from facerec_nb.faces.crops import CropCfg, read_crops
from facerec_nb.core.files import fingerprint, write_image
from facerec_nb.models.hourglass import StackedHourglass, heatmap_loss, heatmaps
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.training import ArrayData, FitCfg, amp_dtype, batches

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from studies.landmarks import RECIPES

PARTS = ("batch", "augmentation", "forward", "backward", "update")


def steps(cfg, precision, n, seed=0):
    "Seconds of each part of `n` steps after two that warm up"
    rng, size = np.random.default_rng(seed), cfg.input_size + 2 * cfg.rim
    data = ArrayData(
        x=rng.integers(0, 256, (cfg.batch_size * (n + 2), size, size, 3), dtype=np.uint8),
        points=rng.uniform(0.3, 0.7, (cfg.batch_size * (n + 2), 5, 2)).astype(np.float32) * size,
    )
    torch.manual_seed(seed)
    net = StackedHourglass(**cfg.arch).to(memory_format=torch.channels_last).train()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4)
    spent, draw, loader = (
        np.zeros((n + 2, len(PARTS))),
        torch.Generator().manual_seed(seed),
        iter(batches(data, FitCfg(1, cfg.batch_size), shuffle=True)),
    )
    for i in range(n + 2):
        t = [time.perf_counter()]

        def tick():
            t.append(time.perf_counter())

        batch = next(loader)
        tick()
        batch = cfg.augment(batch, draw)
        tick()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = heatmap_loss(
                net(batch["x"]), heatmaps(batch["points"], cfg.input_size, sigma=cfg.sigma), cfg.sigma, power=cfg.power
            )
        tick()
        loss.backward()
        tick()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        opt.zero_grad()
        tick()
        spent[i] = np.diff(t)
    return spent[2:]


def decoding(n, threads):
    "Crops a second out of JPEG photographs of 500 x 500 pixels"
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as tmp:
        paths = [Path(tmp) / f"{i}.jpg" for i in range(n)]
        for p in paths:
            write_image(p, np.kron(rng.integers(0, 256, (25, 25, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8)))
        start = time.perf_counter()
        read_crops(paths, np.tile([150.0, 120, 350, 400], (n, 1)), CropCfg(), n_workers=threads)
        return n / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default=20, type=int)
    parser.add_argument("--threads", default=torch.get_num_threads(), type=int)
    parser.add_argument("--out", default="results/landmarks", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    numbers, curves, fast = {}, {}, amp_dtype("cpu")
    for name in ("big", "small", "course"):
        cfg = LandmarkCfg(**RECIPES[name])
        for precision in {torch.float32, fast}:
            kind = "fp32" if precision == torch.float32 else "bf16"
            n = args.steps if name != "course" else max(3, args.steps // 5)
            spent = steps(cfg, precision, n)
            each = spent.sum(1)
            shares = spent.sum(0) / spent.sum()
            numbers[f"{name}_{kind}"] = metric(cfg.batch_size / float(np.median(each)), n=n, unit="images/s")
            numbers[f"{name}_{kind}_data"] = metric(
                float(shares[:2].sum()), n=n, unit="share of the step that waits for data"
            )
            curves[f"{name}_{kind}"] = dict(zip(PARTS, shares.round(4).tolist()))
            print(name, kind, round(numbers[f"{name}_{kind}"]["value"], 1), "images/s", curves[f"{name}_{kind}"])
    numbers["decode"] = metric(decoding(400, args.threads), n=400, unit="crops/s out of JPEG photographs")
    for name in ("big", "small"):
        if fast != torch.float32:
            numbers[f"{name}_bf16_ratio"] = metric(
                numbers[f"{name}_bf16"]["value"] / numbers[f"{name}_fp32"]["value"], unit="times as fast as fp32"
            )
    about = dict(
        name="random pixels", fingerprint=fingerprint("random pixels", args.steps), n_images=args.steps * 64, n_people=0
    )
    write_record(
        args.out / "training.json",
        record(
            f"Training step of the landmark networks, {args.threads} threads: images/s and where the time goes",
            "python benchmarks/landmark_training.py",
            about,
            numbers,
            curves,
            [0],
        ),
    )
