"""Does a head that sees a share of the centres learn as well,

and what does it cost? Writes results/training/partial_fc.json.

    python benchmarks/partial_fc.py                    # on a quiet machine; about ten minutes and 9 GB
    python benchmarks/partial_fc.py --people 200 --epochs 4 --largest 10000 --out /tmp/try    # a small try

Accuracy: 'photographs' are points around a direction of each person in 64 dimensions, seen through a fixed random
network; an embedder of two layers learns from them with `fit`, under ArcFace with all centres and with shares of
them, same seeds. Asked is what is asked of a recogniser: photographs of people it has never met (are these two the
same person: AUC and true accepts at 1 % false accepts, with intervals over people) and unseen photographs of people
it knows (top-1). Cost: one step of the head alone (loss, gradient; and AdamW's update), each size in a process of its
own, whose largest memory is read from the system. CPU, one thread, float32; a GPU is not measured.
"""

import argparse, json, subprocess, sys, time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facerec_nb.core.files import fingerprint
from facerec_nb.models.heads import create_head
from facerec_nb.core.metrics import auc, bootstrap_ids, bootstrap_pairs, tar_at_far
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.training import ArrayData, FitCfg, fit, seed_everything

SHARES, SIZES, DIM, BATCH = (1.0, 0.5, 0.1, 0.02), (1_000, 10_000, 100_000, 1_000_000), 128, 128


def photographs(ids, per_id, rng, look):
    "Points around each person's direction, bent by a fixed random network"
    centres = rng.normal(size=(ids, 64)).astype(np.float32)
    x = np.repeat(centres, per_id, 0) + 0.9 * rng.normal(size=(ids * per_id, 64)).astype(np.float32)
    return np.tanh(x @ look[0]) @ look[1], np.repeat(np.arange(ids), per_id)


def accuracy(share, seed, people, epochs):
    "Train under a share of the centres; returns embeddings of strangers and who they are, and top-1 of the known"
    rng = np.random.default_rng(seed)
    look = rng.normal(size=(64, 256)).astype(np.float32) / 8, rng.normal(size=(256, 128)).astype(np.float32) / 16
    x, y = photographs(people, 14, rng, look)
    sx, sy = photographs(150, 6, rng, look)
    test = np.arange(len(y)) % 14 >= 12
    seed_everything(seed)
    net = nn.ModuleDict(
        dict(
            backbone=nn.Sequential(
                nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64), nn.BatchNorm1d(64)
            ),
            head=create_head("arcface", 64, people, scale=32.0, margin=0.3, sample=share),
        )
    )
    log = fit(
        net,
        lambda m, b: m["head"].loss(m["backbone"](b["x"]), b["y"]),
        ArrayData(x=x[~test], y=y[~test]),
        FitCfg(epochs=epochs, batch_size=BATCH, lr=3e-3, weight_decay=1e-2, seed=seed, precision="fp32"),
    )
    with torch.no_grad():
        strangers, known = (net["backbone"](torch.from_numpy(v)) for v in (sx, x[test]))
        top1 = net["head"](known).argmax(1).numpy() == y[test]
    return nn.functional.normalize(strangers).numpy(), sy, top1, log.loss.tolist()


def memory(key):
    return (
        int(next(l.split()[1] for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(key))) / 1024
    )


def cost(share, n, steps):
    "Processor time of one step of the head, with and without the update (ms), and memory beyond the start (MB)"

    def spend(n, steps):
        head = create_head("arcface", DIM, n, sample=share)
        opt = torch.optim.AdamW(head.parameters(), fused=True)
        spent = []
        for _ in range(steps + 1):
            emb, labels, t = (
                torch.randn(BATCH, DIM, requires_grad=True),
                torch.randint(n, (BATCH,)),
                [time.process_time()],
            )
            head.loss(emb, labels).backward()
            t.append(time.process_time())
            opt.step()
            opt.zero_grad()
            t.append(time.process_time())
            spent.append(np.diff(t))
        return 1000 * np.median(spent[1:], axis=0)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    spend(200, 2)  # what torch loads at its first step is not the head's
    Path("/proc/self/clear_refs").write_text("5")
    start = memory("VmRSS")  # the peak begins anew
    loss, update = spend(n, steps)
    return dict(ms_loss=float(loss), ms_update=float(update), mb=memory("VmHWM") - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(people=2000, epochs=15, seeds=3, largest=SIZES[-1]).items():
        parser.add_argument("--" + k, default=v, type=int)
    parser.add_argument("--cost", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", default="results/training", type=Path)
    args = parser.parse_args()
    if args.cost:
        print(json.dumps(cost(float(args.cost[0]), int(args.cost[1]), int(args.cost[2]))))
        sys.exit()
    torch.set_num_threads(1)
    numbers, whole, curves = (
        {},
        None,
        dict(shares=list(SHARES), loss={}, sizes=[n for n in SIZES if n <= args.largest], cost={}),
    )
    for share in SHARES:
        runs = [accuracy(share, seed, args.people, args.epochs) for seed in range(args.seeds)]
        for name, what in dict(auc=auc, tar_at_far01=lambda g, i: tar_at_far(g, i, (0.01,))[0.01]["rate"]).items():
            found = np.mean(
                [bootstrap_pairs(what, emb, ids, n=100) for emb, ids, *_ in runs], axis=0
            )  # the mean over seeds, with the mean of their intervals
            numbers[f"{name}_{share:g}"] = metric(*map(float, found), n=len(runs) * 150, unit="share")
        right = np.concatenate([r[2] for r in runs]).astype(float)
        who = np.tile(np.arange(len(right) // 2 // len(runs)).repeat(2), len(runs))
        if share == 1:
            whole = right
        for name, v in dict(top1=right, top1_minus_all=right - whole).items():
            numbers[f"{name}_{share:g}"] = metric(
                *bootstrap_ids(lambda rows: v[rows].mean(), who, n=500), n=len(v), unit="share"
            )
        curves["loss"][f"{share:g}"] = runs[0][3]
        print(
            f"share {share:g}",
            {k: round(v["value"], 4) for k, v in numbers.items() if k.endswith(f"_{share:g}")},
            flush=True,
        )
    for share in (1.0, 0.1):
        for n in curves["sizes"]:
            r = subprocess.run(
                [sys.executable, __file__, "--cost", str(share), str(n), str(20 if n < 1e5 else 5)],
                capture_output=True,
                text=True,
            )
            if r.returncode:
                raise SystemExit(f"the head of {n} people failed: {r.stderr[-500:]}")
            curves["cost"].setdefault(f"{share:g}", []).append(found := json.loads(r.stdout))
            print(share, n, found, flush=True)
            numbers |= {
                f"{k}_{share:g}_{n}": metric(v, n=BATCH, unit="MB" if k == "mb" else "ms of processor time a step")
                for k, v in found.items()
            }
    about = dict(
        name="random points",
        fingerprint=fingerprint("partial_fc", args.people, args.epochs),
        n_images=args.people * 14 + 900,
        n_people=args.people,
    )
    write_record(
        args.out / "partial_fc.json",
        record(
            f"ArcFace by shares of {args.people} centres against all of them, and the cost of a head of {DIM} numbers "
            f"at a batch of {BATCH}; CPU, one thread",
            "python benchmarks/partial_fc.py",
            about,
            numbers,
            curves,
            range(args.seeds),
        ),
    )
