"""Images a second of `fit` against the loop that courses teach, network by network, in one run. Writes
results/training/throughput.json.

    python benchmarks/training.py                      # about a quarter of an hour on two cores
    python benchmarks/training.py --tiny --out try    # a minute, to see that it works

The course's loop: JPEG files, a PIL data set, torchvision's transforms, a DataLoader with two workers, float32,
AdamW. Ours: `fit` on the same pictures, decoded once, changed in batches on the device, channels_last, bfloat16
where the processor has it (float16 or bfloat16 on a GPU). Same network, same loss (ArcFace; heatmaps for the
hourglass), same batch, same number of threads. Each side lives in a process of its own, so that settings of one
do not serve the other, and they take turns; while one works the other waits. Start-up (workers, first steps) is
not counted, on both sides. Drawn faces only. On a GPU, where there is one, the same again.
"""

import argparse, json, os, subprocess, sys, tempfile, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facerec_nb.models.backbones import Embedder
from facerec_nb.faces.alignment import LandmarkCfg
from facerec_nb.core.files import fingerprint, read_image, write_image
from facerec_nb.models.heads import create_head
from facerec_nb.models.hourglass import StackedHourglass, heatmap_loss, heatmaps
from facerec_nb.models.augment import Augment
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.training import ArrayData, FitCfg, amp_dtype, fit, seed_everything

PEOPLE = 100
NETS = dict(
    tiny_112=("tiny", 112, 64, 20),
    small_112=("small", 112, 64, 12),
    base_112=("base", 112, 64, 6),
    resnet18_112=("resnet18", 112, 64, 6),
    resnet50_112=("resnet50", 112, 32, 6),
    resnet18_224=("resnet18", 224, 32, 5),
    resnet50_224=("resnet50", 224, 16, 4),
    hourglass_128=("hourglass", 128, 32, 5),
)  # name: network, side in pixels, batch, steps of one turn on a CPU


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(folder, n, side):
    """Faces as JPEG files, and as the array that decoding them gives; photographs of the hourglass are as large as
    they were drawn"""
    import cv2
    from facerec_nb.datasets.synthetic import sample_faces

    got, rng = sample_faces(n_ids=6, per_id=4), np.random.default_rng(0)
    for i in range(n):
        img, (x, y, w, h) = got["images"][i % 24], got["boxes"][i % 24]
        dx, dy = rng.integers(-3, 4, 2)
        face = img[max(0, y + dy) : y + dy + h, max(0, x + dx) : x + dx + w]
        write_image(folder / f"{i:05d}.jpg", cv2.resize(face, (side, side)), quality=95)


def model_and_loss(net, side):
    "The network and its loss on a batch, for both sides"
    seed_everything(0)
    if net == "hourglass":
        return StackedHourglass(stacks=2, channels=64, depth=4, input_size=side), lambda m, b: heatmap_loss(
            m(b["x"]), heatmaps(b["points"], side)
        )
    return nn.ModuleDict(
        dict(backbone=Embedder(net, size=side), head=create_head("arcface", 512, PEOPLE))
    ), lambda m, b: m["head"].loss(m["backbone"](b["x"]), b["y"])


def labels(n, side):
    rng = np.random.default_rng(0)
    return dict(y=np.arange(n) % PEOPLE, points=rng.uniform(0.3, 0.7, (n, 5, 2)).astype(np.float32) * side)


class Files(torch.utils.data.Dataset):
    "One JPEG after the other, by PIL and torchvision"

    def __init__(self, folder, n, side):
        from torchvision import transforms as T

        self.paths, self.more = sorted(Path(folder).glob("*.jpg"))[:n], labels(n, side)
        self.change = T.Compose(
            [
                T.Resize((side, side)),
                T.RandomHorizontalFlip(),
                T.RandomAffine(10, (0.04, 0.04), (0.9, 1.1)),
                T.ColorJitter(0.3, 0.3),
                T.RandomGrayscale(0.15),
                T.ToTensor(),
                T.Normalize([0.5] * 3, [0.5] * 3),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        from PIL import Image

        return dict(x=self.change(Image.open(self.paths[i]).convert("RGB")), **{k: v[i] for k, v in self.more.items()})


def hwm():
    return (
        int(next(l.split()[1] for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")))
        / 1024
    )


class Course:
    "The loop as it is taught"

    def __init__(self, net, side, batch, steps, folder):
        self.model, self.loss = model_and_loss(net, side)
        self.model.to(device()).train()
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.loader, self.batch = (
            torch.utils.data.DataLoader(
                Files(folder, batch * (steps + 2), side), batch, shuffle=True, num_workers=2, drop_last=True
            ),
            batch,
        )

    def turn(self):
        spent, t = [], time.perf_counter()
        for b in self.loader:
            b = {k: v.to(device()) for k, v in b.items()}
            b["x"] = b["x"] * 127.5 + 127.5
            data = (
                time.perf_counter()
            )  # the network normalises by itself; undoing the transform's costs well under a percent
            loss = self.loss(self.model, b)
            forward = time.perf_counter()
            loss.backward()
            backward = time.perf_counter()
            self.opt.step()
            self.opt.zero_grad()
            loss.item()
            spent.append(np.diff([t, data, forward, backward, time.perf_counter()]))
            t = time.perf_counter()
        spent = np.array(spent[2:])
        return dict(
            images_per_s=self.batch * len(spent) / spent.sum(),
            parts=dict(zip(("data", "forward", "backward", "optimiser"), spent.sum(0) / spent.sum())),
        )


class Ours:
    "`fit`, and the same step taken apart by a clock"

    def __init__(self, net, side, batch, steps, folder):
        n = batch * steps
        x = np.stack([read_image(p) for p in sorted(Path(folder).glob("*.jpg"))[:n]])
        self.model, self.loss = model_and_loss(net, side)
        self.data, self.batch = ArrayData(x=x, **labels(n, side)), batch
        self.augment = replace(LandmarkCfg(input_size=side).augment, rim=0) if net == "hourglass" else Augment()
        self.cfg = FitCfg(epochs=1, batch_size=batch, lr=1e-4)
        fit(
            self.model,
            self.loss,
            ArrayData(x=x[: 2 * batch], **labels(2 * batch, side)),
            self.cfg,
            augment=self.augment,
        )

    def turn(self):
        return dict(
            images_per_s=float(fit(self.model, self.loss, self.data, self.cfg, augment=self.augment).images_per_s[0]),
            parts=self.parts(),
        )

    def parts(self, n=3):
        spent, draw, kind = [], torch.Generator(device()).manual_seed(0), amp_dtype(device())
        self.model.train()
        opt = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        for i in range(n):
            t = [time.perf_counter()]
            b = {
                k: v.to(device())
                for k, v in self.data.__getitems__(
                    np.random.default_rng(i).integers(0, len(self.data), self.batch)
                ).items()
            }
            b = self.augment(b, draw)
            t.append(time.perf_counter())
            with torch.autocast(device().type, kind, enabled=kind != torch.float32):
                loss = self.loss(self.model, b)
            t.append(time.perf_counter())
            loss.backward()
            t.append(time.perf_counter())
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            opt.step()
            opt.zero_grad()
            loss.item()
            t.append(time.perf_counter())
            spent.append(np.diff(t))
        spent = np.array(spent[1:])
        return dict(zip(("data", "forward", "backward", "optimiser"), spent.sum(0) / spent.sum()))


def serve(side, threads):
    "One side: a line is a task, the answer is a line; the last network stays"
    torch.set_num_threads(threads)
    kept, runner, out = None, None, sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        *task, key = json.loads(line)
        if key != kept:
            kept, runner = key, None
            Path("/proc/self/clear_refs").write_text("5")
            runner = dict(ours=Ours, course=Course)[side](*task)
        got = runner.turn() | dict(mb=torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else hwm())
        print(json.dumps(got), file=out, flush=True)


def peak(threads, size=2048, n=5):
    "Measured matrix products, in 10^9 operations a second, by number format"
    torch.set_num_threads(threads)
    found = {}
    for kind in {torch.float32, amp_dtype(device())}:
        a, b = (torch.randn(size, size, device=device(), dtype=kind) for _ in range(2))
        a @ b
        best = 0
        for _ in range(n):
            start = time.perf_counter()
            (a @ b).sum().item()
            best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
        found[str(kind).removeprefix("torch.")] = best
    return found


def operations(net, side, batch):
    "Multiplications and additions of one step, forward and backward, in 10^9"
    from torch.utils.flop_counter import FlopCounterMode

    model, loss = model_and_loss(net, side)
    b = {k: torch.from_numpy(v) for k, v in labels(batch, side).items()} | dict(
        x=torch.rand(batch, 3, side, side) * 255
    )
    with FlopCounterMode(display=False) as count:
        loss(model.train(), b).backward()
    return count.get_total_flops() / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument(
        "--threads",
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        type=int,
    )
    parser.add_argument("--rounds", default=5, type=int, help="turns of each side")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", default="results/training", type=Path)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.threads)
        sys.exit()
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | dict(
        PYTHONWARNINGS="ignore", OMP_NUM_THREADS=str(args.threads)
    )
    sides = {
        s: subprocess.Popen(
            [sys.executable, __file__, "--serve", s, "--threads", str(args.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        for s in ("course", "ours")
    }

    def ask(side, *task):
        print(json.dumps(task), file=sides[side].stdin, flush=True)
        line = sides[side].stdout.readline()
        if not line:
            raise SystemExit(f"the {side} side ended with code {sides[side].wait()}")
        return json.loads(line)

    nets = (
        {k: (n, s, 8, 2) for k, (n, s, *_) in NETS.items() if k in ("tiny_112", "resnet18_112", "hourglass_128")}
        if args.tiny
        else NETS
    )
    fast = str(amp_dtype(device())).removeprefix("torch.")
    kind, numbers, curves = device().type, {}, dict(rows=[], parts={})
    top = peak(args.threads)
    numbers |= {f"peak_{k}": metric(v, unit="10^9 operations/s of a matrix product") for k, v in top.items()}
    with tempfile.TemporaryDirectory() as tmp:
        for side in {s for _, s, *_ in nets.values()}:
            draw(
                Path(tmp) / str(side),
                max(b * (n * (20 if kind == "cuda" else 1) + 2) for _, s, b, n in nets.values() if s == side),
                side,
            )
        for name, (net, side, batch, steps) in nets.items():
            task = net, side, batch, steps * (20 if kind == "cuda" else 1), str(Path(tmp) / str(side)), name
            got = {s: [] for s in sides}
            for _ in range(args.rounds):
                for s in sides:
                    got[s].append(ask(s, *task))
            speed = {s: [g["images_per_s"] for g in v] for s, v in got.items()}
            ratios = np.divide(speed["ours"], speed["course"])
            for s, v in speed.items():
                numbers[f"{name}_{s}"] = metric(float(np.median(v)), min(v), max(v), n=len(v), unit="images/s")
                curves["rows"].append(
                    dict(
                        network=net,
                        side=side,
                        batch=batch,
                        loop=s,
                        device=kind,
                        precision="float32" if s == "course" else fast,
                        images_per_s=float(np.median(v)),
                        mb=max(g["mb"] for g in got[s]),
                    )
                )
            numbers[f"{kind}_throughput_ratio_{name}"] = metric(
                float(np.median(ratios)),
                float(ratios.min()),
                float(ratios.max()),
                n=len(ratios),
                unit="times the course's loop",
            )
            curves["parts"][name] = {
                s: {k: float(np.mean([g["parts"][k] for g in v])) for k in v[0]["parts"]} for s, v in got.items()
            }
            if net != "hourglass":
                numbers[f"peak_share_{name}"] = metric(
                    operations(net, side, batch) / batch * numbers[f"{name}_ours"]["value"] / top[fast],
                    unit=f"share of the {fast} matrix product's peak",
                )
            print(
                f"{name:14s} course {np.median(speed['course']):8.1f}  ours {np.median(speed['ours']):8.1f} "
                f"images/s  ratio {np.median(ratios):5.2f}  "
                f"{ ({k: round(v, 2) for k, v in curves['parts'][name]['ours'].items()}) }",
                flush=True,
            )
    for p in sides.values():
        p.stdin.close()
        p.wait()
    each = [v["value"] for k, v in numbers.items() if k.startswith(f"{kind}_throughput_ratio_")]
    for k in ("cpu", "cuda"):
        numbers["gpu_throughput_ratio" if k == "cuda" else "cpu_throughput_ratio"] = (
            metric(
                float(np.exp(np.mean(np.log(each)))),
                min(each),
                max(each),
                n=len(each),
                unit="times the course's loop, geometric mean over networks (smallest, largest)",
            )
            if k == kind
            else metric(None, unit="times the course's loop")
        )
    numbers["course_minutes_gpu"] = metric(None, unit="minutes")
    about = dict(
        name="drawn faces",
        fingerprint=fingerprint("training", {k: list(v) for k, v in nets.items()}),
        n_images=max(b * n for _, _, b, n in nets.values()),
        n_people=PEOPLE,
    )
    write_record(
        args.out / "throughput.json",
        record(
            f"Training throughput, {args.threads} threads, against a PIL data loader with two workers in "
            f"float32, same networks, same batches, in turns",
            "python benchmarks/training.py",
            about,
            numbers,
            curves,
            [0],
        ),
    )
