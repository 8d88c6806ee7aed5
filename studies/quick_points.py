"""A landmark network that needs one pass: `small`, taught by the four answers of `big`.

    python -m studies.quick_points [--runs runs/quick] [--start small] [--epochs 8] [--seed 0]

Three kinds of faces, each with the confidence that the new network shall give them: the photographs of the 48 seen
people of `celeba-wild-60x30` in detected boxes (half of the photograph's annotation, half of what `big` says), pictures
of the aligned training people and of the further people (what `big` says; those whose eyes it places wrongly are left
out), and drawn heads turned up to 80 degrees to the side, whose confidence falls with the turn. The height of a target
is that confidence. About 15 minutes on one core with bfloat16.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facerec_nb.core.files import fingerprint, read_image, thread_map
from facerec_nb.core.geometry import apply_matrix, warp, xywh_to_xyxy
from facerec_nb.core.metrics import nme
from facerec_nb.datasets.celeba_files import BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import add_splits
from facerec_nb.datasets.synthetic import draw_photo, face_params, photo_params
from facerec_nb.engines.onnx_landmarks import open_landmarks
from facerec_nb.faces.alignment import LandmarkCfg
from facerec_nb.faces.crops import CropCfg
from facerec_nb.faces.detection import CenterFaceDetector, match_box
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.core.installed import packaged
from facerec_nb.engines.onnx_export import export_onnx
from facerec_nb.models.checkpoint import load_checkpoint, save_checkpoint
from facerec_nb.models.hourglass import heatmap_loss, heatmaps
from facerec_nb.models.training import ArrayData, FitCfg, fit, seed_everything
from studies.recognition_faces import BOX, EYE_LIMIT, EYES, sources

CROP, RIM = CropCfg(), 32
SIZE = CROP.size + 2*RIM
CFG = LandmarkCfg(stacks=1, rotation=45., zoom=0.25, shift=0.1, spin=0.1, blur=0.2, cover=0.3)
FAR = 0.1  # NME between the annotation and `big` above which `big` is taken to be wrong
REPEAT = 3  # times that a photograph is seen for each time that an aligned picture is


@dataclass
class Faces:
    "Crops with their rim, points in their pixels, and the confidence wanted"
    x: np.ndarray  # uint8 (N, SIZE, SIZE, 3)
    points: np.ndarray  # (N, 5, 2)
    sure: np.ndarray  # (N,) 0..1
    M: np.ndarray  # (N, 2, 3) photograph -> crop with its rim


def four_answers():
    "`big`, asked four times"
    return open_landmarks(packaged("landmarks_big.onnx"), 1)


def wild(data):
    "Rows of the photographs, who of them is unseen included"
    return add_splits(Usable(min_box=0, drop_blurry=False).select(load_celeba(data/"celeba-wild-60x30").table), seed=21)


def detected(folder, rows):
    "Crops of photographs in the detector's boxes, annotated points in their pixels, and the rows that were found"
    detect, x, M, keep = CenterFaceDetector(threads=1), [], [], []
    for path, box in zip(rows.path, xywh_to_xyxy(rows[BOX_COLUMNS])):
        img = read_image(folder/path)
        found = match_box(detect(img)[0], box)["box"]
        keep.append(found is not None)
        if found is None: continue
        M.append(CROP.matrices(found, RIM))
        x.append(warp(img, M[-1], SIZE))
    rows, M = rows[keep], np.array(M)
    return np.array(x), apply_matrix(M, rows[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2)), M, rows


def photographs(data, big):
    "The seen people's photographs, without those that choose the epoch"
    rows = wild(data)
    x, true, M, _ = detected(data/"celeba-wild-60x30", rows[(rows.people == "seen") & (rows.split != "val")])
    said, sure = big.predict(x)
    said += RIM
    agree = nme(said, true) < FAR
    return Faces(x, np.where(agree[:, None, None], (said + true)/2, true), np.where(agree, sure, sure.min()), M)


def aligned(data, big, n, seed=0):
    "Aligned pictures of training people and of further people, one or two a person"
    rows = sources(data, more=True)
    rows = rows[rows.role.isin(["train", "test", "more"])].sample(n, random_state=seed)
    M = CROP.matrices(rows[BOX].to_numpy(float), RIM)
    x = np.stack(thread_map(lambda job: warp(read_image(job[0]), job[1], SIZE), list(zip(rows.path, M))))
    said, sure = big.predict(x)
    eyes = apply_matrix(M, np.broadcast_to(EYES, (n, 2, 2)))
    scale = np.linalg.norm(M[:, :, 0], axis=1)
    fine = np.linalg.norm(said[:, :2] + RIM - eyes, axis=-1).max(1)/scale < EYE_LIMIT
    return Faces(x[fine], said[fine] + RIM, sure[fine], M[fine])


def turned_heads(n, seed=0):
    "Drawn heads: half of them at least half turned"
    def one(i):
        rng = np.random.default_rng([seed, i])
        f = face_params(i, 77 + seed)
        e = photo_params(f, rng)
        e.yaw = float(rng.choice([-1, 1])*rng.uniform(20, 80))
        img, box, points = draw_photo(f, e, rng)
        M = CROP.matrices(xywh_to_xyxy(box), RIM)
        return warp(img, M, SIZE), apply_matrix(M, points), 1 - 0.6*np.clip((abs(e.yaw) - 40)/40, 0, 1), M
    return Faces(*map(np.array, zip(*thread_map(one, range(n)))))


def training_data(data, n_aligned, n_drawn):
    "Everything that is learnt, photographs repeated"
    big = four_answers()
    photos = photographs(data, big)
    parts = [photos]*REPEAT + [aligned(data, big, n_aligned), turned_heads(n_drawn)]
    def all_of(k): return np.concatenate([getattr(p, k) for p in parts])
    print({"photographs": len(photos.x), "aligned": len(parts[-2].x), "drawn": len(parts[-1].x)}, flush=True)
    return dict(x=all_of("x"), points=all_of("points").astype(np.float32), sure=all_of("sure").astype(np.float32))


def loss(net, batch):
    "Squared error of the heatmaps, whose hills are as high as the confidence wanted"
    target = heatmaps(batch["points"], CFG.input_size, sigma=CFG.sigma)*batch["sure"][:, None, None, None]
    return heatmap_loss(net(batch["x"]), target, CFG.sigma)


def one_pass(model, x, true):
    "NME of one pass without the mirror image, and the mean confidence"
    flip, model.flip, model.twice = model.flip, False, False
    found, sure = model.predict(x[:, RIM:-RIM, RIM:-RIM])
    model.flip, model.twice = flip, True
    return dict(val_nme=nme(found + RIM, true).mean(), val_sure=sure.mean())


# Into the package

UNSURE = 0.94  # confidence below which a face gets the second pass, chosen on the calibration people
LICENCE = ("Research only: trained on CelebA, whose pictures may be used for non-commercial research; "
           "the code around the weights is Apache-2.0")


def ship(run, weights=Path("facerec_nb/weights")):
    "The best epoch in half precision, with its ONNX form"
    ck = load_checkpoint(run/"best_stacked_hg.pth", kind="landmarks")
    state = {part: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}
             for part, s in ck["weights"].items()}
    ways = ck["preprocessing"] | dict(flip=False, unsure=UNSURE)
    keep = {k: ck[k] for k in ("arch", "config", "seed", "data", "epoch", "metrics")}
    out = weights/"landmarks_quick.pth"
    save_checkpoint(out, "landmarks", state, preprocessing=ways, licence=LICENCE, **keep)
    print(export_onnx(out, out.with_suffix(".onnx")))


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--data", default="../shared/data", type=Path)
    say("--runs", default="runs/quick", type=Path)
    say("--start", default="small", help="the network to begin with")
    say("--aligned", default=6000, type=int, help="aligned pictures")
    say("--drawn", default=600, type=int, help="drawn heads")
    say("--epochs", default=6, type=int)
    say("--until", type=int, help="stop after this epoch, to be gone on with")
    say("--lr", default=1e-3, type=float)
    say("--seed", default=0, type=int)
    say("--ship", action="store_true", help="put the trained network into the package")
    args = parser.parse_args(words)
    if args.ship: return ship(args.runs/f"{args.start}-{args.seed}")
    kept = args.runs/f"faces-{args.aligned}-{args.drawn}.npz"
    if not kept.exists():
        args.runs.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **training_data(args.data, args.aligned, args.drawn))
    train, rows = ArrayData(**np.load(kept)), wild(args.data)
    val = detected(args.data/"celeba-wild-60x30", rows[(rows.people == "seen") & (rows.split == "val")])[:2]
    seed_everything(args.seed)
    model = LandmarkModel.load(args.start, "cpu")
    print("at the start", one_pass(model, *val), flush=True)
    ways = dict(flip=model.flip, upright=model.upright, subpixel=True)
    about = dict(kind="landmarks", arch=model.net.arch, seed=args.seed, data=fingerprint(kept),
                 preprocessing=dict(size=CROP.size, shrink=CROP.shrink, square=CROP.square, colour="RGB",
                                    range="0..255, normalised inside the network", **ways))
    cfg = FitCfg(args.epochs, 32, args.lr, seed=args.seed, warmup=0.05)
    log = fit(model.net, loss, train, cfg, args.runs/f"{args.start}-{args.seed}", name="stacked_hg", monitor="val_nme",
              validate=lambda net: one_pass(model, *val), augment=CFG.augment, checkpoint=about, resume=True,
              until=args.until)
    print(log.drop(columns=["model"]).to_string())


if __name__ == "__main__": main()
