"""Photographs on their side and on their head: is the face found, and does the right person come first?

Writes results/pipeline/turned.json.

    python benchmarks/turned.py --data ../shared/data/celeba-photos-40

Three photographs of each person are enrolled as they are; four others of each are asked about in four ways round,
with and without looking for the way up. When that is done (`GOOD`) is chosen on calibration people: `below_LIMIT_*` is
the share of every third photograph of the 48 people of celeba-wild-60x30 (beside that folder) whose best face, score
times confidence, is below a limit, upright and upside down. Two minutes on one core.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.quick_points import wild
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.metrics import bootstrap_ids
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.photos import people_below
from facerec_nb.pipeline import face_pipeline
from facerec_nb.pipeline.face_pipeline import FacePipeline

REFERENCES, ASKED = 3, 4
LIMITS = (0.5, 0.55, 0.6, 0.65, 0.7)  # of a good face, tried on calibration people
MEASURED = (("found", 2, "share of photographs"), ("right_first", 3, "share of photographs"),
            ("looks", 4, "times the detector is asked about a photograph"))


class Counting:
    "A detector that counts how often it is asked"
    def __init__(self, detector): self.detector, self.n = detector, 0
    def __call__(self, img):
        self.n += 1
        return self.detector(img)


def ask(pipe, refs, names, photos):
    "Found and right for each photograph and way round, and how often the detector was asked"
    rows = []
    for name, path in photos:
        img = read_image(path)
        for k in range(4):
            before = pipe.detector.n
            faces = pipe(np.ascontiguousarray(np.rot90(img, k)))
            right = bool(faces) and names[int((refs @ faces[0].embedding).argmax())] == name
            rows.append((name, k, bool(faces), right, pipe.detector.n - before))
    return rows


def shares(rows, looked):
    "Metrics of one run, people drawn"
    out = {}
    for k in range(4):
        mine = [r for r in rows if r[1] == k]
        person = np.array([r[0] for r in mine])
        for what, i, unit in MEASURED:
            v = np.array([r[i] for r in mine], float)
            drawn = bootstrap_ids(lambda at: v[at].mean(), person)
            out[f"{what}_{90*k}{looked}"] = metric(*drawn, n=len(v), unit=unit)
    return out


def below(pipe, data):
    "Shares of the calibration people's photographs without a good face, for every limit, upright and upside down"
    rows = wild(data)
    rows, out = rows[rows.people != "unseen"].iloc[::3], {}
    for way, k in (("upright", 0), ("upside_down", 2)):
        photos = (np.ascontiguousarray(np.rot90(read_image(data/"celeba-wild-60x30"/p), k)) for p in rows.path)
        best = np.array([face_pipeline.how_good(pipe.find(img, turn=False)) for img in photos])
        for limit in LIMITS:
            drawn = bootstrap_ids(lambda at: (best[at] < limit).mean(), rows.identity.to_numpy())
            out[f"below_{limit:g}_{way}"] = metric(*drawn, n=len(best), unit="share of photographs")
    return out


def main(args):
    "Enrol, ask, record"
    pipe = FacePipeline.load(embedder=args.embedder, threads=1)
    people = people_below(args.data)
    names, refs, photos = [], [], []
    for name, paths in people.items():
        found = [pipe(p) for p in paths[:REFERENCES]]
        refs += [f[0].embedding for f in found if f]
        names += [name for f in found if f]
        photos += [(name, p) for p in paths[REFERENCES:REFERENCES + ASKED]]
    refs, metrics = np.stack(refs), below(pipe, Path(args.data).parent)
    pipe.detector = Counting(pipe.detector)
    for looked, good in (("", face_pipeline.GOOD), ("_before", -1.)):
        face_pipeline.GOOD = good
        metrics |= shares(ask(pipe, refs, names, photos), looked)
    about = dict(name="celeba-photos-40", fingerprint=fingerprint(Path(args.data)), n_images=len(photos),
                 n_people=len(people))
    what = f"photographs turned by 0, 90, 180, 270 degrees without EXIF, embedder {args.embedder or 'default'}"
    write_record(args.out, record(what, f"python benchmarks/turned.py --data {args.data}", about, metrics, seeds=[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-photos-40", help="folder of people")
    parser.add_argument("--embedder", default=None, help="as the commands know it")
    parser.add_argument("--out", default="results/pipeline/turned.json", help="the record")
    main(parser.parse_args())
