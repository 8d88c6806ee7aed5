"""What can be made of the public-domain network: which form of it is the pipeline's default?

    python -m studies.tuning [--faces runs/recognition/faces-150] [--tuned NAME=FILE...]

Every candidate sits the exam of `studies.tuning_exam`: the network as it is, its chip cut closer, further views, linear
maps fitted on the training people, and networks tuned on them (`python -m studies.recognition --train arcface_faces:0`,
`python -m studies.distil`) with their weights taken whole, or averaged with the start's. Writes
results/recognition/tuning.json; embeddings are kept in `--runs`.
"""
import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from facerec_nb.core.files import InputError, atomic_path, fingerprint
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.models.dlib_resnet import DlibResNet
from facerec_nb.models.dlib_weights import PIXEL_MEAN, PIXEL_SCALE
from studies.recognition_faces import read_faces
from studies.tuning_exam import against, open_exam

TRAINED = ("train", "test")  # roles whose people the linear maps are fitted on
PLAIN = ("calibration", "unseen", "lfw")  # sets without a degraded one
TUNED = ["tuned=runs/recognition/arcface_faces-0/best_af.pth", "held=runs/tuning/held.npz", "far=runs/tuning/far.npz"]
CLOSER = (1., 1.05, 1.1, 1.2)  # how much closer the chip is cut
BEST = 1.1  # chosen among them; `dlib_close` of core.geometry
SHARES = (1., .5)  # of the tuned weights in the mean with the start's


# Faces and network

def cut(faces, closer=1., shift=(0, 0)):
    "Chips cut closer about their middle, and shifted"
    if closer == 1 and shift == (0, 0): return faces
    side = faces.shape[1]
    M = np.array([[closer, 0, (side - 1)/2*(1 - closer) + shift[0]], [0, closer, (side - 1)/2*(1 - closer) + shift[1]]])
    return np.stack([cv2.warpAffine(f, M, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
                     for f in faces])


def pixels(faces):
    "What goes in"
    x = torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float()
    return ((x - torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1))/PIXEL_SCALE).to(memory_format=torch.channels_last)


def between(tuned, share):
    "The start's weights, on the way to a tuned network's"
    net = DlibResNet().load()
    a, b = net.state_dict(), tuned
    if {k: v.shape for k, v in a.items()} != {k: v.shape for k, v in b.items()}:
        raise InputError("the tuned checkpoint holds another network: give one of start='faces' and dlib_resnet")
    net.load_state_dict({k: (1 - share)*a[k] + share*b[k].float() for k in a})
    return net.to(memory_format=torch.channels_last)


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


def train_raw(faces, table, runs, roles=TRAINED):
    "Raw embeddings of training faces and whose they are, kept in a folder"
    use, path = table.role.isin(roles).to_numpy(), Path(runs)/f"raw_{'_'.join(roles)}.npy"
    if not path.exists():
        net = DlibResNet().load().to(memory_format=torch.channels_last)
        with atomic_path(path) as temp, open(temp, "wb") as f: np.save(f, raw_of(net, faces[table.row.to_numpy()[use]]))
    return np.load(path), np.unique(table.identity.to_numpy()[use], return_inverse=True)[1]


def free_candidates(views, training):
    "What can be made of the start without training it: name -> embeddings"
    every = list(views.exam.sets)
    at = {c: views.raw("start", every if c in (1, BEST) else PLAIN, c) for c in CLOSER}
    out = dict(start=added(at[1.])) | {f"closer_{c:g}": added(at[c]) for c in CLOSER[1:]}
    out["views_two"] = added(at[1.05], at[1.2])
    return out | {k: mapped(at[1.], A, b) for k, (A, b) in linear_maps(*training).items()}


def tuned_weights(path):
    "The body's weights, of a training of `studies.recognition` or of `studies.distil`"
    if Path(path).suffix == ".npz": return {k: torch.from_numpy(v) for k, v in np.load(path).items()}
    weights = load_checkpoint(path, kind="embedder")["weights"]["backbone"]
    return {k.removeprefix("backbone."): v for k, v in weights.items()}


def tuned_candidates(views, name, path):
    "A tuned network, and its weights averaged with the start's: name -> embeddings"
    tuned, key, out = tuned_weights(path), fingerprint(Path(path)), {}
    for share in SHARES:
        raw = views.raw(f"{name}_{key}_{share:g}", list(views.exam.sets), BEST, net=between(tuned, share))
        out[f"{name}_{share:g}"] = added(raw)
    return out


# The exam, for all

SHOWN = ("calibration_tar0.001", "calibration_tar0.0001", "unseen_tar0.001", "unseen_tar0.0001", "rank1_1", "rank1_3",
         "rank1_5", "dir_1", "dir_3", "dir_5", "lfw_accuracy", "lfw_tar0.001", "pose_accuracy", "pose_tar0.01")


def plain_rows(gap):
    "Value, difference, low and high of each number"
    return {k: [round(float(v), 5) for v in (r.value, r.difference, r.low, r.high)] for k, r in gap.iterrows()}


def as_metrics(numbers, tuned):
    "Values with intervals, and differences with the start, as metrics; and all of them as plain tables"
    out, every, base, best = {}, {}, numbers["start"], numbers[f"closer_{BEST:g}"]
    tuned = {name: plain_rows(against(numbers[name], best)) for name in tuned}
    for name, d in numbers.items():
        gap = against(d, base[d.columns])
        every[name] = plain_rows(gap)
        for k in SHOWN:
            low, high = d[k].iloc[1:].quantile([.025, .975])
            v, r = float(d[k].iloc[0]), gap.loc[k]
            out[f"{k}_{name}"] = metric(v, min(low, v), max(high, v), unit="share")
            if name == "start": continue
            unit_ = "difference with the start, people drawn together"
            out[f"{k}_{name}_minus_start"] = metric(
                r.difference, min(r.low, r.difference), max(r.high, r.difference), unit=unit_)
    return out, dict(columns=["value", "difference", "low", "high"], numbers=every, tuned_against_closer=tuned)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--faces", default="runs/recognition/faces-150", help="folder of the aligned faces")
    say("--runs", default="runs/tuning", help="folder of trainings and embeddings")
    say("--data", default="../shared/data", type=Path, help="folder of the raw data")
    say("--boot", type=int, default=100, help="bootstrap draws over people")
    say("--out", default="results/recognition/tuning.json", help="the record")
    say("--tuned", nargs="*", default=TUNED, metavar="NAME=FILE", help="tuned networks")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table, faces = read_faces(args.faces)
    exam = open_exam(table, faces, args.data, n_boot=args.boot)
    views = Views(exam, args.runs)
    parts = free_candidates(views, train_raw(faces, table, args.runs))
    tuned = {}
    for given in args.tuned: tuned |= tuned_candidates(views, *given.split("=", 1))
    parts, numbers = parts | tuned, {}
    for name, emb in parts.items():
        numbers[name] = exam.numbers(emb)
        print(name, numbers[name].iloc[0][list(SHOWN)].round(4).to_dict(), flush=True)
    out, every = as_metrics(numbers, list(tuned))
    data = dict(name="celeba-wild-60x30 (48 people), celeba-aligned-3000x5 (300 people), lfw-view1-devtest",
                n_people=int(sum(w.max() + 1 for w in exam.who.values())), fingerprint=fingerprint(table.to_csv()),
                n_images=int(sum(len(v) for v in exam.rows.values())))
    what = "The public-domain face network as it is, its chip cut closer, in two views, behind linear maps, and tuned"
    write_record(args.out, record(what, "python -m studies.tuning", data, out, every, [0]))


if __name__ == "__main__": main()
