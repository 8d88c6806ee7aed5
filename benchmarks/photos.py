"""From photographs to names: enrol 1, 3 or 5 photographs a person, identify the rest. Writes photos.json.

    python benchmarks/photos.py [--run RUN] [--embedder NAME_OR_FILE] [--data FOLDER] [--draws 50] [--out FILE]

Every photograph is read once (the largest face counts; a photograph without a face is a miss), then many exams are
drawn: all 40 people enrolled for rank-1, 20 enrolled and 20 strangers for DIR at FPIR 1 % and for the counts of the
three answers at the threshold for the gallery's size and at the one for pairs. Without --run the networks of the
package are used. Intervals by bootstrap over people; nothing here is a time.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

from facerec_nb.evaluation.calibration import reliability
from facerec_nb.evaluation.folders import embed_people, measure_people
from facerec_nb.core.files import fingerprint
from facerec_nb.core.metrics import pair_scores
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.core.records import metric, record, show_metric, write_record


def reliable(pipe, table, emb, bins=10):
    "How often pairs of photographs are one person, by the probability that the pipeline gives them"
    if pipe.probability is None: return None
    keep = ~np.isnan(emb[:, 0])
    return reliability(*pair_scores(emb[keep], table.person.to_numpy()[keep]), pipe.probability, bins=bins)


def arguments():
    "What can be asked"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--run", help="folder of a run; without it the networks of the package")
    say("--embedder", help="see FacePipeline.load")
    say("--landmarks", help="see FacePipeline.load")
    say("--data", default="../shared/data/celeba-photos-40", help="one folder a person")
    say("--draws", type=int, default=50, help="exams of each kind")
    say("--boot", type=int, default=1000, help="bootstrap draws over people")
    say("--seed", type=int, default=0, help="of the exams")
    say("--fast", action="store_true", help="the pipeline with fast=True")
    say("--threads", type=int, help="processor threads")
    say("--out", default="results/pipeline/photos.json", help="the record")
    return parser.parse_args()


def further_faces(table):
    "Faces besides the one that counts"
    extra = table.faces[table.status == "face"].to_numpy() - 1
    return metric(float(extra.mean()), n=len(extra), unit="further faces a photograph with a face")


def curves(pipe, table, emb):
    "What the page about the pipeline draws"
    names = [f"{Path(f).parent.name}/{Path(f).name}" for f in table.file]
    lost = [n for n, s in zip(names, table.status) if s != "face"]
    return dict(status=table.status.value_counts().to_dict(), without_face=lost, model=pipe.model,
                threshold=pipe.threshold, reliability=reliable(pipe, table, emb))


if __name__ == "__main__":
    args = arguments()
    pipe = FacePipeline.load(args.run, landmarks=args.landmarks, embedder=args.embedder, threads=args.threads,
                             fast=args.fast)
    table, emb = embed_people(pipe, args.data, progress=sys.stderr.isatty())
    exams = dict(draws=args.draws, n_boot=args.boot, seed=args.seed)
    metrics = measure_people(table, emb, (1, 3, 5), (pipe.threshold, pipe.tail), **exams)
    metrics |= dict(further_faces=further_faces(table))
    data = dict(name=Path(args.data).name, fingerprint=fingerprint(Path(args.data)), n_images=len(table),
                n_people=table.person.nunique())
    given = [f" --{k} {getattr(args, k)}" for k in ("run", "embedder", "landmarks") if getattr(args, k)]
    command = f"python benchmarks/photos.py{''.join(given)}{' --fast'*args.fast} --draws {args.draws}"
    what = "from photographs to names, the whole pipeline"
    write_record(args.out, record(what, command, data, metrics, curves(pipe, table, emb), [args.seed]))
    print(pipe)
    for k, m in metrics.items(): print(f"{k:26s} {show_metric(m)}  {m['unit']}")
