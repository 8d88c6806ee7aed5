"""How few passes give five good points? Ways to ask the landmark networks, by their error and their time.

Writes results/landmarks/quick.json.

    python benchmarks/quick_points.py [--data ../shared/data] [--every 8]

Asked on every fourth photograph of the 48 calibration people of celeba-wild in the detector's boxes: the NME, its
ratio to that of `big` asked four times (a crop and its mirror image, then the crop turned upright and its mirror
image), the share of faces with an NME above 0.10, the share that got a second pass, and the share whose confidence is
below that of a good face (0.85) and of one that is looked at the other way round (0.7). `big` and `small` were
trained on most of these photographs, so the ratios of the 12 people of the same collection whom no network has seen
are told beside them, for the ways that are shipped, also with the photographs turned by up to 45 degrees and detected
anew; they decided nothing. A network in 8 bits has them in its convolutions only, or everywhere but in the first and
the last one ("8 bits"); "crop 0.15" is tighter than that of the training, 0.05.

Milliseconds of processor time a face on one thread, from the photograph and the box to the points; the ways are asked
in turns. Intervals by bootstrap over people. Five minutes on one thread.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.geometry import apply_matrix, turn, warp, xywh_to_xyxy
from facerec_nb.core.installed import packaged
from facerec_nb.core.metrics import bootstrap_ids, nme
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.datasets.celeba_files import BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import add_splits
from facerec_nb.engines.onnx_landmarks import OnnxLandmarks
from facerec_nb.engines.quantise import eight_bits
from facerec_nb.engines.onnx_files import read_onnx, seal, set_about
from facerec_nb.faces.crops import CropCfg, cut
from facerec_nb.faces.detection import CenterFaceDetector, match_box
from facerec_nb.faces.points import WAYS, read_heatmaps

UNSURE = (0.8, 0.85, 0.88, 0.9, 0.92, 0.94)  # confidences below which a face gets a second pass
SHRINKS = (0.05, 0.1, 0.125, 0.15, 0.175, 0.2)  # shares that a box loses of each side before the crop; 0.05 in training
ALL = 2.  # no face is as sure as this: every face gets the second pass
REFERENCE = "big, two passes with mirrors"
UNIT = "of the NME of big's two passes with mirrors"


def asked(finder, flip, twice, unsure):
    "A finder that is asked in one way"
    finder.flip, finder.twice, finder.unsure = flip, twice, unsure
    return finder


def tighter(finder, shrink):
    "A finder with another crop, and the average face of its second pass grown with it"
    grown = (1 - finder.crop.shrink)/(1 - shrink)
    middle = (finder.crop.size - 1)/2
    finder.upright = middle + (finder.upright - middle)*grown
    finder.crop = CropCfg(finder.crop.size, shrink, finder.crop.square)
    return finder


def in_eight_bits(name, crops, folder, whole):
    "A network in 8 bits (seven for the weights), scales from these crops"
    path = packaged(f"landmarks_{name}.onnx")
    model = eight_bits(path, crops, whole=whole)
    set_about(model, {k: v for k, v in read_onnx(path)[2].items() if k != "sha256"})
    out = Path(folder)/f"{name}_{whole}.onnx"
    out.write_bytes(seal(model.SerializeToString()))
    return out


def scale_crops(data, shrink, every=4):
    "What sets the scales: float32 pixels `(N, 3, 128, 128)` of calibration people, in detected boxes"
    rows, folder = wild(data), data/"celeba-wild-60x30"
    some = rows[rows.people == "seen"].iloc[::every]
    some = some[some.split != "val"][::2]
    M = CropCfg(shrink=shrink).matrices
    crops = [cut(img, M(box), 128) for img, box, _ in seen(folder, some, [0]*len(some)) if box is not None]
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), np.float32)


def ways(crops, folder):
    "Name -> a finder"
    path, best = {n: packaged(f"landmarks_{n}.onnx") for n in ("big", "small")}, WAYS["quick"]["shrink"]
    parts, whole = ({n: in_eight_bits(n, crops, folder, w) for n in path} for w in (False, True))
    def ask(path, shrink, *how): return asked(tighter(OnnxLandmarks(path, 1), shrink), *how)
    out = {REFERENCE: ask(path["big"], 0.05, True, True, None),
           "small, two passes with mirrors": ask(path["small"], 0.05, True, True, None)}
    for n in path:
        out |= {f"{n}, one pass": ask(path[n], 0.05, False, False, ALL),
                f"{n}, one pass with mirror": ask(path[n], 0.05, True, False, ALL),
                f"{n}, two passes": ask(path[n], 0.05, False, True, ALL),
                f"{n}, 8 bits in convolutions, one pass": ask(parts[n], 0.05, False, False, ALL)}
        out |= {f"{n}, 8 bits, crop {s}, one pass": ask(whole[n], s, False, False, ALL) for s in SHRINKS}
        out |= {f"{n}, 8 bits, again below {t}": ask(whole[n], best, False, True, t) for t in UNSURE}
        out |= {f"{n}, crop {best}, one pass": ask(path[n], best, False, False, ALL)}
    shipped = {k: OnnxLandmarks(packaged(f"landmarks_{k}.onnx"), 1) for k in WAYS}
    return out | dict(quick=shipped["quick"], fast=asked(shipped["fast"], False, False, ALL))


SHIPPED, FAST = "quick", "fast"
TOLD = (REFERENCE, "small, one pass", "big, one pass", "big, two passes", SHIPPED, FAST)  # of people nobody has seen


def wild(data):
    "Rows of the photographs with their people"
    return add_splits(Usable(min_box=0, drop_blurry=False).select(load_celeba(data/"celeba-wild-60x30").table), seed=21)


def turned(img, degrees):
    "A photograph turned about its middle, whole, and the map"
    h, w = img.shape[:2]
    n = int(np.ceil(np.hypot(h, w)))
    M = turn(degrees, n) @ np.array([[1, 0, (n - w)/2], [0, 1, (n - h)/2], [0, 0, 1]])
    return warp(img, M, n), M


def seen(folder, rows, degrees):
    "Photographs, boxes that the detector finds in them, and true points; None where it finds no such box"
    detect = CenterFaceDetector(threads=1)
    true = rows[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2)
    for path, box, five, a in zip(rows.path, xywh_to_xyxy(rows[BOX_COLUMNS]), true, degrees):
        img = read_image(folder/path)
        if a:
            img, M = turned(img, a)
            five = apply_matrix(M, five)
            half = (box[2:] - box[:2]).mean()/2
            box = np.r_[five.mean(0) - half, five.mean(0) + half]
        yield img, match_box(detect(img)[0], box)["box"], five


def measured(finders, folder, rows, degrees):
    "Way -> columns of NME, confidence and second passes, a row a photograph; NaN where no box was found"
    out = {k: [] for k in finders}
    for img, box, five in seen(folder, rows, degrees):
        for k, f in finders.items():
            if box is None:
                out[k].append([np.nan]*3)
                continue
            again, count = f.again, []
            f.again = lambda *first, again=again, count=count: (count.append(again(*first)), count[-1])[1]
            p, sure = f.points(img, np.asarray(box, float)[None])
            del f.again
            out[k].append([nme(p, five[None])[0], sure[0], len(count[0])])
    return {k: np.array(v) for k, v in out.items()}


def interval(f, people, unit):
    value, low, high = bootstrap_ids(f, people)
    return metric(float(value), float(min(low, value)), float(max(high, value)), n=len(people), unit=unit)


def numbers(got, people, name):
    "Metrics of one set of photographs"
    fine, out = ~np.isnan(got[REFERENCE][:, 0]), {}
    people, best = people[fine], got[REFERENCE][fine, 0]
    for k, v in got.items():
        e, sure, again = v[fine].T
        out[f"nme_{name}: {k}"] = interval(lambda r: e[r].mean(), people, "NME")
        out[f"ratio_{name}: {k}"] = interval(lambda r: e[r].mean()/best[r].mean(), people, UNIT)
        out[f"median_ratio_{name}: {k}"] = interval(
            lambda r: np.median(e[r])/np.median(best[r]), people, UNIT + ", medians")
        out[f"failures_{name}: {k}"] = interval(lambda r: (e[r] > 0.1).mean(), people, "share with an NME above 0.10")
        for least in (0.85, 0.7):
            low = metric(float((sure < least).mean()), n=len(sure), unit="share with a lower confidence")
            out[f"below_{least}_{name}: {k}"] = low
        out[f"again_{name}: {k}"] = metric(float(again.mean()), n=len(again), unit="share with a second pass")
    return out


def milliseconds(finders, folder, rows, rounds=5):
    "Processor time a face of each way, in turns: median and range over the rounds"
    photos, took = [s for s in seen(folder, rows, [0]*len(rows)) if s[1] is not None], {k: [] for k in finders}
    for _ in range(rounds):
        for k, f in finders.items():
            start = time.process_time()
            for img, box, _ in photos: f.points(img, np.asarray(box, float)[None])
            took[k].append(1000*(time.process_time() - start)/len(photos))
    unit = "ms of processor time a face, photograph and box to points, one thread"
    out = {f"ms: {k}": metric(float(np.median(t)), min(t), max(t), n=len(photos), unit=unit) for k, t in took.items()}
    base = np.array(took[REFERENCE])
    for k, t in took.items():
        r = np.array(t)/base
        out[f"time_ratio: {k}"] = metric(float(np.median(r)), float(r.min()), float(r.max()), n=len(photos),
                                         unit="of the time of big's two passes with mirrors, in the same round")
    return out


def parts(finder, folder, rows, rounds=40):
    "Processor time of the pieces of one pass, and of the way crops were cut before: median over photographs and rounds"
    photos, took = [s for s in seen(folder, rows, [0]*len(rows)) if s[1] is not None], {}
    def timed(name, f):
        start = time.process_time()
        got = f()
        took.setdefault(name, []).append(1000*(time.process_time() - start))
        return got
    for _ in range(max(1, rounds//len(photos))):
        for img, box, _ in photos:
            timed("crop with a rim, as before", lambda: warp(img, finder.crop.matrices(box, 32), 192))
            x = timed("crop", lambda: cut(img, finder.crop.matrices(box), 128))[None]
            x = timed("to float", lambda: np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32))
            h = timed("network", lambda: finder.net.answer(x, "heatmaps"))
            p, sure = timed("reading", lambda: read_heatmaps(h, 128))
            timed("second pass?", lambda: finder.again(p, sure))
            timed("a face?", lambda: finder.faces_only(p, sure))
    return {f"ms of one pass: {k}": metric(float(np.median(t)), n=len(t), unit="ms of processor time, one thread")
            for k, t in took.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--every", default=4, type=int, help="which of the calibration people's photographs")
    parser.add_argument("--out", default="results/landmarks/quick.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rows, folder = wild(args.data), args.data/"celeba-wild-60x30"
    known = rows[rows.people == "seen"].iloc[::args.every]
    unknown = rows[rows.people == "unseen"]
    crops = scale_crops(args.data, WAYS["quick"]["shrink"], args.every)
    metrics = {}
    with tempfile.TemporaryDirectory() as tmp:
        finders = ways(crops, tmp)
        told = {k: finders[k] for k in TOLD}
        def add(name, some, ask, degrees):
            got = measured(ask, folder, some, degrees)
            metrics.update(numbers(got, some.identity.to_numpy(), name))
        add("calibration", known, finders, [0]*len(known))
        add("unseen", unknown, told, [0]*len(unknown))
        for name, some in (("calibration_turned", known), ("unseen_turned", unknown)):
            add(name, some, told, np.random.default_rng(0).uniform(-45, 45, len(some)))
        some = known.iloc[::18]
        metrics |= milliseconds(finders, folder, some) | parts(finders[SHIPPED], folder, some, 100)
    for k, m in metrics.items(): print(f"{k:56s} {show_metric(m, 4)}  {m['unit']}")
    data = dict(name="celeba-wild-60x30", fingerprint=fingerprint(folder/"list_bbox_celeba.csv"), n_images=len(rows),
                n_people=rows.identity.nunique())
    what = "Ways to ask the landmark networks in detected boxes: error, failures, second passes, time"
    write_record(args.out, record(what, f"python benchmarks/quick_points.py --data {args.data}", data, metrics,
                                  dict(ways=list(finders), told=list(TOLD), reference=REFERENCE, shipped=SHIPPED,
                                       fast=FAST, shrinks=SHRINKS, settings=WAYS), [0, 21]))


if __name__ == "__main__": main()
