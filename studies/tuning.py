"""The public-domain network tuned further: does it earn the place of the pipeline's default?

    python -m studies.tuning [--faces runs/recognition/faces-150] [--runs runs/tuning] [--data ../shared/data] [--train] [--untrained]

Trains what is missing (kept in `--runs`), lets every candidate sit the exam of `studies.tuning_exam`, and writes
results/recognition/tuning.json. The 300 held-out people and the calibration people are in no training.
"""
import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from facerec_nb.core.files import atomic_path
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.dlib_resnet import DlibResNet
from facerec_nb.models.dlib_weights import PIXEL_MEAN, PIXEL_SCALE
from studies.recognition_faces import read_faces
from studies.tuning_exam import against, bright, dim, grey, jpeg, open_exam, small

TRAINED = ("train", "test", "more")  # roles whose people are trained on


@dataclass
class Recipe:
    "How the start is tuned"
    lr: float = 6e-5  # of the body, the highest
    head_lr: float = 2e-4  # of the class centres
    epochs: float = 1
    margin: float = .1  # radians, ArcFace
    scale: float = 100.  # of the cosines, which lie close together: impostors at 0.75
    hold: float = 60.  # weight of one minus the cosine to the clean face's old embedding
    arc: float = 1.  # weight of the margin head
    clean: float = .3  # share of faces shown as they are
    batch: int = 64


RECIPES = dict(margin=Recipe())


# What the faces go through

CLOSER = (1., 1.05, 1.1, 1.15, 1.2)  # how much closer the chip is cut
BEST = 1.1  # chosen among them; `dlib_close` of core.geometry
SHIFTS = ((0, -4), (0, 4))  # pixels, of further views
PLAIN = ("calibration", "unseen", "lfw")  # sets without a degraded one


def cut(faces, closer=1., shift=(0, 0)):
    "Chips cut closer about their middle, and shifted"
    if closer == 1 and shift == (0, 0): return faces
    side = faces.shape[1]
    M = np.array([[closer, 0, (side - 1)/2*(1 - closer) + shift[0]], [0, closer, (side - 1)/2*(1 - closer) + shift[1]]])
    return np.stack([cv2.warpAffine(f, M, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                     for f in faces])


def hidden(face, rng):
    "A rectangle of one colour somewhere"
    face, (h, w) = face.copy(), rng.integers(25, 75, 2)
    y, x = rng.integers(0, len(face) - h), rng.integers(0, len(face) - w)
    face[y:y + h, x:x + w] = rng.integers(0, 256, 3)
    return face


def tinted(face, rng):
    "Another white balance, and noise"
    x = face*rng.uniform(.5, 1.6, 3) + rng.normal(0, rng.uniform(0, 18), face.shape)
    return np.clip(x, 0, 255).astype(np.uint8)


WORSE = (
    lambda x, r: np.rint(x*r.uniform(.08, .6)).astype(np.uint8),
    lambda x, r: np.clip(x*r.uniform(1.3, 3), 0, 255).astype(np.uint8),
    lambda x, r: grey(x),
    lambda x, r: small(x, int(r.integers(26, 75))),
    lambda x, r: jpeg(x, int(r.integers(6, 40))),
    lambda x, r: cv2.GaussianBlur(x, (0, 0), r.uniform(.8, 3.5)),
    hidden, tinted)


def moved(face, rng):
    "A turn, a shift, a zoom, and for a third of the faces a head turned a little to the side"
    middle = (len(face) - 1)/2
    to, back = np.eye(3), np.eye(3)
    to[:2, 2], back[:2, 2] = -middle, middle
    M, A = np.eye(3), np.eye(3)
    M[:2] = cv2.getRotationMatrix2D((middle, middle), rng.normal(0, 5), BEST*np.exp(rng.normal(0, .05)))
    M[:2, 2] += rng.normal(0, 3.5, 2)
    A[0, 0], A[0, 1] = np.exp(rng.normal(0, .04)), rng.normal(0, .04)
    if rng.random() < .35:
        A = np.array([[1 - abs(rng.normal(0, .16)), 0, 0], [rng.normal(0, .04), 1, 0], [rng.normal(0, .0012), 0, 1]])
    border = cv2.BORDER_REPLICATE if rng.random() < .5 else cv2.BORDER_CONSTANT
    return cv2.warpPerspective(face, back @ A @ to @ M, face.shape[:2], flags=cv2.INTER_LINEAR, borderMode=border)


def shown(face, rng, clean):
    "A face as it is, cut closer, and as the network sees it in training"
    if rng.random() < .5: face = face[:, ::-1]
    plain = cut(face[None], BEST)[0]
    if rng.random() < clean: return plain, plain
    face = moved(np.ascontiguousarray(face), rng)
    return plain, WORSE[rng.integers(len(WORSE))](face, rng) if rng.random() < .5 else face


# Network

def pixels(faces):
    "What goes in"
    x = torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float()
    return ((x - torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1))/PIXEL_SCALE).to(memory_format=torch.channels_last)


def embed(net, faces, batch=64):
    "Embeddings of faces and their mirror images, as the pipeline adds them"
    out = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for i in range(0, len(faces), batch):
            x = pixels(faces[i:i + batch])
            out.append(F.normalize(sum(F.normalize(net(v).float()) for v in (x, x.flip(3)))))
    return torch.cat(out).numpy()


def between(start, tuned, share):
    "A network whose weights lie between two others"
    net, a, b = DlibResNet(), start.state_dict(), tuned.state_dict()
    net.load_state_dict({k: (1 - share)*a[k] + share*b[k] for k in a})
    return net.to(memory_format=torch.channels_last)


def margin_loss(e, y, head, recipe):
    "ArcFace"
    c = (e @ F.normalize(head).T).clamp(-1 + 1e-6, 1 - 1e-6)
    own, m = c.gather(1, y[:, None]), recipe.margin
    harder = own*np.cos(m) - (1 - own**2).sqrt()*np.sin(m)
    return F.cross_entropy(recipe.scale*c.scatter(1, y[:, None], harder), y)


def batches(label, size, rng):
    "Row numbers without end; the faces of a person two by two"
    while True:
        order = rng.permutation(len(label))
        order = order[np.argsort(label[order], kind="stable")]
        pairs = order[:len(order)//2*2].reshape(-1, 2)
        order = rng.permutation(pairs).ravel()
        yield from (order[i:i + size] for i in range(0, len(order) - size + 1, size))


def tune(faces, rows, label, centres, recipe, seed=0):
    "The start tuned; returns the mean of the weights over the path, and seconds"
    rng, net, begun = np.random.default_rng(seed), DlibResNet().load().to(memory_format=torch.channels_last), time.time()
    start, mean = between(net, net, 0.), between(net, net, 0.)
    head = torch.nn.Parameter(torch.from_numpy(centres))
    groups = [dict(params=list(net.parameters()), lr=recipe.lr), dict(params=[head], lr=recipe.head_lr)]
    steps, feed = int(recipe.epochs*(len(rows)//recipe.batch)), batches(label, recipe.batch, rng)
    opt = torch.optim.AdamW(groups, weight_decay=0, betas=(.9, .99))
    plan = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda k: min(1, (k + 1)/100)*.5*(1 + np.cos(np.pi*k/steps)))
    for k in range(steps):
        at = next(feed)
        plain, x = (pixels(np.stack(v)) for v in zip(*[shown(faces[rows[i]], rng, recipe.clean) for i in at]))
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad(): old = start(plain)
            e = net(x)
        e, y = F.normalize(e.float()), torch.from_numpy(label[at])
        away = 1 - (e*F.normalize(old.float())).sum(1).mean()
        arc = margin_loss(e, y, head, recipe)
        loss = recipe.arc*arc + recipe.hold*away
        if k % 20 == 19: print(f"step {k + 1} of {steps}: margin {arc:.3f}, away {away:.4f}", flush=True)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.)
        opt.step()
        plan.step()
        with torch.no_grad():
            for a, b in zip(mean.parameters(), net.parameters()): a.lerp_(b, 1 - min(.998, (k + 1)/(k + 10)))
    return mean, time.time() - begun


# Candidates: name -> embeddings of the exam's sets

class Views:
    "Raw embeddings of the exam's sets and their mirror images, kept in a folder"
    def __init__(self, exam, runs):
        self.exam, self.runs, self.start = exam, Path(runs), None
        self.runs.mkdir(parents=True, exist_ok=True)

    def raw(self, name, sets, closer=1., shift=(0, 0), net=None):
        "`(N, 2, 128)` of each set, computed once"
        path = self.runs/f"{name}_{closer:g}_{shift[0]}_{shift[1]}.npz"
        kept = dict(np.load(path)) if path.exists() else {}
        if not set(sets) <= set(kept):
            if net is None: net = self.start = self.start or DlibResNet().load().to(memory_format=torch.channels_last)
            kept |= {k: raw_of(net, cut(self.exam.sets[k], closer, shift)) for k in sets if k not in kept}
            with atomic_path(path) as temp, open(temp, "wb") as f: np.savez(f, **kept)
        return {k: kept[k] for k in sets}


def raw_of(net, faces, batch=64):
    "Embeddings as they leave the network, of faces and of their mirror images"
    out = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for i in range(0, len(faces), batch):
            x = pixels(faces[i:i + batch])
            out.append(torch.stack([net(v).float() for v in (x, x.flip(3))], 1))
    return torch.cat(out).numpy()


def unit(x): return x/np.linalg.norm(x, axis=-1, keepdims=True)


def added(*raws):
    "The sum of views, as the pipeline adds a face and its mirror image"
    return {k: unit(sum(unit(r[k]).sum(1) for r in raws)) for k in raws[0]}


def mapped(raw, A, b):
    "A linear map before the length is taken off"
    return added({k: v @ A + b for k, v in raw.items()})


def root(S, power, ridge=.1):
    "A power of a covariance matrix, with a little of the identity"
    values, vectors = np.linalg.eigh(S + ridge*np.trace(S)/len(S)*np.eye(len(S)))
    return vectors*values**power @ vectors.T


def linear_maps(train, label):
    "Maps fitted on training people's raw embeddings: the mean off, within-person whitening, discriminants"
    from scipy.linalg import eigh
    x = train.mean(1)
    mean, own = x.mean(0), np.stack([x[label == k].mean(0) for k in range(label.max() + 1)])
    within, between, one = np.cov((x - own[label]).T), np.cov(own.T), np.eye(x.shape[1])
    values, vectors = eigh(between, within + .1*np.trace(within)/len(within)*one)
    maps = dict(mean_off=one, within=root(within, -.5), total_half=root(np.cov(x.T), -.25), discriminants=vectors)
    out = {k: (A, -mean @ A) for k, A in maps.items()}
    return out | dict(mean_half=(one, -mean/2), mean_more=(one, mean/2))


# The exam, for all

SHOWN = ("calibration_tar0.001", "calibration_tar0.0001", "unseen_tar0.001", "unseen_tar0.0001", "rank1_1", "rank1_3",
         "rank1_5", "dir_1", "dir_3", "dir_5", "lfw_accuracy", "lfw_tar0.001", "pose_accuracy", "pose_tar0.01")


def free_candidates(views, training):
    "What can be made of the start without training it: name -> embeddings"
    every = list(views.exam.sets)
    at = {c: views.raw("start", every if c in (1, BEST) else PLAIN, c) for c in (1., BEST, *CLOSER)}
    shifted = [views.raw("start", PLAIN, BEST, s) for s in SHIFTS]
    plain = {k: at[BEST][k] for k in PLAIN}
    out = dict(start=added(at[1.])) | {f"closer_{c:g}": added(at[c]) for c in CLOSER[1:]}
    out["views_two"] = added(at[1.05], at[1.15])
    out["views_three"] = added(plain, *shifted)
    return out | {k: mapped(at[1.], A, b) for k, (A, b) in linear_maps(*training()).items()}


def tuned_candidates(views, nets):
    "Trained networks, and halfway between the start and each"
    start, out = DlibResNet().load(), {}
    for name, net in nets.items():
        for share, word in ((1., ""), (.5, "_half")):
            raw = views.raw(name + word, list(views.exam.sets), BEST, net=between(start, net, share))
            out[f"tuned_{name}{word}"] = added(raw)
    return out


def train_all(faces, table, runs, recipes):
    "Every recipe's network, trained where it is not there"
    nets, seconds = {}, {}
    use = table.role.isin(TRAINED).to_numpy()
    rows, label = table.row.to_numpy()[use], np.unique(table.identity.to_numpy()[use], return_inverse=True)[1]
    for name, recipe in recipes.items():
        path = Path(runs)/f"tuned_{name}.pt"
        if not path.exists():
            old = added(dict(train=train_raw(faces, table, runs)[0]))["train"]
            centres = np.zeros((label.max() + 1, old.shape[1]), np.float32)
            np.add.at(centres, label, old)
            net, took = tune(faces, rows, label, unit(centres), recipe)
            with atomic_path(path) as temp: torch.save(dict(weights=net.state_dict(), seconds=took), temp)
        said = torch.load(path, weights_only=True)
        nets[name] = DlibResNet()
        nets[name].load_state_dict(said["weights"])
        seconds[name] = said["seconds"]
    return nets, seconds


def train_raw(faces, table, runs):
    "Raw embeddings of the training faces and whose they are, kept in a folder"
    use, path = table.role.isin(TRAINED).to_numpy(), Path(runs)/"train_raw.npy"
    if not path.exists():
        net = DlibResNet().load().to(memory_format=torch.channels_last)
        with atomic_path(path) as temp, open(temp, "wb") as f: np.save(f, raw_of(net, faces[table.row.to_numpy()[use]]))
    return np.load(path), np.unique(table.identity.to_numpy()[use], return_inverse=True)[1]


def as_metrics(numbers, base):
    "Values with intervals, and differences with the start, as metrics; and all of them as a plain table"
    out, every = {}, {}
    for name, d in numbers.items():
        gap = against(d, base[d.columns])
        every[name] = {k: [round(float(v), 5) for v in (r.value, r.difference, r.low, r.high)]
                       for k, r in gap.iterrows()}
        for k in SHOWN:
            low, high = d[k].iloc[1:].quantile([.025, .975])
            v, r = float(d[k].iloc[0]), gap.loc[k]
            out[f"{k}_{name}"] = metric(v, min(low, v), max(high, v), unit="share")
            if name == "start": continue
            unit_ = "difference with the start, people drawn together"
            out[f"{k}_{name}_minus_start"] = metric(
                r.difference, min(r.low, r.difference), max(r.high, r.difference), unit=unit_)
    return out, dict(columns=["value", "difference", "low", "high"], numbers=every)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--faces", default="runs/recognition/faces-150", help="folder of the aligned faces")
    say("--runs", default="runs/tuning", help="folder of trainings and embeddings")
    say("--data", default="../shared/data", type=Path, help="folder of the raw data")
    say("--boot", type=int, default=200, help="bootstrap draws over people")
    say("--out", default="results/recognition/tuning.json", help="the record")
    say("--train", action="store_true", help="train what is missing, and stop")
    say("--untrained", action="store_true", help="leave the trainings out")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table, faces = read_faces(args.faces)
    if args.train: return train_all(faces, table, args.runs, RECIPES)
    exam = open_exam(table, faces, args.data, n_boot=args.boot)
    views, seconds = Views(exam, args.runs), {}
    parts = free_candidates(views, lambda: train_raw(faces, table, args.runs))
    if not args.untrained:
        nets, seconds = train_all(faces, table, args.runs, RECIPES)
        parts |= tuned_candidates(views, nets)
    numbers = {name: exam.numbers(emb) for name, emb in parts.items()}
    out, every = as_metrics(numbers, numbers["start"])
    out |= {f"seconds_{k}": metric(v, unit="s of wall time, one thread, beside other jobs") for k, v in seconds.items()}
    data = dict(name="celeba-wild-60x30 (48 people), celeba-aligned-3000x5 (300 people), lfw-view1-devtest",
                n_people=48 + 300, n_images=int(sum(len(v) for v in exam.rows.values())))
    what = "The public-domain face network as it is, its chip cut closer, in several views, behind linear maps, and tuned"
    write_record(args.out, record(what, "python -m studies.tuning", data, out, every, [0]))
    for name, d in numbers.items(): print(name, d.iloc[0][list(SHOWN)].round(4).to_dict())


if __name__ == "__main__": main()
