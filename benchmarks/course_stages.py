"""The whole course project at 1/25 of its size, on drawn photographs: how long does each stage take on a CPU?
Writes results/training/stages.json.

    python benchmarks/course_stages.py                 # about eight minutes on two cores
    python benchmarks/course_stages.py --ids 16 --per_id 12 --landmark_epochs 1 --epochs 1 --out try

The course selects 1,000 people with 25 photographs each; here it is 40 with 25. Drawing them is not counted.
The stages are those of the notebooks: validate and prepare, landmarks, alignment, cross-entropy, ArcFace,
report; each is one call of the function behind its command, with the passes over the data that are written into
the record. The time of the full size on a GPU is not measured.
"""

import argparse, tempfile, time
from pathlib import Path

import torch

from facerec_nb.faces.aligned import align
from facerec_nb.faces.alignment import train_landmarks
from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.evaluation.embedder_exam import report
from facerec_nb.core.files import fingerprint
from facerec_nb.datasets.recipes import BalancedIdentities
from facerec_nb.datasets.selected import prepare
from facerec_nb.faces.recognition import EmbedderCfg, train_embedder
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.datasets.synthetic import synthesise

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for k, v in dict(ids=40, per_id=25, landmark_epochs=10, epochs=15).items():
        parser.add_argument("--" + k, default=v, type=int)
    parser.add_argument("--backbone", default="small")
    parser.add_argument("--out", default="results/training", type=Path)
    args = parser.parse_args()
    spent, found, cfg = {}, {}, EmbedderCfg(backbone=args.backbone, epochs=args.epochs)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        celeba = synthesise(tmp / "celeba", ids=args.ids, per_id=args.per_id, progress=True)
        data, run, faces = tmp / "data-for-alignment", tmp / "run", tmp / "data-for-recognition"
        stages = dict(
            prepare=lambda: prepare(
                load_celeba(celeba),
                BalancedIdentities(n_ids=args.ids, per_id=args.per_id, min_box=1, drop_blurry=False),
                data,
                unseen=0.25,
            ),
            landmarks=lambda: train_landmarks(data, run, epochs=args.landmark_epochs),
            alignment=lambda: align(data, run, faces),
            ce=lambda: train_embedder(faces, run, cfg, head="ce"),
            arcface=lambda: train_embedder(faces, run, cfg, head="arcface"),
            report=lambda: report(faces, run, command="benchmarks/course_stages.py"),
        )
        for name, stage in stages.items():
            start = time.perf_counter()
            found[name] = stage()
            spent[name] = time.perf_counter() - start
            print(f"{name:10s} {spent[name]:7.1f} s", flush=True)
    n, passes = len(found["prepare"]), dict(landmarks=args.landmark_epochs, ce=args.epochs, arcface=args.epochs)
    numbers = {f"seconds_{k}": metric(v, n=n, unit="s") for k, v in spent.items()} | dict(
        seconds_total=metric(sum(spent.values()), n=n, unit="s")
    )
    numbers |= {
        f"ms_per_photo_and_pass_{k}": metric(1000 * spent[k] / n / e, n=n, unit="ms") for k, e in passes.items()
    }
    numbers |= {
        k: metric(r["value"], r["low"], r["high"], r["n"], r["unit"])
        for k in ("top1_ce", "top1_arcface", "auc_unseen_arcface")
        if (r := found["report"]["metrics"].get(k))
    }
    nme = found["landmarks"].get("unseen", {}).get("nme")
    numbers |= dict(
        nme_unseen=metric(nme, n=n, unit="of the eye distance"), course_minutes_gpu=metric(None, unit="minutes")
    )
    about = dict(
        name="drawn by facerec_nb.datasets.synthetic",
        fingerprint=fingerprint("stages", args.ids, args.per_id),
        n_images=n,
        n_people=args.ids,
    )
    write_record(
        args.out / "stages.json",
        record(
            f"The course project at 1/25 of its size ({n} photographs), stage by stage, "
            f"{torch.get_num_threads()} threads; {args.landmark_epochs} passes for landmarks, {args.epochs} "
            f"for each embedder ({args.backbone})",
            "python benchmarks/course_stages.py",
            about,
            numbers,
            dict(stages=spent, passes=passes),
            [0],
        ),
    )
