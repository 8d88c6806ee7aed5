"""The public-domain network tuned further: does it earn the place of the pipeline's default?

    python -m studies.tuning [--faces runs/recognition/faces-150] [--runs runs/tuning] [--data ../shared/data] [--train NAME]

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
    lr: float = 5e-5  # of the body, the highest
    head_lr: float = 2e-4  # of the class centres
    epochs: float = 3
    margin: float = .1  # radians, ArcFace
    scale: float = 80.  # of the cosines, which lie close together: impostors at 0.75
    hold: float = 60.  # weight of one minus the cosine to the clean face's old embedding
    arc: float = 1.  # weight of the margin head
    clean: float = .3  # share of faces shown as they are
    batch: int = 64


RECIPES = dict(margin=Recipe())


# What the faces go through

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
    M[:2] = cv2.getRotationMatrix2D((middle, middle), rng.normal(0, 5), np.exp(rng.normal(0, .05)))
    M[:2, 2] += rng.normal(0, 3.5, 2)
    A[0, 0], A[0, 1] = np.exp(rng.normal(0, .04)), rng.normal(0, .04)
    if rng.random() < .35:
        A = np.array([[1 - abs(rng.normal(0, .16)), 0, 0], [rng.normal(0, .04), 1, 0], [rng.normal(0, .0012), 0, 1]])
    border = cv2.BORDER_REPLICATE if rng.random() < .5 else cv2.BORDER_CONSTANT
    return cv2.warpPerspective(face, back @ A @ to @ M, face.shape[:2], flags=cv2.INTER_LINEAR, borderMode=border)


def shown(face, rng, clean):
    "A face as the network sees it in training"
    if rng.random() < .5: face = face[:, ::-1]
    face = np.ascontiguousarray(face)
    if rng.random() < clean: return face
    face = moved(face, rng)
    return WORSE[rng.integers(len(WORSE))](face, rng) if rng.random() < .5 else face


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


def tune(faces, rows, label, old, recipe, seed=0):
    "The start tuned; returns the mean of the weights over the path, and seconds"
    rng, net, begun = np.random.default_rng(seed), DlibResNet().load().to(memory_format=torch.channels_last), time.time()
    mean = between(net, net, 0.)
    head = torch.nn.Parameter(F.normalize(torch.zeros(label.max() + 1, old.shape[1]).index_add_(
        0, torch.from_numpy(label), old)))
    groups = [dict(params=list(net.parameters()), lr=recipe.lr), dict(params=[head], lr=recipe.head_lr)]
    steps, feed = int(recipe.epochs*(len(rows)//recipe.batch)), batches(label, recipe.batch, rng)
    opt = torch.optim.AdamW(groups, weight_decay=0, betas=(.9, .99))
    plan = torch.optim.lr_scheduler.LambdaLR(
        opt, lambda k: min(1, (k + 1)/100)*.5*(1 + np.cos(np.pi*k/steps)))
    for k in range(steps):
        at = next(feed)
        x = pixels(np.stack([shown(faces[rows[i]], rng, recipe.clean) for i in at]))
        with torch.autocast("cpu", torch.bfloat16): e = net(x)
        e, y = F.normalize(e.float()), torch.from_numpy(label[at])
        loss = recipe.arc*margin_loss(e, y, head, recipe) + recipe.hold*(1 - (e*old[at]).sum(1)).mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.)
        opt.step()
        plan.step()
        with torch.no_grad():
            for a, b in zip(mean.parameters(), net.parameters()): a.lerp_(b, 1 - min(.998, (k + 1)/(k + 10)))
    return mean, time.time() - begun
