"""Put the trained recogniser into the package: half-precision weights, their ONNX form with 8-bit convolutions, what
those cost, and the model card. Writes facerec_nb/weights/embedder_small.* and results/recognition/int8.json.

    python benchmarks/ship_embedder.py [--runs runs/recognition] [--data ../shared/data] [--name best]

Run after `python -m studies.recognition` and the same with --speed: the checkpoint must hold its calibration, and the
card takes its numbers from results/recognition/NAME.json and speed.json.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from facerec_nb.models.checkpoint import load_checkpoint, save_checkpoint
from facerec_nb.core.files import atomic_path, read_json
from facerec_nb.core.metrics import auc, pair_scores
from facerec_nb.engines.onnx_export import export_onnx
from facerec_nb.engines.onnx_net import use_onnx
from facerec_nb.engines.quantise import largest_pair, quantise_onnx
from facerec_nb.evaluation.verification import PairCurve, people_weights
from facerec_nb.faces.embedder import FaceEmbedder
from facerec_nb.core.records import metric, record, show_metric, write_record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from studies.recognition import Study, read_faces  # noqa: E402

WEIGHTS = Path("facerec_nb/weights")
SMALL, EIGHT = WEIGHTS/"embedder_small.pth", WEIGHTS/"embedder_small.onnx"
LICENCE = ("Research only: trained on CelebA, whose pictures may be used for non-commercial research; "
           "the code around the weights is Apache-2.0")
CARD = """# Model card: recogniser

`small`: an aligned face of {size} px in, an embedding of {dim} numbers out; the cosine of two embeddings says how
alike two faces are. The pipeline and the commands use it unless another is named.

|  | on people never seen |
| --- | --- |
{rows}

{what} Intervals are over people. Every number is in `results/recognition/{name}.json`, made by
`python -m studies.recognition`; what 8-bit convolutions change, in `results/recognition/int8.json`.

## How it is kept
`embedder_small.pth` holds half-precision weights and the head of {classes:,} training people. `embedder_small.onnx`
is the same network with 8-bit convolutions, whose weights take seven bits so that every processor adds them right
(largest sum of two products {pair:,}, at most 32,767); the pipeline uses it on a CPU. It carries float32 answers to
three drawn faces and is not used where it does not give them. Its embeddings have a mean cosine of {cosine:.4f} with
those of the checkpoint. `facerec_export_onnx` writes the 32-bit form.

## Training data
{images:,.0f} of CelebA's aligned pictures of {people:,.0f} people, aligned anew by the landmark network `big`, with
their names and, as a second task, CelebA's forty attributes of each picture; trained from nothing, in {minutes:.0f}
minutes of a CPU core, by `python -m studies.recognition --train {name}:0`. The 300 people of the numbers above, and
the 48 who set threshold and probability, are in no training.

## Licence
{licence}. Not for identifying people without their consent.

## Limits
- Trained on {people:,.0f} people with five pictures each: systems trained on millions of faces are far better. LFW
  View 1 at {lfw:.3f} is the number to compare.
- The threshold keeps a false accept rate of {far:g} among CelebA's calibration people. On LFW, photographed
  otherwise, the same threshold accepts {lfw_far:.4f} of the impostor pairs: calibrate on your own photographs.
- The probability is at a prior of one half: among a thousand people at a door, it is far too generous.
- The network was taught CelebA's attributes, among them sex, age and make-up as somebody saw them: an embedding tells
  them, and may lean on them.
- CelebA's people are celebrities, young and made up more often than people are. Errors by attribute are in the
  record; they cannot show how it does for whom CelebA does not show.
- Children, twins, masks, profiles, infrared and drawings are untested.
"""
ROWS = (
    ("AUC", "auc_unseen", 4), ("equal error rate", "eer_unseen", 3), ("TAR at FAR 0.1", "tar_at_far1_unseen", 3),
    ("TAR at FAR 0.01", "tar_at_far01_unseen", 3), ("TAR at FAR 0.001", "tar_at_far001_unseen", 3),
    ("rank-1, one reference each", "rank1_unseen", 3), ("DIR at FPIR 0.1", "dir_at_fpir1_unseen", 3),
    ("DIR at FPIR 0.01", "dir_at_fpir01_unseen", 3),
    ("identification rate at FPR 0.05 (the course's protocol)", "tpr_at_fpr05_unseen", 3),
    ("LFW View 1, accuracy by ten folds", "lfw_view1_accuracy", 3), ("threshold (cosine)", "threshold", 3))


# raised when galleries of an older file must not be searched with this one: 1 was an 8-bit file with full-range weights
REVISION = 2
KEPT = ("arch", "preprocessing", "classes", "threshold", "probability", "config", "seed", "data", "epoch", "metrics")


def halved(path, out):
    "The checkpoint with half-precision weights, without what only the training needs"
    ck = load_checkpoint(path, kind="embedder")
    def half(state): return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    weights = {part: half(ck["weights"][part]) for part in ("backbone", "head")}
    kept = {k: ck[k] for k in KEPT}
    return save_checkpoint(out, "embedder", weights, licence=LICENCE, revision=REVISION, **kept)


def milliseconds(model, faces, repeats=40):
    "Processor time of one face, one thread, without the mirror image"
    took = []
    for _ in range(repeats + 5):
        start = time.process_time()
        model.embed(faces[:1], flip=False, check_colour=False)
        took.append((time.process_time() - start)*1e3)
    low, high = np.quantile(took[5:], [0.025, 0.975]).tolist()
    unit = "ms of processor time per face, 1 thread, no mirror image"
    return metric(float(np.median(took[5:])), low, high, n=repeats, unit=unit)


def draws_of(emb, ids, n=200):
    "AUC of bootstrap draws over people"
    curve = PairCurve(emb, np.unique(ids, return_inverse=True)[1])
    return np.array([curve.values(w)["auc"] for w in people_weights(len(np.unique(ids)), n, 0)])


def exam(study, model, faces, ids, trained):
    "Numbers and embeddings of one form of the network on people never seen"
    emb = model.embed(faces)
    genuine, impostor = pair_scores(emb, ids)
    accepted = float((genuine > np.quantile(impostor, 0.99)).mean())
    agreement = float((emb*(emb if trained is None else trained)).sum(1).mean())
    out = dict(auc_unseen=metric(auc(genuine, impostor), n=len(genuine) + len(impostor), unit="AUC"),
               tar_at_far01_unseen=metric(accepted, n=len(genuine), unit="share"))
    out |= study.lfw(model.embed(study.part("lfw")[1]))[0] | dict(ms=milliseconds(model, faces))
    return out | dict(cosine=metric(agreement, n=len(faces), unit="mean cosine with the checkpoint as trained")), emb


def exams(study, models):
    "Numbers of every form, and what eight bits change"
    rows, faces = study.part("unseen")
    ids, out, emb = rows.identity.to_numpy(), {}, {}
    for form, model in models.items():
        found, emb[form] = exam(study, model, faces, ids, emb.get("torch"))
        out |= {f"{name}_{form}": m for name, m in found.items()}
    gap = draws_of(emb["int8"], ids) - draws_of(emb["torch"], ids)
    low, high = np.quantile(gap, [0.025, 0.975]).tolist()
    as_trained = out["auc_unseen_torch"]
    value = out["auc_unseen_int8"]["value"] - as_trained["value"]
    unit = "difference of AUC, people drawn together"
    out["auc_int8_minus_torch"] = metric(value, min(low, value), max(high, value), n=as_trained["n"], unit=unit)
    return out


def sizes(**files):
    "How many bytes each file has"
    return {f"bytes_{k}": metric(Path(p).stat().st_size, unit="bytes") for k, p in files.items()}


def card(args, rec, out):
    "The model card's text"
    m, ck, eight = rec["metrics"], load_checkpoint(SMALL), out["ms_int8"]["value"]
    rows = [f"| {title} | {show_metric(m[k], digits)} |" for title, k, digits in ROWS if k in m]
    rows += [f"| ms per face, one CPU thread, 8-bit ONNX | {eight:.1f} |",
             f"| ms per face, one CPU thread, PyTorch | {out['ms_torch']['value']:.1f} |"]
    seconds = read_json(args.out/"speed.json")["metrics"][f"train_core_seconds_{args.name}"]["value"]
    return CARD.format(
        size=ck["preprocessing"]["size"], dim=ck["arch"]["backbone"]["emb_dim"], rows="\n".join(rows), name=args.name,
        what="300 people of CelebA with five pictures each, and LFW's 1,000 pairs of View 1 (test).",
        classes=len(ck["classes"]), cosine=out["cosine_int8"]["value"], pair=largest_pair(EIGHT),
        images=m["train_images"]["value"], people=m["train_people"]["value"], minutes=seconds/60, licence=LICENCE,
        lfw=m["lfw_view1_accuracy"]["value"], far=ck["threshold"]["target_far"],
        lfw_far=m["far_at_threshold_lfw"]["value"])


def arguments():
    "What can be asked"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--runs", default="runs/recognition", type=Path, help="folder of the trainings")
    say("--data", default="../shared/data", help="folder of the raw data")
    say("--name", default="best", help="which recipe")
    say("--again", action="store_true", help="from the packaged checkpoint instead of the training's")
    say("--out", default="results/recognition", type=Path, help="folder of the records")
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    torch.set_num_threads(1)
    WEIGHTS.mkdir(exist_ok=True)
    source = SMALL if args.again else args.runs/f"{args.name}-0"/"best_af.pth"
    study = Study(*read_faces(args.runs/"faces-112"), args.runs, raw=args.data)
    halved(source, SMALL)
    with tempfile.TemporaryDirectory() as tmp:
        full = f"{tmp}/full.onnx"
        export_onnx(SMALL, full)
        train = study.part("train")[1]
        some = train[np.random.default_rng(0).permutation(len(train))[:1024]]
        eight = quantise_onnx(full, some, EIGHT, least=0.995)
        def load(path=SMALL): return FaceEmbedder.load(path, "cpu")
        models = dict(torch=load(source), half=load(), onnx=use_onnx(load(), full, 1), int8=use_onnx(load(), EIGHT, 1))
        out = exams(study, models) | sizes(onnx=full, int8=EIGHT, half=SMALL)
    what = ("The recogniser as trained, in half precision, as ONNX and with 8-bit convolutions, "
            "on people never seen")
    command = "python benchmarks/ship_embedder.py" + " --again"*args.again
    curves = dict(quantised=eight | dict(path="embedder_small.onnx"))
    write_record(args.out/"int8.json", record(what, command, study.about(), out, curves))
    text = card(args, read_json(args.out/f"{args.name}.json"), out)
    with atomic_path(WEIGHTS/"embedder.md") as temp: temp.write_text(text)
    print(text)
    for k, v in out.items(): print(f"{k:36s} {show_metric(v, 4)}")
