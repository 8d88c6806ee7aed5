"""Photographs on their side and on their head: is the face found, and does the right person come first?

Writes results/pipeline/turned.json.

    python benchmarks/turned.py --data ../shared/data/celeba-photos-40

Three photographs of each person are enrolled as they are; four others of each are asked about in four ways round,
with and without looking for the way up. Five minutes on one core.
"""
import argparse
import time
from pathlib import Path

import numpy as np

from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.metrics import bootstrap_ids
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.photos import people_below
from facerec_nb.pipeline import face_pipeline
from facerec_nb.pipeline.face_pipeline import FacePipeline

REFERENCES, ASKED = 3, 4


def ask(pipe, refs, names, photos):
    "Found and right for each photograph and way round, with the seconds each way took"
    rows, seconds = [], np.zeros(4)
    for name, path in photos:
        img = read_image(path)
        for k in range(4):
            way, start = np.ascontiguousarray(np.rot90(img, k)), time.perf_counter()
            faces = pipe(way)
            seconds[k] += time.perf_counter() - start
            right = bool(faces) and names[int((refs @ faces[0].embedding).argmax())] == name
            rows.append((name, k, bool(faces), right))
    return rows, seconds/len(photos)


def shares(rows, looked):
    "Metrics of one run, people drawn"
    out = {}
    for k in range(4):
        mine = [r for r in rows if r[1] == k]
        person = np.array([r[0] for r in mine])
        for what, i in (("found", 2), ("right_first", 3)):
            v = np.array([r[i] for r in mine], float)
            drawn = bootstrap_ids(lambda at: v[at].mean(), person)
            out[f"{what}_{90*k}{looked}"] = metric(*drawn, n=len(v), unit="share of photographs")
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
    refs, metrics = np.stack(refs), {}
    for looked, good in (("", face_pipeline.GOOD), ("_before", -1.)):
        face_pipeline.GOOD = good
        rows, seconds = ask(pipe, refs, names, photos)
        metrics |= shares(rows, looked)
        metrics |= {f"seconds_{90*k}{looked}": metric(float(s), n=len(photos), unit="s a photograph, one thread")
                    for k, s in enumerate(seconds)}
    about = dict(name="celeba-photos-40", fingerprint=fingerprint(Path(args.data)), n_images=len(photos), n_people=len(people))
    what = f"photographs turned by 0, 90, 180, 270 degrees without EXIF, embedder {args.embedder or 'default'}"
    write_record(args.out, record(what, f"python benchmarks/turned.py --data {args.data}", about, metrics, seeds=[0]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-photos-40", help="folder of people")
    parser.add_argument("--embedder", default=None, help="as the commands know it")
    parser.add_argument("--out", default="results/pipeline/turned.json", help="the record")
    main(parser.parse_args())
