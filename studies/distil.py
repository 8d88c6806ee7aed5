"""Tune the public-domain face network: ArcFace on people of CelebA, held near its old answers, on faces made worse.

    python -m studies.distil [--name held] [--weight 30] [--epochs 6] [--faces runs/recognition/faces-150]

Every face is seen moved, and half of the time made worse: dark and brightened again, overexposed, grey, small, blurred,
compressed, covered. The loss is ArcFace's (the head begins with the people's means) plus `weight` times one minus the
cosine to what the network said at the start about the clean face. The average of the weights over the last steps is
kept as NAME.npz in `--runs`, for `python -m studies.tuning --tuned NAME.npz`.
"""
import argparse
import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from facerec_nb.core.files import atomic_path, write_json
from facerec_nb.models.dlib_resnet import DlibResNet
from facerec_nb.models.losses.arcface import ArcFaceHead
from studies.recognition_faces import read_faces
from studies.tuning import BEST, TRAINED, pixels

SIDE = 150


@dataclass
class Tuning:
    "Settings of one training"
    weight: float = 30.  # of one minus the cosine to the old answer
    lr: float = 5e-5  # of the body, highest; the head's is `head_lr`
    head_lr: float = 4e-4
    epochs: float = 6.
    batch: int = 64
    scale: float = 128.
    margin: float = .1  # radians
    worse: float = .5  # share of the faces that are made worse
    more: int = 0  # further people of the role `more`
    seed: int = 0


# Faces made worse

def dark(x, r):
    "Dark, and brightened again with what eight bits have kept; one in four stays dark"
    x = np.rint(x*r.uniform(.06, .6))
    gain = r.uniform(90, 130)/max(x.mean(), 1) if r.random() < .75 else 1.
    return np.clip(x*max(gain, 1.), 0, 255).astype(np.uint8)


def bright(x, r): return np.clip(x*r.uniform(1.3, 3.), 0, 255).astype(np.uint8)
def grey(x, r): return np.repeat(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
def blurred(x, r): return cv2.GaussianBlur(x, (0, 0), r.uniform(.8, 3.5))


def small(x, r):
    "A face of few pixels, enlarged"
    side = int(r.integers(24, 76))
    low, how = cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA), (cv2.INTER_LINEAR, cv2.INTER_CUBIC)
    return cv2.resize(low, (SIDE, SIDE), interpolation=how[r.integers(2)])


def jpeg(x, r):
    data = cv2.imencode(".jpg", x[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(r.integers(6, 40))])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def covered(x, r):
    "A box of one colour somewhere"
    x, (h, w) = x.copy(), r.integers(25, 75, 2)
    top, left = r.integers(0, SIDE - h), r.integers(0, SIDE - w)
    x[top:top + h, left:left + w] = r.integers(0, 256, 3)
    return x


def noisy(x, r):
    "Another colour of the light, and noise"
    x = x*r.uniform(.6, 1.5, 3) + r.normal(0, r.uniform(2, 18), x.shape)
    return np.clip(x, 0, 255).astype(np.uint8)


WORSE = (dark, dark, bright, grey, small, small, jpeg, blurred, covered, noisy)


def moved(r):
    "The chip's cut with small errors of the points, or the head turned a little: a `(3, 3)` matrix about the middle"
    turn, zoom, A = np.radians(r.normal(0, 4)), BEST*np.exp(r.normal(0, .04)), np.eye(3)
    if r.random() < .3:
        A[0, 0], A[1, 0], A[2, 0] = 1 - abs(r.normal(0, .15)), r.normal(0, .04), r.normal(0, .001)
    c, s = zoom*np.cos(turn), zoom*np.sin(turn)
    return A @ np.array([[c, -s, r.normal(0, 2.5)], [s, c, r.normal(0, 2.5)], [0, 0, 1]])


def view(face, r, worse):
    "What the network sees of a face"
    middle = np.array([[1, 0, (SIDE - 1)/2], [0, 1, (SIDE - 1)/2], [0, 0, 1]])
    inner = np.diag([BEST, BEST, 1.]) if r.random() < .25 else moved(r)
    x = cv2.warpPerspective(face, middle @ inner @ np.linalg.inv(middle), (SIDE, SIDE), flags=cv2.INTER_LINEAR,
                            borderMode=cv2.BORDER_REPLICATE)
    if r.random() < worse: x = WORSE[r.integers(len(WORSE))](x, r)
    return x[:, ::-1] if r.random() < .5 else x


# Training

def people_of(table, more=0):
    "Rows of the faces to train on, and whose they are: the aligned people, and some of the further ones"
    further = np.unique(table.identity[table.role == "more"])
    further = np.random.default_rng(4).permutation(further)[:more]
    use = (table.role.isin(TRAINED) | table.identity.isin(further)).to_numpy()
    return table.row.to_numpy()[use], np.unique(table.identity.to_numpy()[use], return_inverse=True)[1]


@torch.no_grad()
def answers(net, faces, rows, batch=128):
    "What a network says about the clean faces, with the mirrored face: `(n, D)` of length 1"
    cut = np.array([[BEST, 0, (SIDE - 1)/2*(1 - BEST)], [0, BEST, (SIDE - 1)/2*(1 - BEST)]])
    out = []
    for part in np.split(rows, range(batch, len(rows), batch)):
        x = pixels(np.stack([cv2.warpAffine(faces[k], cut, (SIDE, SIDE), flags=cv2.INTER_LINEAR) for k in part]))
        with torch.autocast("cpu", torch.bfloat16): y = [net(v).float() for v in (x, x.flip(3))]
        out.append(F.normalize(F.normalize(y[0]) + F.normalize(y[1])))
    return torch.cat(out)


def tune(faces, rows, label, old, cfg, say=print):
    "Train; returns the averaged weights"
    torch.manual_seed(cfg.seed)
    r, y = np.random.default_rng(cfg.seed), torch.from_numpy(label)
    net = DlibResNet().load().to(memory_format=torch.channels_last)
    head = ArcFaceHead(old.shape[1], int(label.max()) + 1, cfg.scale, cfg.margin)
    head.start_from(old, y)
    mean = copy.deepcopy(net)
    groups = [dict(params=net.parameters(), lr=cfg.lr), dict(params=head.parameters(), lr=cfg.head_lr)]
    opt = torch.optim.AdamW(groups, betas=(.9, .99), weight_decay=0)
    steps, log, t0 = int(cfg.epochs*len(rows)/cfg.batch), [], time.time()
    order = np.concatenate([r.permutation(len(rows)) for _ in range(int(np.ceil(cfg.epochs)))])
    for k in range(steps):
        rate = min(1, (k + 1)/100)*.5*(1 + np.cos(np.pi*k/steps))
        for g, lr in zip(opt.param_groups, (cfg.lr, cfg.head_lr)): g["lr"] = lr*rate
        at = order[k*cfg.batch:(k + 1)*cfg.batch]
        x = pixels(np.stack([view(faces[i], r, cfg.worse) for i in rows[at]]))
        with torch.autocast("cpu", torch.bfloat16): e = net(x)
        e = e.float()
        losses = head.loss(e, y[at]), (1 - F.cosine_similarity(e, old[at])).mean()
        opt.zero_grad(set_to_none=True)
        (losses[0] + cfg.weight*losses[1]).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.)
        opt.step()
        with torch.no_grad():
            keep = min(.998, (k + 1)/(k + 10))
            for a, b in zip(mean.parameters(), net.parameters()): a.mul_(keep).add_(b, alpha=1 - keep)
        log.append([v.item() for v in losses])
        if k % 50 == 49: say(k + 1, steps, f"{time.time() - t0:.0f} s", *np.mean(log[-50:], 0).round(4), flush=True)
    return {k: v.contiguous().numpy() for k, v in mean.state_dict().items()}, np.array(log)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--name", default="held")
    say("--faces", default="runs/recognition/faces-150", help="folder of the aligned faces")
    say("--runs", default="runs/tuning", type=Path, help="folder of trainings and embeddings")
    for k, v in asdict(Tuning()).items(): say(f"--{k}", type=type(v), default=v)
    args = parser.parse_args()
    torch.set_num_threads(1); cv2.setNumThreads(1)
    cfg = Tuning(**{k: getattr(args, k) for k in asdict(Tuning())})
    args.runs.mkdir(parents=True, exist_ok=True)
    table, faces = read_faces(args.faces)
    rows, label = people_of(table, cfg.more)
    kept = args.runs/f"answers_{cfg.more}.npy"
    if not kept.exists():
        old = answers(DlibResNet().load().to(memory_format=torch.channels_last), faces, rows).numpy()
        with atomic_path(kept) as temp, open(temp, "wb") as f: np.save(f, old)
    print(len(rows), "faces of", label.max() + 1, "people", cfg, flush=True)
    weights, log = tune(faces, rows, label, torch.from_numpy(np.load(kept)), cfg)
    with atomic_path(args.runs/f"{args.name}.npz") as temp, open(temp, "wb") as f: np.savez(f, **weights)
    write_json(args.runs/f"{args.name}.json", asdict(cfg) | dict(log=log[::10].round(4).tolist()))


if __name__ == "__main__": main()
