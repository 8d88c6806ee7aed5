"""What bad photographs cost: clean references, probes made worse in six ways. Writes results/pipeline/degraded.json.

    python benchmarks/degraded.py [--data FOLDER] [--before RECORD] [--draws 20] [--boot 500] [--threads N]

The references are as they are; the photographs asked about are dimmed (x 0.12), overexposed (x 2.6, clipped), shrunk
until the face is 24 pixels high, saved as JPEG of quality 10, made grey, or turned by 45 degrees. Rank-1 among all
people, and DIR at FPIR 1 % with half of them enrolled, three references each; `lost` is what the clean probes have
more. With --before (the record of an earlier run) its numbers stand beside, and the ratio of the losses.
"""
import argparse
import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from facerec_nb.core.files import fingerprint, read_image, read_json
from facerec_nb.core.gallery_threshold import mean_reference
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.datasets.photos import people_below
from facerec_nb.evaluation.folders import exam, measure_exams
from facerec_nb.pipeline.face_pipeline import FacePipeline


def jpeg(img, quality=10):
    "What a JPEG of low quality leaves"
    file = io.BytesIO()
    Image.fromarray(img).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def smaller(img, high, to=24):
    "The photograph shrunk until a face of so many pixels has 24"
    scale = min(1, to/max(high, 1))
    size = max(1, round(img.shape[1]*scale)), max(1, round(img.shape[0]*scale))
    return cv2.resize(img, size, interpolation=cv2.INTER_AREA)


WORSE = dict(
    dim=lambda img, high: (img*0.12).astype(np.uint8),
    bright=lambda img, high: np.clip(img*2.6, 0, 255).astype(np.uint8),
    small_24=smaller,
    jpeg_10=lambda img, high: jpeg(img),
    grey=lambda img, high: cv2.cvtColor(cv2.cvtColor(img, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    roll_45=lambda img, high: np.asarray(Image.fromarray(img).rotate(45, Image.BICUBIC, expand=True)))


def embed_all(pipe, paths):
    "Embeddings of the largest face, clean and worse: name -> (N, D), NaN without a face"
    found = {k: [] for k in ("clean", *WORSE)}
    for path in paths:
        img = read_image(path)
        clean = pipe(img)
        high = clean[0].box[3] - clean[0].box[1] if clean else img.shape[0]/2
        for k, faces in [("clean", clean), *((k, pipe(f(img, high))) for k, f in WORSE.items())]:
            found[k].append(faces[0].embedding if faces else None)
    width = next(len(e) for e in found["clean"] if e is not None)
    return {k: np.stack([np.full(width, np.nan) if e is None else e for e in v]) for k, v in found.items()}


def asked_worse(clean, worse, person, enrolled, rng, k=3):
    "An exam with clean references and worse probes"
    found = exam(clean, person, enrolled, k, rng)
    refs = np.setdiff1d(np.arange(len(person)), found.row)
    refs = refs[~np.isnan(clean[refs, 0])]
    names = pd.unique(person[refs])
    means = np.stack([mean_reference(clean[refs[person[refs] == n]]) for n in names])
    probes = worse[found.row]
    score = np.where(np.isnan(probes[:, :1]), -np.inf, np.nan_to_num(probes) @ means.T)
    face = ~np.isnan(probes[:, 0])
    return found.assign(nearest=np.where(face, names[score.argmax(1)], None), similarity=score.max(1))


def measured(emb, person, draws, n_boot):
    "Rank-1 and DIR of every kind, as metrics"
    out, who = {}, np.unique(person)
    for kind, worse in emb.items():
        rng = np.random.default_rng(3)
        closed = [asked_worse(emb["clean"], worse, person, who, rng) for _ in range(draws)]
        opened = [asked_worse(emb["clean"], worse, person, rng.permutation(who)[:len(who)//2], rng)
                  for _ in range(draws)]
        got = measure_exams(closed, opened, n_boot=n_boot, unit=f"share of questions, 3 references, {draws} exams")
        out |= {f"{k}_{kind}": got[k] for k in ("rank1", "dir_at_fpir01")}
        out[f"found_{kind}"] = metric(float((~np.isnan(worse[:, 0])).mean()), n=len(worse), unit="share of photographs")
    return out


def lost(metrics, key, kind):
    "What a kind costs"
    return metrics[f"{key}_clean"]["value"] - metrics[f"{key}_{kind}"]["value"]


def beside(out, old):
    "The numbers of an older record, and the losses as shares of its losses"
    more = {f"{k}_before": m for k, m in old.items() if "_before" not in k and "ratio" not in k}
    for key in ("rank1", "dir_at_fpir01"):
        for k in WORSE:
            gone = lost(old, key, k)
            ratio = lost(out, key, k)/gone if gone > 0 else None
            more[f"lost_ratio_{key}_{k}"] = metric(ratio, unit="of what was lost before")
    return more


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-photos-40", help="one folder a person")
    parser.add_argument("--before", help="an older record of this benchmark, to compare with")
    parser.add_argument("--draws", type=int, default=20, help="exams of each kind")
    parser.add_argument("--boot", type=int, default=500, help="bootstrap draws over people")
    parser.add_argument("--threads", type=int, help="processor threads")
    args = parser.parse_args()
    people = people_below(args.data)
    paths, person = [p for v in people.values() for p in v], np.repeat(list(people), [len(v) for v in people.values()])
    pipe = FacePipeline.load(threads=args.threads)
    out = measured(embed_all(pipe, paths), person, args.draws, args.boot)
    for key in ("rank1", "dir_at_fpir01"):
        out |= {f"lost_{key}_{k}": metric(lost(out, key, k), unit="clean minus worse") for k in WORSE}
    if args.before: out |= beside(out, read_json(args.before)["metrics"])
    data = dict(name=Path(args.data).name, fingerprint=fingerprint(Path(args.data)), n_images=len(paths),
                n_people=len(people))
    command = f"python benchmarks/degraded.py --draws {args.draws}" + " --before RECORD"*bool(args.before)
    write_record("results/pipeline/degraded.json", record("What bad photographs cost", command, data, out, {}, [3]))
    for k, m in out.items(): print(f"{k:38s} {show_metric(m)}", file=sys.stderr)
