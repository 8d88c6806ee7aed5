"""From photographs to landmark crops, beside bare decoding of the same files by the same decoder in as many threads.
Writes results/training/crop_decode.json.

    python benchmarks/crop_decode.py [--repeats 5] [--threads 2] [--photos FOLDER] [--out FILE]

Bare: open, decode, hand over the pixels, nothing else (`np.asarray(Image.open(path))`). Idiom: as most people write
it (`np.array(Image.open(path).convert("RGB"))`). Plain: decode everything, then
cut (`warp(read_image(path), ...)`). Ours: `read_warped`, what `read_crops` calls. All ways take turns, every 100
photographs. Three sets: CelebA's original photographs, and drawn ones of about 3 and 12 megapixels
whose faces are much larger than the crop; for those the difference between the crops of ours and plain is measured as
well.
"""

import argparse, os, tempfile, time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from facerec_nb.datasets.celeba_files import BOX_COLUMNS, load_celeba
from facerec_nb.faces.crops import CropCfg, read_warped
from facerec_nb.core.files import fingerprint, read_image, thread_map, write_image
from facerec_nb.core.geometry import warp, xywh_to_xyxy
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.synthetic import sample_faces

RIM = 32  # crop pixels on every side while training
CFG = CropCfg()


def bare(job):
    with Image.open(job[0]) as im:
        return np.asarray(im)


def idiom(job):
    with Image.open(job[0]) as im:
        return np.array(im.convert("RGB"))


def plain(job):
    return warp(read_image(job[0]), job[1], CFG.size)


def ours(job):
    return read_warped(job[0], job[1], CFG.size)


def ours_rim(job):
    return read_warped(job[0], job[1] + [[0, 0, RIM], [0, 0, RIM]], CFG.size + 2 * RIM)


WAYS = dict(bare=bare, idiom=idiom, plain=plain, ours=ours, ours_rim=ours_rim)


def rates(jobs, repeats, threads, turn=100):
    "Photographs a second, `{way: (repeats,)}`; the ways take turns and share whatever slows the machine"
    took, ways = {way: np.zeros(repeats + 1) for way in WAYS}, list(WAYS)
    for i in range(repeats + 1):
        for at in range(0, len(jobs), turn):
            ways.append(ways.pop(0))  # who begins changes
            for way in ways:
                start = time.perf_counter()
                thread_map(WAYS[way], jobs[at : at + turn], threads)
                took[way][i] += time.perf_counter() - start
    return {way: len(jobs) / t[1:] for way, t in took.items()}  # the first round warms the disk


def wild(folder, most):
    "Jobs of CelebA's photographs: path and matrix"
    celeba = load_celeba(folder, check="none")
    rows = celeba.table[:most]
    return (
        list(zip([celeba.root / p for p in rows.path], CFG.matrices(xywh_to_xyxy(rows[BOX_COLUMNS].to_numpy(float))))),
        celeba.fingerprint,
        rows.identity.nunique(),
    )


def drawn(folder, n, pixels):
    "Jobs of drawn photographs enlarged to so many pixels, with grain, as a camera would save them"
    faces, rng, jobs = sample_faces(n // 4, 4, seed=1), np.random.default_rng(0), []
    for k, (img, box) in enumerate(zip(faces["images"], faces["boxes"])):
        by = np.sqrt(pixels / img.shape[0] / img.shape[1])
        big = cv2.resize(img, None, fx=by, fy=by, interpolation=cv2.INTER_CUBIC)
        grain = rng.integers(-6, 7, (64, *big.shape[1:]), np.int16)  # repeated down the picture
        big = np.clip(big + np.resize(grain, big.shape), 0, 255).astype(np.uint8)
        jobs.append((write_image(folder / f"{pixels}-{k:03}.jpg", big, 92), CFG.matrices(xywh_to_xyxy(box) * by)))
    return jobs


def differences(jobs):
    "Grey levels between the crops of ours and plain: mean, 99th percentile, largest"
    d = np.stack([np.abs(ours(j).astype(int) - plain(j)) for j in jobs])
    return float(d.mean()), float(np.percentile(d, 99)), int(d.max())


def measure(name, jobs, args):
    "Metrics of one set"
    more, got, n = f"_{name}" if name != "wild" else "", rates(jobs, args.repeats, args.threads), len(jobs)

    def ratio(a, b, what):
        r = got[a] / got[b]
        return metric(float(np.median(r)), float(r.min()), float(r.max()), n, what)

    out = {
        f"crop_decode_ratio{more}": ratio("ours", "bare", "of the rate of bare decoding"),
        f"crop_decode_ratio_idiom{more}": ratio("ours", "idiom", "of the rate of the usual idiom"),
        f"crop_decode_ratio_rim{more}": ratio(
            "ours_rim", "bare", f"of the rate of bare decoding, crops with a rim of {RIM} px"
        ),
        f"crop_decode_ratio_plain{more}": ratio(
            "plain", "bare", "of the rate of bare decoding, everything decoded, then cut"
        ),
    }
    for way, r in got.items():
        out[f"{way}_rate{more}"] = metric(float(np.median(r)), float(r.min()), float(r.max()), n, "photographs/s")
    for what, d in zip(("mean", "p99", "max"), differences(jobs[:40])):
        out[f"crop_difference_{what}{more}"] = metric(
            d, n=min(n, 40), unit="grey levels of 255, against decoding everything"
        )
    shape = np.array([Image.open(p).size for p, _ in jobs])
    out[f"megapixels{more}"] = metric(float(shape.prod(1).mean() / 1e6), n=n, unit="megapixels a photograph")
    out[f"crop_shrinks{more}"] = metric(
        float(np.median([1 / np.hypot(*M[:, :2]).max() for _, M in jobs])),
        n=n,
        unit="photograph pixels a crop pixel, median",
    )
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=1800, help="CelebA photographs")
    parser.add_argument("--drawn", type=int, default=40, help="drawn photographs of each size")
    parser.add_argument("--photos", default="../shared/data/celeba-wild-60x30")
    parser.add_argument("--out", default="results/training/crop_decode.json")
    args = parser.parse_args()
    jobs, key, people = wild(args.photos, args.most)
    metrics = measure("wild", jobs, args)
    with tempfile.TemporaryDirectory() as d:
        for name, pixels in dict(large=3_000_000, huge=12_000_000).items():
            metrics |= measure(name, drawn(Path(d), args.drawn, pixels), args)
    rec = record(
        "Photographs to crops, beside bare decoding of the same files in the same threads",
        f"python benchmarks/crop_decode.py --repeats {args.repeats} --threads {args.threads}",
        dict(
            name=f"{os.path.basename(args.photos)}, and drawn photographs enlarged",
            fingerprint=fingerprint(key, args.most, args.drawn),
            n_images=len(jobs),
            n_people=int(people),
        ),
        metrics,
        seeds=[0, 1],
    )
    rec["interval"] = "smallest and largest of the repeats"
    rec["threads"] = args.threads
    write_record(args.out, rec)
    for k, m in metrics.items():
        print(
            f"{k:28} {m['value']:9.3f}"
            + (f"  [{m['low']:.3f}, {m['high']:.3f}]" if m["low"] is not None else "")
            + f" {m['unit']}"
        )


if __name__ == "__main__":
    main()
