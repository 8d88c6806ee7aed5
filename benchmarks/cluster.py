"""Who is it that nobody named? Groups against people, at 400 and 2,200 photographs. Writes cluster.json.

    python benchmarks/cluster.py [--data FOLDER] [--faces FOLDER] [--embedder NAME] [--cache FOLDER] [--out FILE]

What was chosen (the method, the probability from which groups are joined, the limits of a poor face) was chosen on the
calibration people alone: 48 people of celeba-wild-60x30, and the 300 aligned people whose role is unseen (--faces, what
`python -m studies.recognition --faces` aligned; without it they are left out). The tests are celeba-photos-40 (400
photographs of 40 people), the same with the 12 people of celeba-wild-60x30 who were kept aside (760), and the same with
all 60 of them (2200), 48 of whom are calibration people.

Of a photograph with several faces, the annotated one counts, without annotations the largest; the others take part, and
nobody knows who they are. A photograph without a found face is a group of its own. Intervals: bootstrap over people.
"""
import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.datasets.photos import photos_below
from facerec_nb.datasets.selected import add_splits
from facerec_nb.evaluation.calibration import same_person
from facerec_nb.evaluation.clusters import bcubed, measure_groups
from facerec_nb.faces.detection import iou
from facerec_nb.pipeline.clustering import SURE, group_faces, joining_cosine, why_poor
from facerec_nb.pipeline.face_pipeline import FacePipeline
from studies.recognition_faces import BOX, read_faces, wild_rows

PHOTOS, WILD = "celeba-photos-40", "celeba-wild-60x30"
SURES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
KINDS = dict(  # how photographs are spoilt to learn what a poor face is
    as_it_is=lambda x: x, dark_12=lambda x: (x*0.12).astype(np.uint8), dark_25=lambda x: (x*0.25).astype(np.uint8),
    bright_26=lambda x: np.clip(x*2.6, 0, 255).astype(np.uint8),
    small_20=lambda x: np.asarray(Image.fromarray(x).resize([max(1, round(s*0.2)) for s in x.shape[1::-1]], Image.BOX)),
    blur_5=lambda x: np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(5))))


# Faces, found once

def embed(pipe, photos, about, cache):
    "All faces of photographs, kept in the cache: a table (photo, face, box, poor and what is known), embeddings"
    cache = cache.with_name(f"{cache.name}-{fingerprint(pipe.model, about.to_csv())}")
    if not cache.with_suffix(".npz").exists():
        rows, emb = [], []
        for i, faces in enumerate(pipe.stream(photos, progress=sys.stderr.isatty())):
            poor = [why_poor(f, pipe.least_quality()) for f in faces]
            rows += [dict(row=i, face=k, poor=poor[k], **dict(zip(BOX, f.box))) for k, f in enumerate(faces)]
            emb += [f.embedding for f in faces]
        cache.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(cache.with_suffix(".csv"), index=False)
        np.savez(cache.with_suffix(".npz"), emb=np.array(emb, np.float32))
    table = pd.read_csv(cache.with_suffix(".csv"), keep_default_na=False)
    return table, np.load(cache.with_suffix(".npz"))["emb"]


def judged(table, emb, about):
    "A folder as it is judged: photo, person (-1 where nobody knows), poor, embedding; lost: people without a face"
    table = table.assign(person=-1)
    for row, faces in table.groupby("row"):
        a, best = about.iloc[row], faces.index[0]
        if "x1" in about:
            share = iou(a[BOX].to_numpy(float)[None], faces[BOX].to_numpy(float))[0]
            best = faces.index[int(np.argmax(share))] if max(share) > 0.3 else None
        if best is not None: table.loc[best, "person"] = a.identity
    photo = about.image_id.to_numpy()[table.row]
    there = set(table.row[table.person >= 0])
    return dict(photo=photo, person=table.person.to_numpy(int), poor=(table.poor != "").to_numpy(), emb=emb,
                lost=about.identity.to_numpy()[[i for i in range(len(about)) if i not in there]])


def take(f, rows, lost=()):
    "Some faces of a folder"
    return dict(photo=f["photo"][rows], person=f["person"][rows], poor=f["poor"][rows], emb=f["emb"][rows],
                lost=np.asarray(lost))


def together(a, b): return {k: np.concatenate([a[k], b[k]]) for k in a}


def of_people(f, people):
    "The photographs of some people"
    photos = f["photo"][np.isin(f["person"], people)]
    return take(f, np.isin(f["photo"], photos), f["lost"][np.isin(f["lost"], people)])


# Groups

def grouped(f, cut, poor=True, old=None):
    "Groups of a folder"
    photo = np.unique(f["photo"], return_inverse=True)[1]
    return group_faces(f["emb"], photo, cut, f["poor"] if poor else None, old)


def in_two_runs(f, cut, seed=0):
    "Groups when half of the photographs come first and the others later"
    photos = np.unique(f["photo"])
    first = np.isin(f["photo"], np.random.default_rng(seed).permutation(photos)[:len(photos)//2])
    old = np.zeros(len(first), int)
    old[first] = grouped(take(f, first), cut)
    alone = np.bincount(old)[old] == 1
    return grouped(f, cut, old=np.where(alone, 0, old))


def against(f, groups):
    "Groups and people of those whose person is known; a photograph without a face is a group of its own"
    known, n = f["person"] >= 0, len(f["lost"])
    return np.concatenate([groups[known], -1 - np.arange(n)]), np.concatenate([f["person"][known], f["lost"]])


def others(f, method, grid):
    "Labels that other methods give, each face for itself where they give none, as (setting, labels)"
    from sklearn.cluster import DBSCAN, HDBSCAN
    d = np.clip(1 - f["emb"] @ f["emb"].T, 0, 2).astype(float)
    np.fill_diagonal(d, 0)
    tree = linkage(squareform(d, checks=False), method) if method in ("average", "complete", "single") else None
    for x in grid:
        if tree is not None: labels = fcluster(tree, 1 - x, "distance")
        elif method == "dbscan": labels = DBSCAN(eps=1 - x, min_samples=2, metric="precomputed").fit_predict(d)
        else: labels = HDBSCAN(int(x), min_samples=1, metric="precomputed", copy=True).fit_predict(d)
        yield x, np.where(labels < 0, labels.max() + 1 + np.arange(len(labels)), labels)


def compare(folders, methods):
    "For each method its best setting over the folders, and F there"
    out = {}
    for method, grid in methods.items():
        f = np.array([[bcubed(*against(x, g))[2] for _, g in others(x, method, grid)] for x in folders.values()])
        best = int(f.mean(0).argmax())
        out[method] = dict(setting=float(grid[best]), f=float(f.mean(0)[best]), each=dict(zip(folders, f[:, best])))
    return out


# What is measured

def calibration_folders(wild, faces, pipe, cache):
    "Folders of calibration people: all photographs, 10 or 5 of each, and the aligned people"
    rng, people = np.random.default_rng(0), np.unique(wild["person"][wild["person"] >= 0])
    def some(k): return np.concatenate([rng.permutation(np.flatnonzero(wild["person"] == p))[:k] for p in people])
    out = {"48 x 30": wild, "48 x 10": take(wild, some(10)), "48 x 5": take(wild, some(5))}
    if not faces: return out
    table, pixels = read_faces(faces)
    rows, path = table[table.role == "unseen"], cache/f"aligned-{fingerprint(pipe.model, len(table))}.npy"
    if not path.exists():
        blocks = [rows.row.to_numpy()[i:i + 64] for i in range(0, len(rows), 64)]
        np.save(path, np.concatenate([pipe.embedder.embed(pixels[b], check_colour=False) for b in blocks]))
    n = len(rows)
    aligned = dict(photo=np.arange(n), person=rows.identity.to_numpy(), poor=np.zeros(n, bool), emb=np.load(path))
    return out | {"300 x 5": aligned | dict(lost=np.zeros(0, int))}


def poor_kinds(pipe, rows, wild, cache):
    "For each way to spoil photographs: how many are called poor, and how many of the others are still recognised"
    six = rows.groupby("identity").head(6).reset_index(drop=True)
    people = np.unique(six.identity)
    good = (wild["person"] >= 0) & ~np.isin(wild["photo"], six.image_id)
    centre = np.stack([wild["emb"][good & (wild["person"] == p)].mean(0) for p in people])
    out = {}
    for kind, spoil in KINDS.items():
        table, emb = embed(pipe, (spoil(read_image(p)) for p in six.path), six[["image_id", "identity"]], cache/kind)
        first = (table.face == 0).to_numpy()
        right = people[(emb[first] @ centre.T).argmax(1)] == six.identity.to_numpy()[table.row[first]]
        poor = (table.poor != "").to_numpy()[first]
        out[kind] = dict(n=len(six), found=int(first.sum()), poor=float(poor.mean()), right=float(right.mean()),
                         right_of_good=float(right[~poor].mean()) if (~poor).any() else None)
    return out


def large(n):
    "Seconds and GB to group so many faces that hang together, of people with ten faces each"
    rng = np.random.default_rng(0)
    e = np.repeat(rng.standard_normal((n//10, 128)), 10, axis=0) + 0.7*rng.standard_normal((n, 128)) + 2
    e = (e/np.linalg.norm(e, axis=1, keepdims=True)).astype(np.float32)
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    groups = group_faces(e, np.arange(n), 0.8, limit=n)
    return (time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1e6,
            bcubed(groups, np.repeat(np.arange(n//10), 10))[2])


def measured_large(n):
    "The same in a process of its own"
    r = subprocess.run([sys.executable, __file__, "--large_only", str(n)], capture_output=True, text=True, check=True)
    seconds, gb, f = map(float, r.stdout.split())
    print(f"{n} faces: {seconds:.0f} s, {gb:.2f} GB, F {f:.3f}")
    return {f"seconds_{n}": metric(seconds, n=n, unit="s of processor time"), f"memory_{n}": metric(gb, n=n, unit="GB")}


def measured(name, f, cut, boot):
    "All numbers of one folder"
    said = measure_groups(*against(f, grouped(f, cut)), n_boot=boot)
    for how, g in dict(without_poor_rule=grouped(f, cut, poor=False), in_two_runs=in_two_runs(f, cut)).items():
        said[f"bcubed_f_{how}"] = measure_groups(*against(f, g), n_boot=boot)["bcubed_f"]
    said["poor"] = metric(float(f["poor"].mean()), n=len(f["poor"]), unit="share of all faces")
    said["without_face"] = metric(len(f["lost"]), n=int((f["person"] >= 0).sum() + len(f["lost"])), unit="photographs")
    def named(k): return f"cluster_{k}_{name}" if "_f_" not in k else f"cluster_bcubed_f_{name}_{k.split('_f_')[1]}"
    return {named(k): m for k, m in said.items()}


def arguments():
    "What can be asked"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--data", default="../shared/data", type=Path, help="folder that holds the photographs")
    say("--faces", type=Path, help="aligned faces of the recognition study, in the template of the embedder")
    say("--embedder", help="see FacePipeline.load")
    say("--cache", default="runs/cluster", type=Path, help="where found faces are kept")
    say("--boot", type=int, default=1000, help="bootstrap draws over people")
    say("--threads", type=int, help="processor threads")
    say("--large", type=int, default=20000, help="faces of the measurement of time and memory; 0: none")
    say("--large_only", type=int, help=argparse.SUPPRESS)
    say("--out", default="results/pipeline/cluster.json", help="the record")
    return parser.parse_args()


def main(args):
    "Everything, and the record"
    pipe = FacePipeline.load(embedder=args.embedder, threads=args.threads)
    p40 = photos_below(args.data/PHOTOS)
    about40 = pd.DataFrame(dict(image_id=[p.name for p in p40], identity=[int(p.parent.name) for p in p40]))
    rows = add_splits(wild_rows(args.data/WILD), unseen=0.2, seed=21)
    faces40 = judged(*embed(pipe, p40, about40, args.cache/PHOTOS), about40)
    wild = judged(*embed(pipe, rows.path.tolist(), rows[["image_id", "identity"]], args.cache/WILD), rows)
    held = np.unique(rows.identity[rows.people == "unseen"])
    ours = of_people(wild, np.setdiff1d(rows.identity, held))
    cut, folders = joining_cosine(pipe), calibration_folders(ours, args.faces, pipe, args.cache)
    grid = np.linspace(-1, 1, 20001)
    cuts = {s: float(grid[(same_person(grid, pipe.probability) >= s).argmax()]) for s in SURES}
    sure = {s: {k: bcubed(*against(f, grouped(f, c)))[2] for k, f in folders.items()} for s, c in cuts.items()}
    near = np.unique(np.round(np.linspace(cuts[0.5] - 0.03, cuts[0.95] + 0.02, 16), 4))
    hierarchical = dict.fromkeys(("average", "complete", "single", "dbscan"), near)
    curves = dict(model=pipe.model, sure=SURE, cut=cut, cuts=cuts, calibration=sure,
                  methods=compare(folders, hierarchical | dict(hdbscan=np.arange(2, 8))),
                  poor=poor_kinds(pipe, rows[rows.people != "unseen"], ours, args.cache))
    tests = {"400": faces40, "760": together(faces40, of_people(wild, held)), "2200": together(faces40, wild),
             "calibration": ours}
    metrics = {}
    for name, f in tests.items(): metrics |= measured(name, f, cut, args.boot)
    if args.large: metrics |= measured_large(args.large)
    data = dict(name=f"{PHOTOS}, {WILD}", fingerprint=fingerprint(args.data/PHOTOS, args.data/WILD),
                n_images=len(p40) + len(rows), n_people=40 + rows.identity.nunique())
    given = f" --embedder {args.embedder}"*bool(args.embedder) + " --faces FACES"*bool(args.faces)
    command = f"python benchmarks/cluster.py{given}"
    what = "the faces of a folder grouped into people without names"
    write_record(args.out, record(what, command, data, metrics, curves))
    for k, m in metrics.items(): print(f"{k:44s} {show_metric(m)}  {m['unit']}")


if __name__ == "__main__":
    args = arguments()
    if args.large_only: print(*large(args.large_only))
    else: main(args)
