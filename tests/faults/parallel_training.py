"""A toy training that test_training_parallel.py starts alone, by torchrun and by notebook_launcher; every process
writes down what it saw."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facerec_nb.models import training
from facerec_nb.models.heads import create_head
from facerec_nb.core.parallel import gather_rows, in_parts, join_processes, own_rows
from facerec_nb.models.training import ArrayData, FitCfg, fit, seed_everything

ROWS, CLASSES = 203, 10
rng = np.random.default_rng(0)
Y = np.arange(ROWS) % CLASSES
X = (rng.normal(size=(CLASSES, 12))[Y] + rng.normal(size=(ROWS, 12))).astype(np.float32)
DATA, HELD = ArrayData(x=X[:180], y=Y[:180]), ArrayData(x=X[180:], y=Y[180:]).__getitems__(range(23))


def net(norm=False, **head):
    seed_everything(0)
    layers = [nn.Linear(12, 32), *([nn.BatchNorm1d(32)] if norm else []), nn.ReLU(), nn.Linear(32, 8)]
    return nn.ModuleDict(
        dict(
            backbone=nn.Sequential(*layers),
            head=create_head("arcface", 8, CLASSES, **dict(scale=8.0, margin=0.2) | head),
        )
    )


def loss(model, b):
    return model["head"].loss(model["backbone"](b["x"]), b["y"]), dict(first=b["x"][:, 0].mean())


def validate(model):
    "23 rows do not divide evenly; each is counted once"
    emb = in_parts(lambda rows: model["backbone"](HELD["x"][rows]), len(HELD["y"]))
    return dict(held_rows=len(emb), held_loss=model["head"].loss(emb, HELD["y"]))


def train(out, die=None, epochs=4, until=None, norm=False, resume=False, name="model", head=None, **cfg):
    "One run; the process of number `die` kills itself in the third epoch"
    model, me = net(norm, **head or {}), join_processes()

    def maybe_die(batch, generator, calls=iter(range(10**6))):
        if me.process_index == die and next(calls) == 2 * 5 + 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    cfg = FitCfg(**dict(epochs=epochs, batch_size=32, lr=5e-3, precision="fp32", grad_clip=0.5) | cfg)
    return model, fit(
        model,
        loss,
        DATA,
        cfg,
        Path(out),
        validate,
        maybe_die,
        name=name,
        monitor="held_loss",
        resume=resume,
        until=until,
    )


def against_the_whole(head_name, **kw):
    """Largest differences of loss and gradients between a head split over the processes and the whole one, on the
    same faces"""
    me, n = join_processes(), 16
    whole, emb, labels = (
        create_head(head_name, 8, 51),
        torch.randn(n, 8, generator=torch.Generator().manual_seed(1)),
        torch.randint(51, (n,), generator=torch.Generator().manual_seed(2)),
    )
    torch.nn.init.normal_(whole.weight, generator=torch.Generator().manual_seed(3))
    whole.weight.data /= 3
    part = create_head(head_name, 8, 51, split=True, **kw)
    part.load_state_dict(whole.state_dict())
    x, mine = emb.clone().requires_grad_(), own_rows(n)
    y = emb[mine].clone().requires_grad_()
    want, got = whole.loss(x, labels), part.loss(y, labels[mine])
    want.backward()
    got.backward()
    pairs = dict(
        loss=(got, want),
        emb=(y.grad / me.num_processes, x.grad[mine]),
        weight=(part.weight.grad, whole.weight.grad[part.own]),
        saved=(part.state_dict()["weight"], whole.weight),
        logits=(part(emb), whole(emb)),
    )
    return {k: (a - b).abs().max().item() for k, (a, b) in pairs.items()} | dict(
        held=len(part.weight), norm=x.grad.norm().item()
    )


def scene(out):
    "What every process does and writes down"
    out, wrote = Path(out), []
    save = training.save_checkpoint
    training.save_checkpoint = lambda path, **kw: (wrote.append(Path(path).name), save(path, **kw))[1]
    logs = {
        name: train(out, name=name, **kw)
        for name, kw in dict(
            plain={},
            accumulated=dict(accumulate=2),
            frozen=dict(frozen_steps=7, body_lr=0.1, accumulate=2),
            normed=dict(norm=True),
            split=dict(head=dict(split=True)),
            sampled=dict(head=dict(split=True, sample=0.5)),
        ).items()
    }
    me = join_processes()
    model = logs["plain"][0]
    train(out, name="half", head=dict(split=True), until=2)
    uneven = {n: in_parts(lambda rows: torch.arange(100.0)[rows], n).tolist() for n in (7, 1, 0)}
    share = own_rows(7)
    mean = gather_rows(torch.arange(7.0)[share], 7).mean().item()
    seen = dict(
        rank=me.process_index,
        world=me.num_processes,
        wrote=wrote,
        uneven=uneven,
        mean=mean,
        training=model.training,
        split={h: against_the_whole(h) for h in ("arcface", "cosface")},
        sum=[p.double().sum().item() for p in model.parameters()],
        buffers=[b.double().sum().item() for b in logs["normed"][0].buffers()],
        logs={k: log.drop(columns=["seconds", "images_per_s"]).to_dict("list") for k, (_, log) in logs.items()},
    )
    (out / f"seen-{me.process_index}.json").write_text(json.dumps(seen))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def notebook(out):
    """As in a notebook: something was trained before, then two processes are launched, and launched again, when one
    of them is killed"""
    from accelerate import notebook_launcher

    train(Path(out) / "before", epochs=1)
    notebook_launcher(scene, (out,), num_processes=2, use_port=free_port())
    try:
        notebook_launcher(train, (Path(out) / "died", 1), num_processes=2, use_port=free_port())
    except Exception as e:
        (Path(out) / "died.txt").write_text(f"{type(e).__name__}: {e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    dict(scene=scene, notebook=notebook)[sys.argv[1]](sys.argv[2])
