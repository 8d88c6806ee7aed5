"""Threshold, probability, 8-bit scales and recorded answers for a recogniser of the package, and its worth on LFW.

    python benchmarks/ship_faces.py [--embedder NAME] [--data ../shared/data] [--runs runs] [--boot 1000]

NAME is free or celeba. Writes facerec_nb/weights/embedder_NAME.json and results/recognition/faces.json (of another
than the default: faces_NAME.json). Everything is calibrated in the form that ships, in 8 bits with the mirrored face;
its scales come from training people. Threshold and probability come from 48 people of CelebA who are in no test here
(the calibration people), through the whole pipeline: detector, points, chip of 150 px, mirrored face. The law for
galleries (`tail`) is fitted on them, the 300 aligned people who are held out from every training, and 1,700 further
ones whom the recogniser was not tuned on; benchmarks/fpir.py checks it on those that are left. People of CelebA may be
in the public-domain network's training; LFW's people were kept out by its author.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.files import fingerprint, write_json
from facerec_nb.core.metrics import pair_scores
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.engines.dlib_onnx import DEFAULT, SHIPPED, dlib_about, dlib_scales, export_dlib
from facerec_nb.engines.onnx_embedder import OnnxEmbedder
from facerec_nb.engines.proof import make_proof
from facerec_nb.evaluation.calibration import calibrated_threshold, fit_probability, reliability
from facerec_nb.evaluation.folders import measure_pairs
from facerec_nb.core.gallery_threshold import fit_tail
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.pipeline.face_pipeline import FacePipeline
from studies.galleries import TUNED, aligned_embeddings, fit_people
from studies.recognition_faces import align_all, sources



def overlap(a, b):
    "Intersection over union of boxes x1, y1, x2, y2"
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.clip(high - low, 0, None).prod()
    return both/(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def annotated_faces(pipe, rows):
    "Embeddings of the faces that the annotations mean, and who they are; a photograph without such a face is left out"
    boxes, emb, ids = rows[["x1", "y1", "x2", "y2"]].to_numpy(float), [], []
    for faces, box, who in zip(pipe.stream(list(rows.path)), boxes, rows.identity):
        shares = [overlap(np.asarray(f.box, float), box) for f in faces]
        if not shares or max(shares) < 0.3: continue
        emb.append(faces[int(np.argmax(shares))].embedding)
        ids.append(who)
    return np.stack(emb), np.array(ids)


def halves(emb, ids):
    "The calibration people in two halves, to see whether a probability fitted on one holds on the other"
    people = np.unique(ids)
    first = np.isin(ids, people[::2])
    return (emb[first], ids[first]), (emb[~first], ids[~first])


def law_for_galleries(pipe, emb, ids, data, runs, trained):
    "The tail of the impostors, from the calibration people and aligned ones; see fit_people for a trained embedder"
    more, who = fit_people(*aligned_embeddings(pipe.embedder, data, runs), trained)
    return fit_tail(np.concatenate([emb, more]), np.concatenate([ids, who]))


def calibrate(pipe, data, runs, trained):
    "What is shipped, and the numbers about it"
    rows = sources(data)
    emb, ids = annotated_faces(pipe, rows[rows.role == "calibration"])
    threshold, probability = calibrated_threshold(emb, ids), fit_probability(*pair_scores(emb, ids))
    (one, who), (two, whose) = halves(emb, ids)
    ece = reliability(*pair_scores(two, whose), fit_probability(*pair_scores(one, who)))["ece"]
    out = {"threshold": metric(threshold["threshold"], threshold["low"], threshold["high"], threshold["n_impostor"],
                               "cosine at FAR 0.001, from 48 calibration people"),
           "probability_ece": metric(ece, n=len(two), unit="expected calibration error, fitted on half of the people"),
           "calibration_found": metric(len(emb)/int((rows.role == "calibration").sum()), n=len(emb), unit="share")}
    tail = law_for_galleries(pipe, emb, ids, data, runs, trained)
    return dict(threshold=threshold, probability=probability, tail=tail), out


def scales_of(name, data, runs, n=256):
    "What the 8-bit form needs, from faces of training people"
    rows, size, template = sources(data, more=True), dlib_about(name)["size"], dlib_about(name)["template"]
    table, faces = align_all(rows, LandmarkModel.load("big"), runs/f"faces-{template}", size, name=template)
    asked = np.random.default_rng(0).permutation(table.row[table.role == "train"].to_numpy())[:n]
    return dlib_scales(SHIPPED[name]["weights"](), np.stack([faces[k] for k in np.sort(asked)]))


def proof_of(path, name):
    "Float32 answers to drawn faces"
    net = OnnxEmbedder(path, 1)
    answer = lambda x: net.embed(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), flip=False)
    return make_proof(dlib_about(name), answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", default=DEFAULT, choices=list(SHIPPED))
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--runs", default="runs", type=Path, help="aligned faces are kept here")
    parser.add_argument("--boot", type=int, default=1000, help="bootstrap draws over people")
    args = parser.parse_args()
    name, lfw = args.embedder, args.data/"lfw-view1-devtest"
    with tempfile.TemporaryDirectory() as tmp:
        scales = scales_of(name, args.data, args.runs)
        full = export_dlib(Path(tmp)/f"{name}.onnx", name)
        eight = export_dlib(Path(tmp)/f"{name}-8.onnx", name, dict(scales=scales), eight=True)
        pipe = FacePipeline.load(embedder=str(eight), threads=1)
        shipped, out = calibrate(pipe, args.data, args.runs, name in TUNED)
        write_json(Path(f"facerec_nb/weights/embedder_{name}.json"), shipped | dict(
            proof=proof_of(full, name), scales=scales))
        pipe.threshold = shipped["threshold"]["threshold"]
        pairs = measure_pairs(pipe, next(lfw.glob("pairs*.txt")), lfw, n_boot=args.boot)
    out |= {f"lfw_view1_{k}_faces": v for k, v in pairs.items()}
    data = dict(name="celeba-wild-60x30 (48 calibration people), lfw-view1-devtest", n_people=48,
                n_images=out["calibration_found"]["n"], fingerprint=fingerprint(args.data/"celeba-wild-60x30"))
    what = f"The recogniser {name} behind detector and points of the package, from faces"
    path, given = ("faces", "") if name == DEFAULT else (f"faces_{name}", f" --embedder {name}")
    write_record(f"results/recognition/{path}.json",
                 record(what, f"python benchmarks/ship_faces.py{given}", data, out))
    for k, v in out.items(): print(f"{k:40s} {show_metric(v, 4)}")
