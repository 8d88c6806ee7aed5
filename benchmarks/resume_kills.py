"""A training killed by SIGKILL and resumed, against the same training left alone: are all bits equal? Writes
results/training/resume.json.

    python benchmarks/resume_kills.py [--kills 20]      # about two minutes of processor time; nothing in it is timed

Each trial is one training in a process of its own (a backbone with batch normalisation and dropout, a sampled
ArcFace head and an AdaFace head with running averages, augmentation, accumulated batches, a clipped gradient),
killed at a random moment: half of them inside a random step, half inside the writing of a checkpoint, before or
after a random one of its file operations. Then it is started again with resume=True until it ends. Compared are
all tensors and numbers of the last and the best checkpoint (weights, optimiser, scaler, log, settings), the log
file, and the random numbers that follow. Equal means equal bits, on a CPU in float32.
"""

import argparse, os, random, signal, tempfile
from pathlib import Path

import accelerate  # noqa: F401  here, so that not every forked process reads it again
import numpy as np
import torch
from torch import nn

from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.core.files import fingerprint
from facerec_nb.models.heads import create_head
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.training import ArrayData, FitCfg, fit, read_log, seed_everything

CFG, CLASSES, ROWS = FitCfg(epochs=5, batch_size=32, lr=5e-3, precision="fp32", accumulate=2, grad_clip=0.5), 12, 330
HEAD = dict(scale=8.0, margin=0.2, sample=0.4)
STEPS = CFG.epochs * (ROWS // CFG.batch_size)
rng = np.random.default_rng(0)
Y = np.arange(ROWS) % CLASSES
X = np.clip(rng.integers(60, 200, (CLASSES, 16, 16, 3))[Y] + rng.normal(0, 30, (ROWS, 16, 16, 3)), 0, 255).astype(
    np.uint8
)


def net():
    seed_everything(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(8 * 49, 16),
        nn.BatchNorm1d(16),
    )
    return nn.ModuleDict(
        dict(
            backbone=backbone, head=create_head("arcface", 16, CLASSES, **HEAD), ada=create_head("adaface", 16, CLASSES)
        )
    )


def loss(m, b):
    emb = m["backbone"](b["x"].float() / 127.5 - 1)
    return m["head"].loss(emb, b["y"]) + m["ada"].loss(emb, b["y"])


def train(run, resume, step=None, write=None):
    "The training; it kills itself in that step, or before that file operation"
    calls, writes = iter(range(10**9)), iter(range(10**9))

    def noise(b, generator):
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return b | dict(x=b["x"].float() + 5 * torch.randn(b["x"].shape, generator=generator))

    for module, name in ((os, "replace"), (os, "fsync"), (torch, "save")):

        def deadly(*args, original=getattr(module, name), **kw):
            if next(writes) == write:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kw)

        setattr(module, name, deadly)
    fit(
        net(),
        loss,
        ArrayData(x=X, y=Y),
        CFG,
        run,
        validate=lambda m: dict(held=float(m["head"].weight.square().mean())),
        augment=noise,
        checkpoint=dict(kind="trial"),
        resume=resume,
    )
    (run / "after.txt").write_text(f"{torch.rand(1).item()} {np.random.rand()} {random.random()}")


def child(*args, **kw):
    "Run `train` in a forked process; returns its exit code, -9 for a kill"
    pid = os.fork()
    if pid == 0:
        try:
            train(*args, **kw)
            os._exit(0)
        except BaseException as e:
            print("failed:", repr(e), flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def values(o, where=""):
    "All tensors and numbers of a nested structure, by name"
    if isinstance(o, (dict, list)):
        return {
            k: v
            for i, x in (o.items() if isinstance(o, dict) else enumerate(o))
            for k, v in values(x, f"{where}/{i}").items()
        }
    return {where: (str(o.dtype), tuple(o.shape), o.numpy().tobytes()) if torch.is_tensor(o) else o}


def state(run):
    "Everything a run left behind, but how long it took"
    found = {n: values(load_checkpoint(run / f"{n}_model.pth")) for n in ("last", "best")}
    found["log"] = values(read_log(run).to_dict("list"))
    found["after"] = dict(random=(run / "after.txt").read_text())
    return {
        f"{n}{k}": v
        for n, each in found.items()
        for k, v in each.items()
        if "seconds" not in k and "images_per_s" not in k
    }


def trial(run, whole, draw, k):
    "Kill a run, resume it to its end, compare; returns what differs, and the files that should not be there"
    how = dict(step=int(draw.integers(STEPS))) if k % 2 else dict(write=int(draw.integers(5 * CFG.epochs)))
    if child(run, False, **how) != -signal.SIGKILL:
        raise SystemExit(f"the run was not killed ({how})")
    if child(run, True):
        raise SystemExit(f"the run killed at {how} could not be resumed")
    got = state(run)
    return (
        how,
        [k for k in {**whole, **got} if whole.get(k) != got.get(k)],
        sorted({p.name for p in run.iterdir()} - {"best_model.pth", "last_model.pth", "log.jsonl", "after.txt"}),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(kills=20, seed=0).items():
        parser.add_argument("--" + k, default=v, type=int)
    parser.add_argument("--out", default="results/training", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw, trials = np.random.default_rng(args.seed), []
    with tempfile.TemporaryDirectory() as tmp:
        if child(Path(tmp) / "whole", False):
            raise SystemExit("the uninterrupted run failed")
        whole = state(Path(tmp) / "whole")
        for k in range(args.kills):
            how, differs, litter = trial(Path(tmp) / f"killed-{k}", whole, draw, k)
            trials.append(dict(how, exact=not differs, left_over=len(litter)))
            print(
                f"{k + 1:3d} killed at {how}: "
                f"{'DIFFERS in ' + ', '.join(differs[:5]) if differs else 'the same bits'}"
                f"{', left ' + ', '.join(litter) if litter else ''}",
                flush=True,
            )
    exact = sum(t["exact"] for t in trials)
    n = len(trials)
    metrics = dict(
        resume_kills=metric(n, n=n, unit="kills"),
        resume_exact=metric(exact, n=n, unit="resumed runs with the same bits as the uninterrupted one"),
        left_over=metric(sum(t["left_over"] for t in trials), n=n, unit="files"),
        compared=metric(len(whole), n=n, unit="tensors and numbers compared in each run"),
    )
    about = dict(
        name="random patterns of 16 x 16 pixels",
        fingerprint=fingerprint("resume", CFG.__dict__),
        n_images=ROWS,
        n_people=CLASSES,
    )
    write_record(
        args.out / "resume.json",
        record(
            "Training killed at random moments and resumed, against the same training uninterrupted: "
            "float32, CPU, one thread",
            "python benchmarks/resume_kills.py",
            about,
            metrics,
            dict(trials=trials, steps=STEPS),
            [args.seed],
        ),
    )
    raise SystemExit(exact < n)
