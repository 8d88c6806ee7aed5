"""The landmark study: train the recipes, measure them on people never seen, write results/landmarks/*.json.

    python -m studies.landmarks --train big_first:0 big:0     # train (or go on with) these recipes with seed 0
    python -m studies.landmarks --train course:0 ...          # see RECIPES and ABLATION below, and STARTS
    python -m studies.landmarks                               # measure everything that is trained, write the records

Runs lie in `--runs`; one that was interrupted goes on where it stopped. On one core beside another training: course
70 minutes, big 40, an ablation 4.
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from facerec_nb.faces.alignment import train_landmarks
from facerec_nb.datasets.celeba_files import BOX_COLUMNS, load_celeba
from facerec_nb.faces.crops import CropCfg, read_crops
from facerec_nb.faces.aligned import align, read_aligned, sharpness
from facerec_nb.faces.landmarks import LandmarkModel, boxes_and_points, errors_by_attribute, landmark_errors
from facerec_nb.faces.landmarks import mean_face, mean_face_errors, risk_coverage
from facerec_nb.core.files import InputError, fingerprint, inside, read_json
from facerec_nb.core.geometry import align_matrix, apply_matrix, template, xywh_to_xyxy
from facerec_nb.models.hourglass import decode, decode_argmax
from facerec_nb.core.metrics import bootstrap_ids
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import prepare, read_selected
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.training import read_log

COMMAND = "python benchmarks/landmarks.py"  # what the committed records name; it calls this study
POINTS = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
PHOTOGRAPHS = ("course", "default", "photos")  # recipes that see only the 48 people's photographs
COMPARED = ("course", "photos")  # recipes for comparison only: fewer draws, nothing aligned

BEST = dict(epochs=18, rotation=40., spin=0.15, blur=0.2, cover=0.3, twice=True, with_test=True)
COURSE = dict(epochs=16, stacks=2, channels=256, depth=4, input_size=256, batch_size=16, lr=1e-3, square=False,
              rotation=0., zoom=0., shift=0., colour=0., flip=False, with_test=True, subpixel=False)
ASIDE = BEST | dict(epochs=10, lr=1e-3, aside=True, turned=1)
RECIPES = dict(course=COURSE, default={}, photos=BEST | dict(epochs=40),
               big_first=BEST, small_first=BEST | dict(stacks=1), big=ASIDE, small=ASIDE | dict(stacks=1))
MORE = ASIDE | dict(epochs=3, aside=False, turned=0)  # what each ingredient brings: see studies/profiles.py
RECIPES |= dict(more=MORE, more_aside=MORE | dict(aside=True), more_turned=MORE | dict(turned=1))
STARTS = {name: f"{'small' if name == 'small' else 'big'}_first-0"  # the runs whose networks these go on from
          for name in ("big", "small", "more", "more_aside", "more_turned")}

SHORT = BEST | dict(epochs=2)
STILL = dict(rotation=0., spin=0., zoom=0., shift=0.)
ABLATION = {
    "short": ("the whole recipe, 2 epochs", SHORT),
    "no_geometry": ("nothing turned, zoomed, shifted", SHORT | STILL),
    "no_spin": ("no large turns", SHORT | dict(spin=0.)),
    "no_colour": ("no change of colour", SHORT | dict(colour=0.)),
    "no_cover": ("nothing blurred or covered", SHORT | dict(blur=0., cover=0.)),
    "no_mirror": ("no mirror images", SHORT | dict(flip=False)),
    "squeezed": ("box squeezed to a square", SHORT | dict(square=False)),
    "wider": ("more context: box grown by 10 %", SHORT | dict(shrink=-0.1)),
    "absolute": ("absolute error of the heatmaps", SHORT | dict(power=1.)),
    "one_stack": ("one hourglass", SHORT | dict(stacks=1)),
    "narrow": ("32 channels", SHORT | dict(channels=32)),
    "wide": ("128 channels", SHORT | dict(channels=128)),
    "coarse": ("64 px", SHORT | dict(input_size=64)),
}


def jitter_boxes(boxes, share, rng):
    """Boxes `(N, 4)` as loose as a detector's; raises `InputError` for a share outside 0..0.5

    The centre moves by up to `share` of the sides, width and height change together by up to `share`.
    """
    if not 0 <= share <= 0.5: raise InputError(f"share={share} must be from 0 to 0.5 of the box")
    boxes = np.asarray(boxes, float)
    sides = boxes[:, 2:] - boxes[:, :2]
    centre = boxes[:, :2] + sides/2 + rng.uniform(-share, share, (len(boxes), 2))*sides
    half = sides/2*rng.uniform(1 - share, 1 + share, (len(boxes), 1))
    return np.concatenate([centre - half, centre + half], 1)


def jittered_errors(model, data, rows, jitter=0.1, roll=30., seed=0):
    """Landmark errors with loose boxes and every crop turned by an angle within +-roll degrees

    `data` is a prepared folder, `rows` are rows of its table; raises `InputError` when a photograph cannot be read.
    """
    rng = np.random.default_rng(seed)
    boxes = jitter_boxes(xywh_to_xyxy(rows[BOX_COLUMNS].to_numpy(float)), jitter, rng)
    angles = rng.uniform(-roll, roll, len(rows))
    paths = [inside(Path(data)/"images", i) for i in rows.image_id]
    crops, fine, why = read_crops(paths, boxes, model.crop, model.rim, roll=angles)
    if not fine.all(): raise InputError(next(w for w in why if w))
    return landmark_errors(model, rows, crops, M=model.crop.matrices(boxes, roll=angles))


def make_data(args):
    "The two prepared folders: photographs of 60 people, aligned pictures of others with known points"
    data, extra = args.runs/"data-for-alignment", args.runs/"aligned-faces"
    prepare(load_celeba(args.data), Usable(min_box=0, drop_blurry=False), data, unseen=0.2, seed=21)
    if not (extra/"selected_images.csv").exists():
        from studies.celeba_aligned import aligned_faces
        table, identity = load_celeba(args.annotations, images=False).table, pd.read_csv(args.aligned/"identity.csv")
        aligned_faces(table, identity, args.aligned/"img", extra, window=(25, 42))
    return data, extra


def train(name, seed, data, extra, runs):
    "Train a recipe to its end, or go on"
    settings, run = RECIPES.get(name) or ABLATION.get(name, (None, {}))[1], runs/f"{name}-{seed}"
    if not (run/"landmarks.json").exists():
        more, start = None if name in PHOTOGRAPHS else extra, runs/STARTS[name] if name in STARTS else None
        train_landmarks(data, run, extra=more, start=start, resume=True, seed=int(seed), **settings)
    print(name, seed, read_json(run/"landmarks.json")["unseen"])


def mean(values, ids, unit="NME"):
    "A mean over photographs as a metric; the interval draws people"
    values = np.asarray(values, float)
    return metric(*map(float, bootstrap_ids(lambda i: values[i].mean(), np.asarray(ids))), n=len(values), unit=unit)


def ratio(a, b, ids, unit="ratio"):
    "One mean over another on the same photographs"
    a, b = np.asarray(a), np.asarray(b)
    interval = bootstrap_ids(lambda i: a[i].mean()/b[i].mean(), np.asarray(ids))
    return metric(*map(float, interval), n=len(a), unit=unit)


def rms(offsets): return metric(float(np.sqrt((offsets**2).sum(-1).mean())), n=len(offsets), unit="px of 112")


def detail(faces):
    "Sharpness of the mean face"
    return metric(sharpness(faces.mean(0).round().astype(np.uint8)), n=len(faces), unit="variance of the Laplacian")


def curve(values, points=150):
    "The cumulative distribution, thinned"
    share = np.linspace(0, 1, points)
    return dict(nme=np.quantile(values, share).round(5).tolist(), share=share.round(4).tolist())


class Test:
    "The 12 people never seen, or (`val`) the photographs on which epochs and ways of reading are chosen"
    def __init__(self, data, val=False):
        self.data, self.all = data, read_selected(data)
        seen, split = self.all.people == "seen", self.all.split
        mine = seen & (split == "val") if val else ~seen
        self.rows, self.seen = self.all[mine].reset_index(drop=True), self.all[seen & (split == "train")]
        self.boxes, self.points = boxes_and_points(self.rows)
        self.ids, self.paths = self.rows.identity.to_numpy(), [data/"images"/i for i in self.rows.image_id]

    def errors(self, model, reader=None):
        crops = read_crops(self.paths, self.boxes, model.crop, model.rim)[0]
        return landmark_errors(model, self.rows, crops, reader)


def biased(heat, size):
    "The classical mistake: a heatmap pixel taken for its corner, `x*4` where `(x + 0.5)*4 - 0.5` is meant"
    points, sure = decode(heat, size)
    return points - (size/heat.shape[-1] - 1)/2, sure


def variants(model, test):
    "NME of the same weights read or asked in other ways, a column each"
    flip, upright = model.flip, model.upright
    readers = dict(argmax=decode_argmax, subpixel=decode, biased=biased)
    out = {name: test.errors(model, reader).nme for name, reader in readers.items()}
    model.flip = not flip
    out["no_flip_test" if flip else "flip_test"] = test.errors(model).nme
    model.flip = flip
    if upright is None: return out
    model.upright = None
    out["one_look"] = test.errors(model).nme
    model.flip = False
    out["one_look_no_flip"] = test.errors(model).nme
    model.flip, model.upright = flip, upright
    return out


def jittered(model, test, plain, few):
    "NME against jitter and against roll, and both at once (three draws; one when `few`)"
    def nme(*how): return jittered_errors(model, test.data, test.rows, *how).nme
    def at(*how): return round((nme(*how) if any(how) else plain).mean(), 5)
    shares = [0, .1, .2, .3] if few else [0, .05, .1, .15, .2, .3]
    degrees = [0, 30, 60, 120] if few else [0, 15, 30, 45, 60, 90, 120]
    curves = dict(jitter=dict(share=shares, nme=[at(v, 0) for v in shares]),
                  roll=dict(degrees=degrees, nme=[at(0, v) for v in degrees]))
    both = np.mean([nme(.1, 30, s) for s in range(1 if few else 3)], 0)
    return curves, dict(nme_shaken=mean(both, test.ids), shaken_ratio=ratio(both, plain, test.ids))


def mean_crops(test):
    "The crops whose mean face is compared with that of the aligned faces, at the same size"
    target, eyes = template()[:2], apply_matrix(CropCfg(112).matrices(test.boxes), test.points)[:, :2]
    zoom = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1).mean()/np.linalg.norm(target[0] - target[1])
    return read_crops(test.paths, test.boxes, CropCfg(112, shrink=1 - 0.95*zoom))[0]


def alignment_metrics(run, model, test):
    "Where eyes land, and how sharp the mean face is before and after"
    table = align(test.data, run, run/"data-for-recognition")
    faces = read_aligned(run/"data-for-recognition")[1]
    mine = (table.people == "unseen").to_numpy()
    true = boxes_and_points(test.rows.set_index("image_id").loc[table.image_id[mine]])[1]
    found = table[mine].filter(regex="eye_|nose_|mouth_").to_numpy(float).reshape(-1, 5, 2)
    by_found, by_truth = (apply_matrix(align_matrix(p), true)[:, :2] for p in (found, true))
    eyes = template()[:2]
    return dict(eye_rms_px=rms(by_found - eyes), eye_rms_px_perfect=rms(by_truth - eyes),
                eye_rms_px_from_perfect=rms(by_found - by_truth),
                sharpness_before=detail(mean_crops(test)), sharpness_after=detail(faces[mine]))


def unseen_metrics(errors, test, asked):
    "Numbers on the people never seen: the mean over seeds, the rest of the first seed"
    ids, first, each = test.ids, errors[0], [float(e.nme.mean()) for e in errors]
    failed, n = np.mean([e.nme > .1 for e in errors], 0), round(.95*len(first))
    two = float(first.nme.nlargest(2).sum()/first.nme.sum())
    spread = float(np.std(each, ddof=1)) if len(each) > 1 else None
    guess = mean_face_errors(test.rows, mean_face(*boxes_and_points(test.seen)))
    return dict(
        nme_unseen=mean(np.mean([e.nme for e in errors], 0), ids), failure_rate_10=mean(failed, ids, "share"),
        nme_seed_spread=metric(spread, n=len(each), unit="standard deviation over seeds"),
        nme_median=metric(float(np.median(first.nme)), n=len(first), unit="NME"), nme_guess=mean(guess, ids),
        worst_two=metric(two, n=len(first), unit="share of the summed NME"),
        nme_kept_95=metric(float(risk_coverage(first)[1][n - 1]), n=n, unit="NME of the 95 % most confident"),
        **{f"nme_{k}": mean(v, ids) for k, v in asked.items()},
        **{f"nme_{p}": mean(first[f"error_{i}"], ids) for i, p in enumerate(POINTS)})


def drawn(errors, test, asked, run, result):
    "What the pages draw"
    first, (kept, risk), log = errors[0], risk_coverage(errors[0]), read_log(run, "stacked_hg")
    guess = mean_face_errors(test.rows, mean_face(*boxes_and_points(test.seen)))
    step = slice(len(kept)//20 - 1, None, max(len(kept)//60, 1))
    values = {"average face": guess, "brightest pixel": asked["argmax"], "sub-pixel": asked["subpixel"]}
    cdf = {name: curve(v) for name, v in values.items()}
    return dict(nme_seeds=[float(e.nme.mean()) for e in errors], cdf=cdf, config=result["config"],
                log=log[["epoch", "loss", "val_nme"]].round(5).to_dict("list"),
                attributes=errors_by_attribute(first, test.rows).round(5).to_dict("list"),
                risk=dict(kept=kept[step].round(4).tolist(), nme=risk[step].round(5).tolist()))


def measure(name, seeds, test, val, runs):
    "NME of each photograph (mean over the seeds), numbers and curves of one recipe"
    models, few = [LandmarkModel.load(runs/f"{name}-{s}") for s in seeds], name in COMPARED
    errors, model, run = [test.errors(m) for m in models], models[0], runs/f"{name}-{seeds[0]}"
    result, asked = read_json(run/"landmarks.json"), variants(model, test)
    chosen = ({} if few else variants(model, val)) | {"": val.errors(model).nme}
    curves, numbers = jittered(model, test, errors[0].nme, few)
    numbers |= unseen_metrics(errors, test, asked)
    numbers |= {f"nme_val{'_' + k if k else ''}": mean(v, val.ids) for k, v in chosen.items()}
    if not few: numbers |= alignment_metrics(run, model, test)
    numbers |= dict(parameters=metric(result["parameters"], unit="weights"),
                    train_images=metric(result["n_train"], unit="photographs"),
                    extra_images=metric(result.get("n_extra", 0), unit="aligned pictures of other people"),
                    train_seconds=metric(result["seconds"], unit="s of wall time, beside other jobs"))
    return np.mean([e.nme for e in errors], 0), numbers, curves | drawn(errors, test, asked, run, result)


def measure_ablation(test, runs):
    "Numbers and names of the short trainings, each compared with the whole recipe on the same photographs"
    models = {name: LandmarkModel.load(runs/f"{name}-0") for name in ABLATION if trained(runs, name)}
    errors = {name: test.errors(m).nme.to_numpy() for name, m in models.items()}
    numbers = {name: mean(e, test.ids) for name, e in errors.items()}
    for name, model in models.items():
        numbers[f"{name}_shaken"] = mean(jittered_errors(model, test.data, test.rows).nme, test.ids)
        if name == "short": continue
        more = errors[name] - errors["short"]
        numbers[f"{name}_difference"] = mean(more, test.ids, "NME more than the whole recipe")
    return numbers, dict(names={name: ABLATION[name][0] for name in models})


def trained(runs, name):
    "The seeds with which a recipe has been trained to its end"
    return sorted(int(p.parent.name.rpartition("-")[2]) for p in runs.glob(f"{name}-[0-9]*/landmarks.json"))


def read_arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = dict(data="../shared/data/celeba-wild-60x30", aligned="../shared/data/celeba-aligned-3000x5",
                   annotations="../shared/data/celeba-annotations", runs="runs/landmarks", out="results/landmarks")
    for name, default in folders.items(): parser.add_argument("--" + name, default=default, type=Path)
    parser.add_argument("--train", nargs="*", default=[], help="NAME:SEED ...")
    parser.add_argument("--only", nargs="*", default=[], help="measure these recipes only, or `ablation`")
    return parser.parse_args(words)


def measure_all(args, data):
    "Measure what is trained, write the records"
    test, val = Test(data), Test(data, val=True)
    about = dict(name="celeba-wild-60x30", fingerprint=fingerprint(data/"selected_images.csv"),
                 n_images=len(test.all), n_people=int(test.all.identity.nunique()))
    course = trained(args.runs, "course")
    baseline, unit = test.errors(LandmarkModel.load(args.runs/"course-0")).nme if course else None, "ratio"
    if not course: # its errors of single photographs are not recorded
        baseline = np.full(len(test.rows), read_json(args.out/"course.json")["metrics"]["nme_unseen"]["value"])
        unit = "ratio to the recorded mean of the course's recipe"
    for name in args.only or ["course", "photos", "small", "big"]:  # `default` is what aligned_law.py asks
        seeds = trained(args.runs, name)
        if not seeds: continue
        nme, numbers, curves = measure(name, seeds, test, val, args.runs)
        if name != "course": numbers["baseline_ratio"] = ratio(nme, baseline, test.ids, unit)
        what = f"Five points on real photographs of 12 people never seen: recipe {name}"
        write_record(args.out/f"{name}.json", record(what, COMMAND, about, numbers, curves, seeds))
        print(name, {k: round(v["value"], 4) for k, v in numbers.items() if v["value"] is not None})
    if trained(args.runs, "short") and (not args.only or "ablation" in args.only):
        what = "What each ingredient brings: 14,000 training faces each, a ninth of the full length"
        numbers, curves = measure_ablation(test, args.runs)
        write_record(args.out/"ablation.json", record(what, COMMAND, about, numbers, curves, [0]))


def main(words=None):
    args = read_arguments(words)
    data, extra = make_data(args)
    for job in args.train: train(*job.split(":"), data, extra, args.runs)
    if not args.train: measure_all(args, data)


if __name__ == "__main__": main()
