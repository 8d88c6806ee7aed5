"""From photographs to names, everything included: enrol 1, 3 or 5 photographs a person, identify the rest. Writes results/pipeline/photos.json.

    python benchmarks/photos.py [--run RUN] [--embedder NAME_OR_FILE] [--data ../shared/data/celeba-photos-40] [--draws 50] [--out results/pipeline/photos.json]

Every photograph is looked at once (the largest face counts; a photograph without a face is a miss), then many exams are drawn: all 40 people enrolled for rank-1, 20 enrolled and 20 strangers for DIR at FPIR 1 % and
for the counts of the three answers at the stored threshold. Without --run the networks of the package are used. Intervals by bootstrap over people; nothing here is a time.
"""
import argparse, sys
from pathlib import Path

import numpy as np

from facerec_nb.evaluation.folders import embed_people, measure_people
from facerec_nb.files import fingerprint
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.records import record, show_metric, write_record


def reliable(pipe, table, emb, bins=10):
    "How often pairs of photographs are one person, by the probability that the pipeline gives them; pairs of each kind weighted as the fit did"
    if pipe.probability is None: return None
    keep = ~np.isnan(emb[:, 0]); e, p = emb[keep], table.person.to_numpy()[keep]
    i, j = np.triu_indices(len(p), 1); score, same = (e @ e.T)[i, j], p[i] == p[j]
    from facerec_nb.calibration import reliability
    return reliability(score[same], score[~same], pipe.probability, bins=bins)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="folder of a run; without it the networks of the package"); parser.add_argument("--embedder", help="see FacePipeline.load"); parser.add_argument("--landmarks", help="see FacePipeline.load")
    parser.add_argument("--data", default="../shared/data/celeba-photos-40"); parser.add_argument("--draws", type=int, default=50); parser.add_argument("--boot", type=int, default=1000); parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="the pipeline with fast=True"); parser.add_argument("--threads", type=int); parser.add_argument("--out", default="results/pipeline/photos.json")
    args = parser.parse_args()
    pipe = FacePipeline.load(args.run, landmarks=args.landmarks, embedder=args.embedder, threads=args.threads, fast=args.fast)
    table, emb = embed_people(pipe, args.data, progress=sys.stderr.isatty())
    metrics = measure_people(table, emb, (1, 3, 5), pipe.threshold, draws=args.draws, n_boot=args.boot, seed=args.seed)
    extra = table.faces[table.status == "face"].to_numpy() - 1
    metrics["further_faces"] = dict(value=float(extra.mean()), low=None, high=None, n=len(extra), unit="further faces a photograph with a face")
    names = [f"{Path(f).parent.name}/{Path(f).name}" for f in table.file]
    data = dict(name=Path(args.data).name, fingerprint=fingerprint(Path(args.data)), n_images=len(table), n_people=table.person.nunique())
    options = "".join(f" --{k} {v}" for k in ("run", "embedder", "landmarks") if (v := getattr(args, k))) + (" --fast" if args.fast else "")
    curves = dict(status=table.status.value_counts().to_dict(), without_face=[n for n, s in zip(names, table.status) if s != "face"], model=pipe.model, threshold=pipe.threshold, reliability=reliable(pipe, table, emb))
    rec = record("from photographs to names, the whole pipeline, people never seen", f"python benchmarks/photos.py{options} --draws {args.draws}", data, metrics, curves=curves, seeds=[args.seed])
    write_record(args.out, rec)
    print(pipe)
    for k, m in metrics.items(): print(f"{k:26s} {show_metric(m)}  {m['unit']}")
