"""Students of the default recogniser: narrower ones, taught to answer as it does, or as wide, without a mirror image.

    python -m studies.student [--name half] [--inner 16,32,64,128,128] [--epochs 5]
    python -m studies.student --name whole --inner 32,64,128,256,256 --epochs 10 --lr 1e-4
    python -m studies.student --measure --name half,whole

Every block keeps its strongest channels between its two convolutions, and a second convolution that is fitted by least
squares to make up for the others on some faces, so that the student begins near its teacher; one with all of the
teacher's channels begins as the teacher. It sees the faces of the
2,700 training people moved, and a share of them made worse, as in `studies.distil`; nobody's name is used. The loss is
one minus the cosine to what the teacher says about the clean face and its mirror image, plus `relation` times how far
the cosines between the faces of a batch are from the teacher's. The average of the weights over the last steps is kept
as NAME.npz in `--runs`.

`--measure` writes results/recognition/student.json: teacher and student, in 32 and in 8 bits, sit the exam of
`studies.tuning_exam` as ONNX files, with the mirrored face and, in 8 bits, also without it; times are processor time of
one thread, all in turns.
"""
import argparse
import copy
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.processors import milliseconds
from facerec_nb.core.files import atomic_path, fingerprint, read_json, write_json
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.engines.dlib_onnx import DEFAULT, SHIPPED, dlib_about, dlib_graph, dlib_scales
from facerec_nb.engines.onnx_embedder import OnnxEmbedder
from facerec_nb.engines.onnx_files import seal, set_about
from facerec_nb.models.dlib_resnet import WIDTHS, DlibResNet, fill_up
from studies.distil import answers, people_of, view
from studies.recognition_faces import read_faces
from studies.tuning import BEST, cut, pixels
from studies.tuning_exam import against, open_exam

HALF = tuple(w//2 for w in WIDTHS)
ASKED = ("dir_1", "dir_3", "dir_5", "rank1_1", "rank1_3", "rank1_5", "calibration_tar0.001", "unseen_tar0.001",
         "lfw_accuracy", "lfw_tar0.001", "pose_tar0.01", "dir_bright", "dir_small", "dir_jpeg", "dir_grey")


@dataclass
class Lesson:
    "Settings of one training"
    inner: str = ",".join(map(str, HALF))  # channels inside the blocks of the five stages
    epochs: float = 5.
    lr: float = 2e-4
    batch: int = 64
    relation: float = .05  # weight of the cosines between faces
    worse: float = .3  # share of the faces that are made worse
    begin: int = 1000  # faces that the beginning is fitted on
    seed: int = 0

    @property
    def channels(self): return tuple(map(int, self.inner.split(",")))


# The beginning

def largest(score, n):
    "The places of the n highest values, in order"
    return score.argsort(descending=True)[:n].sort().values


def ways(block, x, branch):
    "What goes past a block's convolutions, and what is to come out of them, on the same map"
    if not block.halve: return x, branch
    x = F.avg_pool2d(x, 2)
    side = max(int(x.shape[2]), int(branch.shape[2]))
    return fill_up(x, branch.shape[1], side), fill_up(branch, branch.shape[1], side)


def fitted(h, wanted, most=100_000, ridge=1e-3):
    "The second convolution that makes `wanted` of the maps between: least squares over places of the maps"
    patches = F.unfold(h, 3, padding=1).transpose(1, 2).flatten(0, 1)
    y = wanted.flatten(2).transpose(1, 2).flatten(0, 1)
    some = torch.randperm(len(y))[:most]
    x, y = F.pad(patches[some], (0, 1), value=1.).double(), y[some].double()
    A = x.T @ x
    w = torch.linalg.solve(A + ridge*A.diagonal().mean()*torch.eye(len(A), dtype=A.dtype), x.T @ y).float().T
    return w[:, :-1].reshape(len(w), -1, 3, 3), w[:, -1]


@torch.no_grad()
def narrow_block(mine, old, x, taught):
    "Fill one block: the strongest channels inside it, and a second convolution that makes up for the others"
    between = F.relu(old.a(taught))
    way, branch = ways(old, taught, old.b(between))
    strength = between.std((0, 2, 3))*old.b.weight.square().sum((0, 2, 3)).sqrt()
    kept = largest(strength, len(mine.a.weight))
    mine.a.weight.copy_(old.a.weight[kept]); mine.a.bias.copy_(old.a.bias[kept])
    h, total = F.relu(mine.a(x)), way + branch
    wanted = (total - ways(old, x, old.b(between))[0])[:, :, :h.shape[2], :h.shape[3]]
    weight, bias = fitted(h, wanted)
    mine.b.weight.copy_(weight); mine.b.bias.copy_(bias)
    return mine(x), F.relu(total)


@torch.no_grad()
def narrowed(teacher, inner, x):
    "A network with fewer channels inside its blocks that begins near its teacher, as far as some faces show"
    net = DlibResNet(inner=inner)
    for m, of in ((net.stem, teacher.stem), (net.fc, teacher.fc)): m.load_state_dict(of.state_dict())
    taught = mine = F.max_pool2d(F.relu(teacher.stem(x)), 3, 2)
    for block, old in zip(net.blocks, teacher.blocks): mine, taught = narrow_block(block, old, mine, taught)
    return net


# Training

def off(e, t):
    "How far from the teacher's answers: each face's, and the cosines between faces, as shares of the teacher's spread"
    e, other = F.normalize(e), ~torch.eye(len(e), dtype=bool)
    spread, cosines = 1 - F.normalize(t.mean(0), dim=0) @ t.T, (t @ t.T)[other]
    gap = ((e @ e.T)[other] - cosines).square().mean()/cosines.var()
    return (1 - (e*t).sum(1)).mean()/spread.mean(), gap


def averaged(mean, net, k):
    "Move an average of weights on, by step k"
    keep = min(.998, (k + 1)/(k + 10))
    with torch.no_grad():
        for a, b in zip(mean.parameters(), net.parameters()): a.mul_(keep).add_(b, alpha=1 - keep)


def teach(faces, rows, wanted, cfg, teacher, say=print):
    "Train; returns the network with averaged weights, and the losses of every step"
    torch.manual_seed(cfg.seed)
    r = np.random.default_rng(cfg.seed)
    some = np.sort(r.permutation(rows)[:cfg.begin])
    whole = cfg.channels == WIDTHS
    net = copy.deepcopy(teacher) if whole else narrowed(teacher, cfg.channels, pixels(cut(faces[some], BEST)))
    net, log, t0 = net.to(memory_format=torch.channels_last), [], time.time()
    mean, opt = copy.deepcopy(net), torch.optim.AdamW(net.parameters(), cfg.lr, weight_decay=1e-3)
    steps = int(cfg.epochs*len(rows)/cfg.batch)
    order = np.concatenate([r.permutation(len(rows)) for _ in range(int(np.ceil(cfg.epochs)))])
    for k in range(steps):
        for g in opt.param_groups: g["lr"] = cfg.lr*min(1, (k + 1)/100)*.5*(1 + np.cos(np.pi*k/steps))
        at = order[k*cfg.batch:(k + 1)*cfg.batch]
        x = pixels(np.stack([view(faces[i], r, cfg.worse) for i in rows[at]]))
        with torch.autocast("cpu", torch.bfloat16): e = net(x)
        own, between = off(e.float(), wanted[at])
        opt.zero_grad(set_to_none=True)
        (own + cfg.relation*between).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.)
        opt.step()
        averaged(mean, net, k)
        log.append([own.item(), between.item()])
        if k % 50 == 49: say(k + 1, steps, f"{time.time() - t0:.0f} s", *np.mean(log[-50:], 0).round(4), flush=True)
    return mean, np.array(log)


def teachers_answers(teacher, faces, rows, path):
    "What the teacher says about the clean faces; kept"
    if not path.exists():
        found = answers(teacher.to(memory_format=torch.channels_last), faces, rows).numpy()
        with atomic_path(path) as temp, open(temp, "wb") as f: np.save(f, found)
    return torch.from_numpy(np.load(path))


def train(table, faces, cfg, args):
    "One student, kept as NAME.npz and NAME.json"
    rows, teacher = people_of(table)[0], DlibResNet().take(SHIPPED[DEFAULT]["weights"]())
    wanted, before = teachers_answers(teacher, faces, rows, args.runs/f"answers_{DEFAULT}.npy"), time.process_time()
    print(len(rows), "faces", cfg, flush=True)
    net, log = teach(faces, rows, wanted, cfg, teacher)
    with atomic_path(args.runs/f"{args.name}.npz") as temp, open(temp, "wb") as f:
        np.savez(f, **{k: v.contiguous().numpy() for k, v in net.state_dict().items()})
    last = dict(zip(("answers", "relation"), log[-200:].mean(0).tolist()))
    spent = time.process_time() - before
    write_json(args.runs/f"{args.name}.json", asdict(cfg) | dict(faces=len(rows), seconds=spent, last=last))


# The exam

def read_student(runs, name):
    "Its weights, and how it was trained"
    about = read_json(runs/f"{name}.json")
    net = DlibResNet(inner=Lesson(about["inner"]).channels)
    net.load_state_dict({k: torch.from_numpy(v) for k, v in np.load(runs/f"{name}.npz").items()})
    return net.give(), about


def make_files(networks, sample, tmp):
    "Every network in 32 and in 8 bits: name -> file"
    out = {}
    for name, weights in networks.items():
        for form, scales in ((name, None), (f"{name}_int8", dlib_scales(weights, sample))):
            model, out[form] = dlib_graph(weights, scales), tmp/f"{form}.onnx"
            set_about(model, dlib_about(DEFAULT) | dict(fingerprint=form, int8=scales is not None))
            out[form].write_bytes(seal(model.SerializeToString()))
    return out


def differences(numbers):
    "Values of every form, and how far from the teacher in 32 bits"
    out = {}
    for name, d in numbers.items():
        for k, r in against(d, numbers["teacher"]).loc[list(ASKED)].iterrows():
            low, high = d[k].iloc[1:].quantile([.025, .975])
            out[f"{k}_{name}"] = metric(r.value, min(low, r.value), max(high, r.value), unit="share")
            if name == "teacher": continue
            ends, unit = (min(r.low, r.difference), max(r.high, r.difference)), "difference, people drawn together"
            out[f"{k}_{name}_minus_teacher"] = metric(r.difference, *ends, unit=unit)
    return out


def costs(files, networks, faces):
    "Milliseconds per face, how many times as long the teacher takes in as many bits, bytes, weights"
    took = milliseconds(files, np.ascontiguousarray(faces.transpose(0, 3, 1, 2), np.float32))
    ratio = {f"ratio_{n}": took["teacher_int8" if n.endswith("int8") else "teacher"]/t for n, t in took.items()
             if not n.startswith("teacher")}
    out = {f"ms_{n}": (t, "ms of processor time per face, 1 thread") for n, t in took.items()}
    out |= {n: (t, "the teacher's time in as many bits over this one's, in turns") for n, t in ratio.items()}
    out = {n: metric(float(np.median(t)), *np.quantile(t, [.025, .975]).tolist(), n=len(t), unit=u)
           for n, (t, u) in out.items()}
    out |= {f"bytes_{n}": metric(f.stat().st_size, unit="bytes") for n, f in files.items()}
    return out | {f"weights_{n}": metric(sum(v.size for v in (*w["weight"], *w["bias"], w["last"])), unit="weights")
                  for n, w in networks.items()}


def alike(emb):
    "Mean cosine with the teacher in 32 bits over all photographs of the exam"
    of = {n: np.concatenate([(e[s]*emb["teacher"][s]).sum(1) for s in e]) for n, e in emb.items() if n != "teacher"}
    return {f"cosine_{n}": metric(float(c.mean()), n=len(c), unit="cosine with the teacher") for n, c in of.items()}


def embedded(file, sets, runs, flip):
    "Embeddings of the exam's sets, mirrored faces added or not; kept"
    path = runs/f"student_exam_{fingerprint(file)}_{'mirror' if flip else 'alone'}.npz"
    if not path.exists():
        net = OnnxEmbedder(file, 1)
        made = {s: net.embed(x, flip=flip) for s, x in sets.items()}
        with atomic_path(path) as temp, open(temp, "wb") as f: np.savez(f, **made)
    return dict(np.load(path))


def every_form(files, sets, runs):
    "Embeddings of every form with the mirrored face, and of those in 8 bits without it: name -> set -> (N, D)"
    alone = {f"{n}_alone": embedded(f, sets, runs, False) for n, f in files.items() if n.endswith("int8")}
    return {n: embedded(f, sets, runs, True) for n, f in files.items()} | alone


def measure(table, faces, args):
    "The record"
    exam = open_exam(table, faces, args.data, n_boot=args.boot)
    sets = {k: cut(v, BEST) for k, v in exam.sets.items()}
    some = np.random.default_rng(0).permutation(table.row[table.role == "train"].to_numpy())[:256]
    read = {n: read_student(args.runs, n) for n in args.name.split(",")}
    networks = dict(teacher=SHIPPED[DEFAULT]["weights"]()) | {n: w for n, (w, _) in read.items()}
    with tempfile.TemporaryDirectory() as tmp:
        files = make_files(networks, cut(faces[np.sort(some)], BEST), Path(tmp))
        out, emb = costs(files, networks, sets["unseen"][:20]), every_form(files, sets, args.runs)
    out |= alike(emb) | differences({n: exam.numbers(e) for n, e in emb.items()})
    data = dict(name="celeba-wild-60x30 (48 people), celeba-aligned-3000x5 (300 people), lfw-view1-devtest",
                n_people=int(sum(w.max() + 1 for w in exam.who.values())), fingerprint=fingerprint(table.to_csv()),
                n_images=int(sum(len(v) for v in exam.rows.values())))
    what, command = f"Narrower students of {DEFAULT}", f"python -m studies.student --measure --name {args.name}"
    write_record(args.out, record(what, command, data, out, dict(lessons={n: a for n, (_, a) in read.items()}), [0]))
    for k, v in out.items(): print(f"{k:44s} {show_metric(v, 4)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--name", default="half", help="of the student; to measure, several separated by commas")
    say("--measure", action="store_true", help="measure what is trained, and write the record")
    say("--faces", default="runs/recognition/faces-150", help="folder of the aligned faces")
    say("--runs", default="runs/tuning", type=Path, help="folder of trainings")
    say("--data", default="../shared/data", type=Path, help="folder of the raw data")
    say("--boot", type=int, default=200, help="bootstrap draws over people")
    say("--out", default="results/recognition/student.json", help="the record")
    for k, v in asdict(Lesson()).items(): say(f"--{k}", type=type(v), default=v)
    args = parser.parse_args()
    torch.set_num_threads(1); cv2.setNumThreads(1)
    args.runs.mkdir(parents=True, exist_ok=True)
    table, faces = read_faces(args.faces)
    if args.measure: return measure(table, faces, args)
    train(table, faces, Lesson(**{k: getattr(args, k) for k in asdict(Lesson())}), args)


if __name__ == "__main__": main()
