"""Train the default landmark network on real photographs and record what it is worth on people it has never seen. Writes results/landmarks/default.json and summary.json.

    python benchmarks/landmarks.py [--data ../shared/data/celeba-wild-60x30] [--run runs/landmarks] [--out results/landmarks]

A run folder that already holds `landmarks.json` is measured, not trained again. About seven minutes on two cores.
"""
import argparse
from pathlib import Path

import numpy as np

from facerec_nb.alignment import CropCfg, LandmarkModel, align, errors_by_attribute, landmark_errors, mean_face, mean_face_errors
from facerec_nb.alignment import read_aligned, read_crops, risk_coverage, sharpness, train_landmarks
from facerec_nb.celeba import BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.files import fingerprint, read_json
from facerec_nb.geometry import align_matrix, apply_matrix, template, xywh_to_xyxy
from facerec_nb.hourglass import decode, decode_argmax
from facerec_nb.metrics import bootstrap_ids
from facerec_nb.preparation import Usable, prepare, read_selected
from facerec_nb.records import metric, record, write_record
from facerec_nb.training import read_log

COMMAND = "python benchmarks/landmarks.py"
POINTS = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]


def mean(values, ids, unit="NME"):
    "A mean over photographs as a metric; the interval draws people"
    values = np.asarray(values, float)
    value, low, high = bootstrap_ids(lambda i: values[i].mean(), np.asarray(ids))
    return metric(float(value), float(low), float(high), n=len(values), unit=unit)


def rms(offsets):
    "Root of the mean squared distance, as a metric"
    return metric(float(np.sqrt((offsets**2).sum(-1).mean())), n=len(offsets), unit="px of 112")


def detail(faces):
    "Sharpness of the mean of many faces, as a metric"
    return metric(sharpness(faces.mean(0).round().astype(np.uint8)), n=len(faces), unit="variance of the Laplacian")


def points_of(rows): return rows[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2)


def curve(values, points=200):
    "The cumulative distribution, thinned"
    x = np.quantile(values, np.linspace(0, 1, points))
    return dict(nme=x.round(5).tolist(), share=np.linspace(0, 1, points).round(4).tolist())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-wild-60x30")
    parser.add_argument("--run", default="runs/landmarks")
    parser.add_argument("--out", default="results/landmarks")
    args = parser.parse_args()
    run, out = Path(args.run), Path(args.out)
    data = run/"data-for-alignment"
    celeba = load_celeba(args.data)
    prepare(celeba, Usable(min_box=0, drop_blurry=False), data, unseen=0.2, seed=21)
    result = read_json(run/"landmarks.json") if (run/"landmarks.json").exists() else train_landmarks(data, run)

    model, rows, log = LandmarkModel.load(run), read_selected(data), read_log(run, "stacked_hg")
    seen, unseen = rows[(rows.people == "seen") & (rows.split == "train")], rows[rows.people == "unseen"].reset_index(drop=True)
    boxes, ids = xywh_to_xyxy(unseen[BOX_COLUMNS]), unseen.identity
    crops = read_crops([data/"images"/i for i in unseen.image_id], boxes, model.crop)[0]
    errors = landmark_errors(model, unseen, crops)
    rounded = landmark_errors(model, unseen, crops, decode_argmax)
    model.flip = False; once = landmark_errors(model, unseen, crops, decode); model.flip = True
    guess = mean_face_errors(unseen, mean_face(xywh_to_xyxy(seen[BOX_COLUMNS]), points_of(seen)))

    table = align(data, run, run/"data-for-recognition")
    faces = read_aligned(run/"data-for-recognition")[1]
    mine = (table.people == "unseen").to_numpy()
    true, found = points_of(rows.set_index("image_id").loc[table.image_id[mine]]), points_of(table[mine])
    M, target = align_matrix(found), template()[:2]
    eyes = apply_matrix(CropCfg(112).matrices(boxes), points_of(unseen))[:, :2]
    zoom = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1).mean()/np.linalg.norm(target[0] - target[1])  # the mean faces are compared at the same size
    before = read_crops([data/"images"/i for i in unseen.image_id], boxes, CropCfg(112, shrink=1 - 0.95*zoom))[0]

    val = result["val"]
    numbers = dict(
        nme_unseen=mean(errors.nme, ids), failure_rate_10=mean(errors.nme > 0.10, ids, "share"),
        nme_val=metric(val["nme"], val["low"], val["high"], n=val["n_images"], unit="NME"),
        nme_median=metric(float(errors.nme.median()), n=len(errors), unit="NME"),
        worst_two=metric(float(errors.nme.nlargest(2).sum()/errors.nme.sum()), n=len(errors), unit="share of the summed NME"),
        nme_kept_95=metric(float(risk_coverage(errors)[1][round(0.95*len(errors)) - 1]), n=round(0.95*len(errors)), unit="NME of the 95 % most confident"),
        nme_guess=mean(guess, ids), nme_argmax=mean(rounded.nme, ids), nme_no_flip_test=mean(once.nme, ids),
        **{f"nme_{p}": mean(errors[f"error_{i}"], ids) for i, p in enumerate(POINTS)},
        eye_rms_px=rms(apply_matrix(M, true)[:, :2] - target), found_eye_rms_px=rms(apply_matrix(M, found)[:, :2] - target),
        sharpness_before=detail(before), sharpness_after=detail(faces[mine]), parameters=metric(result["parameters"], unit="weights"),
        train_images=metric(result["n_train"], unit="photographs"), train_seconds=metric(result["seconds"], unit="s of wall time, beside other jobs"))
    kept, risk = risk_coverage(errors)
    step = slice(len(kept)//20 - 1, None, max(len(kept)//60, 1))
    curves = dict(
        cdf={"average face": curve(guess), "brightest pixel": curve(rounded.nme), "sub-pixel": curve(errors.nme)},
        log=log[["epoch", "loss", "val_nme"]].round(5).to_dict("list"), attributes=errors_by_attribute(errors, unseen).round(5).to_dict("list"),
        risk=dict(kept=kept[step].round(4).tolist(), nme=risk[step].round(5).tolist()), config=result["config"])

    about = dict(name="celeba-wild-60x30", fingerprint=fingerprint(data/"selected_images.csv"), n_images=len(rows), n_people=int(rows.identity.nunique()))
    what, seeds = "Five points on real CelebA photographs, 48 people for training, 12 never seen; default settings", [result["config"]["seed"]]
    write_record(out/"default.json", record(what, COMMAND, about, numbers, curves, seeds))
    empty = {k: metric(None) for k in ("nme_unseen_baseline", "ms_small", "ms_baseline")}
    headline = dict(nme_unseen=numbers["nme_unseen"], failure_rate_10=numbers["failure_rate_10"], nme_small=numbers["nme_unseen"]) | empty
    write_record(out/"summary.json", record("Headline numbers of the landmarks; the course's network is not trained yet", COMMAND, about, headline, seeds=seeds))
    print({k: round(v["value"], 4) for k, v in numbers.items()})
