"""Seconds for very many faces in one picture, and whether they are the faces of an earlier version.

Writes results/pipeline/crowd.json.

    git worktree add ../before f355ea7
    python benchmarks/crowd.py [--before ../before] [--across 40] [--rounds 3]

The picture is a square of tiles of 100 px, drawn people and the two portraits in the public domain. This version and
the one in the folder given take turns, each in a process of its own with one thread; the time is that of the
processor, the lowest of the rounds. Both know the recogniser `free`, which is taken. A face is the same when the boxes
overlap (IoU) by one half and the embeddings have a cosine of 0.9 or more. The ratio is that of the
times a face, since a version may find more. Four minutes on one core.
"""
import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]
TILE = 100  # pixels

CHILD = """
import sys, time
import numpy as np
from facerec_nb.pipeline.face_pipeline import FacePipeline
crowd = np.load(sys.argv[1])
pipe = FacePipeline.load(embedder="free", threads=1)
pipe(crowd[:400, :400])
start = time.process_time()
boxes, _ = pipe.detector(crowd)
found = time.process_time()
faces = pipe(crowd)
took = time.process_time() - found
np.savez(sys.argv[2], took=took, detect=found - start, boxes=np.stack([f.box for f in faces]),
         embeddings=np.stack([f.embedding for f in faces]))
"""


def tiles():
    "Square cuts around faces, TILE pixels wide"
    import cv2
    from facerec_nb.core.geometry import xywh_to_xyxy
    from facerec_nb.datasets.portraits import public_portraits
    from facerec_nb.datasets.synthetic import sample_faces
    drawn = sample_faces(60, 2, seed=5)
    boxes = xywh_to_xyxy(drawn["boxes"])
    photos = [*zip(drawn["images"], boxes), *((p, None) for p in public_portraits().values())]
    for img, box in photos:
        if box is None: box = np.array([0, 0, *img.shape[1::-1]])
        centre, side = (box[:2] + box[2:])/2, 1.5*(box[2:] - box[:2]).max()
        move = np.array([[TILE/side, 0, TILE/2], [0, TILE/side, TILE/2]])
        move[:, 2] -= centre*TILE/side
        yield cv2.warpAffine(img, move, (TILE, TILE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def crowd(across):
    "A square of faces, RGB uint8"
    n = itertools.cycle(tiles())
    return np.vstack([np.hstack([next(n) for _ in range(across)]) for _ in range(across)])


def look(root, picture, out):
    "What the version in a folder finds: seconds, boxes, embeddings"
    where = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", CHILD, picture, out], check=True, cwd=root, env=os.environ | where)
    return dict(np.load(out))


def same(now, before):
    "Share of the faces of the earlier version that this one has, too"
    from facerec_nb.faces.detection import iou
    over = iou(before["boxes"], now["boxes"])
    alike = (before["embeddings"]*now["embeddings"][over.argmax(1)]).sum(1)
    return float(((over.max(1) >= 0.5) & (alike >= 0.9)).mean())


def metrics_of(runs, across):
    "Metrics of the rounds of each version"
    from facerec_nb.core.records import metric
    now, out = runs["now"], {}
    took = {k: [r["took"].item() for r in rounds] for k, rounds in runs.items()}
    def seconds(values): return metric(min(values), min(values), max(values), n=len(values), unit="s of one core")
    out[f"crowd_{across**2}_seconds"] = seconds(took["now"])
    out["detector_seconds"] = seconds([r["detect"].item() for r in now])
    out["faces"] = metric(len(now[0]["boxes"]), n=across**2, unit="faces found")
    if "before" in runs:
        out[f"crowd_{across**2}_seconds_before"] = seconds(took["before"])
        out["detector_seconds_before"] = seconds([r["detect"].item() for r in runs["before"]])
        old = runs["before"][0]
        face = {k: np.array(v)/len(runs[k][0]["boxes"]) for k, v in took.items()}
        ratios, middle = face["now"]/face["before"], face["now"].min()/face["before"].min()
        unit = "time a face, now over before"
        out["crowd_ratio"] = metric(middle, ratios.min(), ratios.max(), n=len(ratios), unit=unit)
        out["faces_before"] = metric(len(old["boxes"]), n=across**2, unit="faces found")
        out["same_faces"] = metric(same(now[0], old), n=len(old["boxes"]), unit="share of the earlier version's faces")
    return out


def main(args):
    "Take turns, compare, record"
    from facerec_nb.core.files import fingerprint
    from facerec_nb.core.records import record, show_metric, write_record
    versions, picture = dict(now=HERE) | (dict(before=args.before.resolve()) if args.before else {}), crowd(args.across)
    runs = {k: [] for k in versions}
    with tempfile.TemporaryDirectory() as home:
        np.save(f"{home}/crowd.npy", picture)
        for _, (k, root) in itertools.product(range(args.rounds), versions.items()):
            runs[k].append(look(root, f"{home}/crowd.npy", f"{home}/{k}.npz"))
    metrics = metrics_of(runs, args.across)
    mark = fingerprint(picture.tobytes().hex())
    data = dict(name="drawn people and two portraits", n_images=1, n_people=62, fingerprint=mark)
    command = f"python benchmarks/crowd.py --across {args.across} --rounds {args.rounds}"
    what = f"{args.across**2} faces in one picture, with the version before" if args.before else "very many faces"
    write_record(args.out, record(what, command + " --before ../before"*bool(args.before), data, metrics, seeds=[5]))
    for k, m in metrics.items(): print(f"{k:30s} {show_metric(m)}  {m['unit']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=None, type=Path, help="folder with a checkout of an earlier version")
    parser.add_argument("--across", default=40, type=int, help="tiles in a row, and in a column")
    parser.add_argument("--rounds", default=3, type=int, help="runs of each version")
    parser.add_argument("--out", default="results/pipeline/crowd.json", help="the record")
    main(parser.parse_args())
