"""Landmarks on real photographs: train the recipes, measure them on people never seen, write results/landmarks/*.json.

    python benchmarks/landmarks.py --train big:0 big:1 big:2     # train (or go on with) recipe `big` with seeds 0, 1, 2
    python benchmarks/landmarks.py --train course:0 small:0 ...  # see RECIPES and ABLATION below
    python benchmarks/landmarks.py                               # measure everything that is trained, write the records

Runs lie in `--runs`; one that was interrupted goes on where it stopped. On one core beside another training: course 70 minutes, big 40, an ablation 4.
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from facerec_nb.alignment import CropCfg, LandmarkModel, align, errors_by_attribute, landmark_errors, mean_face, mean_face_errors
from facerec_nb.alignment import read_aligned, read_crops, risk_coverage, sharpness, train_landmarks
from facerec_nb.datasets.celeba_files import BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.celeba_aligned import aligned_faces
from facerec_nb.files import fingerprint, read_json
from facerec_nb.geometry import align_matrix, apply_matrix, template, xywh_to_xyxy
from facerec_nb.hourglass import decode, decode_argmax
from facerec_nb.landmark_study import shaken_errors
from facerec_nb.metrics import bootstrap_ids
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import prepare, read_selected
from facerec_nb.records import metric, record, write_record
from facerec_nb.training import read_log

COMMAND, POINTS = "python benchmarks/landmarks.py", ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
PHOTOGRAPHS = ("course", "default", "photos")  # recipes that see only the 48 people's photographs
BEST = dict(epochs=18, rotation=40., spin=0.15, blur=0.2, cover=0.3, twice=True, with_test=True)
RECIPES = dict(
    course=dict(epochs=16, stacks=2, channels=256, depth=4, input_size=256, batch_size=16, lr=1e-3, square=False, rotation=0., zoom=0., shift=0., colour=0., flip=False,
                with_test=True, subpixel=False),
    default={}, big=BEST, small=BEST | dict(stacks=1), photos=BEST | dict(epochs=40))
SHORT = BEST | dict(epochs=2)
ABLATION = {
    "short": ("the whole recipe, 2 epochs", SHORT), "no_geometry": ("nothing turned, zoomed, shifted", SHORT | dict(rotation=0., spin=0., zoom=0., shift=0.)), "no_spin": ("no large turns", SHORT | dict(spin=0.)),
    "no_colour": ("no change of colour", SHORT | dict(colour=0.)), "no_cover": ("nothing blurred or covered", SHORT | dict(blur=0., cover=0.)),
    "no_mirror": ("no mirror images", SHORT | dict(flip=False)), "squeezed": ("box squeezed to a square", SHORT | dict(square=False)),
    "wider": ("more context: box grown by 10 %", SHORT | dict(shrink=-0.1)), "absolute": ("absolute error of the heatmaps", SHORT | dict(power=1.)),
    "one_stack": ("one hourglass", SHORT | dict(stacks=1)), "narrow": ("32 channels", SHORT | dict(channels=32)), "wide": ("128 channels", SHORT | dict(channels=128)),
    "coarse": ("64 px", SHORT | dict(input_size=64)),
}


def make_data(args):
    "The two prepared folders: photographs of 60 people, aligned pictures of others with known points"
    data, extra = args.runs/"data-for-alignment", args.runs/"aligned-faces"
    prepare(load_celeba(args.data), Usable(min_box=0, drop_blurry=False), data, unseen=0.2, seed=21)
    if not (extra/"selected_images.csv").exists():
        aligned_faces(load_celeba(args.annotations, images=False).table, pd.read_csv(args.aligned/"identity.csv"), args.aligned/"img", extra, window=(25, 42))
    return data, extra


def train(name, seed, data, extra, runs):
    "Train a recipe to its end, or go on"
    settings, run = RECIPES.get(name) or ABLATION.get(name, (None, {}))[1], runs/f"{name}-{seed}"
    if not (run/"landmarks.json").exists(): train_landmarks(data, run, extra=None if name in PHOTOGRAPHS else extra, resume=True, seed=int(seed), **settings)
    print(name, seed, read_json(run/"landmarks.json")["unseen"])


def mean(values, ids, unit="NME"):
    "A mean over photographs as a metric; the interval draws people"
    values = np.asarray(values, float)
    return metric(*map(float, bootstrap_ids(lambda i: values[i].mean(), np.asarray(ids))), n=len(values), unit=unit)


def ratio(a, b, ids):
    "One mean over another on the same photographs"
    a, b = np.asarray(a), np.asarray(b)
    return metric(*map(float, bootstrap_ids(lambda i: a[i].mean()/b[i].mean(), np.asarray(ids))), n=len(a), unit="ratio")


def rms(offsets): return metric(float(np.sqrt((offsets**2).sum(-1).mean())), n=len(offsets), unit="px of 112")
def detail(faces): return metric(sharpness(faces.mean(0).round().astype(np.uint8)), n=len(faces), unit="variance of the Laplacian")
def points_of(rows): return rows[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2)


def curve(values, points=150):
    "The cumulative distribution, thinned"
    return dict(nme=np.quantile(values, np.linspace(0, 1, points)).round(5).tolist(), share=np.linspace(0, 1, points).round(4).tolist())


class Test:
    "The 12 people never seen, or (`val`) the photographs on which epochs and ways of reading are chosen"
    def __init__(self, data, val=False):
        self.data, self.all = data, read_selected(data)
        mine = (self.all.people == "seen") & (self.all.split == "val") if val else self.all.people == "unseen"
        self.rows, self.seen = self.all[mine].reset_index(drop=True), self.all[(self.all.people == "seen") & (self.all.split == "train")]
        self.ids, self.boxes, self.paths = self.rows.identity.to_numpy(), xywh_to_xyxy(self.rows[BOX_COLUMNS]), [data/"images"/i for i in self.rows.image_id]
    def errors(self, model, reader=None): return landmark_errors(model, self.rows, read_crops(self.paths, self.boxes, model.crop, model.rim)[0], reader)


def biased(heat, size):
    "The classical mistake: a heatmap pixel taken for its corner, `x*4` where `(x + 0.5)*4 - 0.5` is meant"
    points, sure = decode(heat, size)
    return points - (size/heat.shape[-1] - 1)/2, sure


def variants(model, test):
    "NME of the same weights read or asked in other ways, a column each"
    flip, upright = model.flip, model.upright
    out = {"argmax": test.errors(model, decode_argmax).nme, "subpixel": test.errors(model, decode).nme, "biased": test.errors(model, biased).nme}
    model.flip = not flip; out["no_flip_test" if flip else "flip_test"] = test.errors(model).nme; model.flip = flip
    if upright is not None:
        model.upright = None; out["one_look"] = test.errors(model).nme
        model.flip = False; out["one_look_no_flip"] = test.errors(model).nme; model.flip, model.upright = flip, upright
    return out


def shaken(model, test, plain, few):
    "NME against jitter and against roll, and both at once (three draws; one when `few`)"
    def nme(*how): return shaken_errors(model, test.data, test.rows, *how).nme
    curves = dict(jitter=dict(share=[0, .1, .2, .3] if few else [0, .05, .1, .15, .2, .3]), roll=dict(degrees=[0, 30, 60, 120] if few else [0, 15, 30, 45, 60, 90, 120]))
    for name, (x, how) in dict(jitter=("share", lambda v: (v, 0)), roll=("degrees", lambda v: (0, v))).items():
        curves[name]["nme"] = [round((nme(*how(v)) if v else plain).mean(), 5) for v in curves[name][x]]
    both = np.mean([nme(.1, 30, s) for s in range(1 if few else 3)], 0)
    return curves, dict(nme_shaken=mean(both, test.ids), shaken_ratio=ratio(both, plain, test.ids))


def alignment_metrics(run, model, test):
    "Where eyes land, and how sharp the mean face is before and after"
    table = align(test.data, run, run/"data-for-recognition"); faces = read_aligned(run/"data-for-recognition")[1]
    mine = (table.people == "unseen").to_numpy(); true, found = points_of(test.rows.set_index("image_id").loc[table.image_id[mine]]), points_of(table[mine])
    target, eyes = template()[:2], apply_matrix(CropCfg(112).matrices(test.boxes), points_of(test.rows))[:, :2]
    zoom = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1).mean()/np.linalg.norm(target[0] - target[1])  # mean faces are compared at the same size
    before = read_crops(test.paths, test.boxes, CropCfg(112, shrink=1 - 0.95*zoom))[0]
    by_found, by_truth = apply_matrix(align_matrix(found), true)[:, :2], apply_matrix(align_matrix(true), true)[:, :2]
    return dict(eye_rms_px=rms(by_found - target), eye_rms_px_perfect=rms(by_truth - target), eye_rms_px_from_perfect=rms(by_found - by_truth),
                sharpness_before=detail(before), sharpness_after=detail(faces[mine]))


def measure(name, seeds, test, val, runs):
    "One record of a recipe: its NME is the mean over the seeds, details are of the first seed"
    models = [LandmarkModel.load(runs/f"{name}-{s}") for s in seeds]; errors = [test.errors(m) for m in models]
    nme, ids, first, model, run = np.mean([e.nme for e in errors], 0), test.ids, errors[0], models[0], runs/f"{name}-{seeds[0]}"
    log, result = read_log(run, "stacked_hg"), read_json(run/"landmarks.json")
    few = name in ("course", "photos")  # for comparison only: fewer shakes, nothing aligned
    asked, chosen = variants(model, test), ({} if few else variants(model, val)) | {"": val.errors(model).nme}; curves, numbers = shaken(model, test, first.nme, few)
    guess = mean_face_errors(test.rows, mean_face(xywh_to_xyxy(test.seen[BOX_COLUMNS]), points_of(test.seen)))
    each = [float(e.nme.mean()) for e in errors]; kept, risk = risk_coverage(first)
    numbers |= dict(
        nme_unseen=mean(nme, ids), failure_rate_10=mean(np.mean([e.nme > .1 for e in errors], 0), ids, "share"),
        nme_seed_spread=metric(float(np.std(each, ddof=1)) if len(each) > 1 else None, n=len(each), unit="standard deviation over seeds"),
        **{f"nme_val{'_' + k if k else ''}": mean(v, val.ids) for k, v in chosen.items()},
        nme_median=metric(float(np.median(first.nme)), n=len(first), unit="NME"), nme_guess=mean(guess, ids),
        worst_two=metric(float(first.nme.nlargest(2).sum()/first.nme.sum()), n=len(first), unit="share of the summed NME"),
        nme_kept_95=metric(float(risk[round(.95*len(first)) - 1]), n=round(.95*len(first)), unit="NME of the 95 % most confident"),
        **{f"nme_{k}": mean(v, ids) for k, v in asked.items()}, **{f"nme_{p}": mean(first[f"error_{i}"], ids) for i, p in enumerate(POINTS)},
        **({} if few else alignment_metrics(run, model, test)), parameters=metric(result["parameters"], unit="weights"), train_images=metric(result["n_train"], unit="photographs"),
        extra_images=metric(result.get("n_extra", 0), unit="aligned pictures of other people"), train_seconds=metric(result["seconds"], unit="s of wall time, beside other jobs"))
    step = slice(len(kept)//20 - 1, None, max(len(kept)//60, 1))
    curves |= dict(nme_seeds=each, cdf={"average face": curve(guess), "brightest pixel": curve(asked["argmax"]), "sub-pixel": curve(asked["subpixel"])},
        log=log[["epoch", "loss", "val_nme"]].round(5).to_dict("list"), attributes=errors_by_attribute(first, test.rows).round(5).to_dict("list"),
        risk=dict(kept=kept[step].round(4).tolist(), nme=risk[step].round(5).tolist()), config=result["config"])
    return nme, numbers, curves


def trained(runs, name): return sorted(int(p.parent.name.rpartition("-")[2]) for p in runs.glob(f"{name}-[0-9]*/landmarks.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(data="../shared/data/celeba-wild-60x30", aligned="../shared/data/celeba-aligned-3000x5", annotations="../shared/data/celeba-annotations", runs="runs/landmarks",
                     out="results/landmarks").items(): parser.add_argument("--" + k, default=v, type=Path)
    parser.add_argument("--train", nargs="*", default=[], help="NAME:SEED ..."); parser.add_argument("--only", nargs="*", default=[], help="measure these recipes only, or `ablation`")
    args = parser.parse_args()
    data, extra = make_data(args)
    for job in args.train: train(*job.split(":"), data, extra, args.runs)
    if args.train: raise SystemExit
    test, val = Test(data), Test(data, val=True); n_people = int(test.all.identity.nunique())
    about = dict(name="celeba-wild-60x30", fingerprint=fingerprint(data/"selected_images.csv"), n_images=len(test.all), n_people=n_people)
    baseline = test.errors(LandmarkModel.load(args.runs/"course-0")).nme if trained(args.runs, "course") else None
    for name in (args.only or ["course", "photos", "small", "big"]):  # `default` is what aligned_law.py asks
        seeds = trained(args.runs, name)
        if not seeds: continue
        nme, numbers, curves = measure(name, seeds, test, val, args.runs)
        if baseline is not None and name != "course":
            numbers["baseline_ratio"] = ratio(nme, baseline, test.ids)
        write_record(args.out/f"{name}.json", record(f"Five points on real photographs of 12 people never seen: recipe {name}", COMMAND, about, numbers, curves, seeds))
        print(name, {k: round(v["value"], 4) for k, v in numbers.items() if v["value"] is not None})
    rows = [(name, what, LandmarkModel.load(args.runs/f"{name}-0")) for name, (what, _) in ABLATION.items() if trained(args.runs, name)]
    if rows and (not args.only or "ablation" in args.only):
        errors = {name: test.errors(m).nme.to_numpy() for name, _, m in rows}
        shakes = {name: mean(shaken_errors(m, test.data, test.rows).nme, test.ids) for name, _, m in rows}
        numbers = {name: mean(e, test.ids) for name, e in errors.items()} | {f"{k}_shaken": v for k, v in shakes.items()} | {f"{k}_difference": metric(*map(float, bootstrap_ids(lambda i: (e[i] - errors["short"][i]).mean(), test.ids)),
                   n=len(e), unit="NME more than the whole recipe") for k, e in errors.items() if k != "short"}
        write_record(args.out/"ablation.json", record("What each ingredient brings: 14,000 training faces each, a ninth of the full length", COMMAND, about, numbers, dict(names={n: w for n, w, _ in rows}), [0]))
