"""The recognition study, from the raw folders to its records; goes on where it stopped.

    python -m studies.recognition                        # everything that is missing, then the records
    python -m studies.recognition --state                # what is finished, begun, missing
    python -m studies.recognition --train ce:0,arcface:1 # only these, and measure nothing
    python -m studies.recognition --speed                # time the trained networks
    python -m studies.recognition --start faces          # the same, from the public-domain network: records *_faces
"""
import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from facerec_nb.faces.embedder import FaceEmbedder, pixel_embeddings, short_name
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.core.files import InputError, read_json
from facerec_nb.core.records import metric, record, write_record
from facerec_nb.models.training import read_log
from studies.recognition_faces import align_all, read_faces, sources
from studies.recognition_measures import Measures, attribute_errors, paired_difference
from studies.recognition_recipes import ARC, FACES, REGISTERS, RUNS, Recipe, list_jobs, parse_job

__all__ = ["COMMAND", "TRACKS", "Study", "summarise", "ms_per_face", "open_study", "main", "align_all", "read_faces",
           "sources", "attribute_errors", "paired_difference", "ARC", "FACES", "RUNS",
           "Recipe", "list_jobs", "parse_job"]

COMMAND = "python -m studies.recognition"
LADDER = ("arcface_half", "small", "base", "arcface", "course", "best_64", "best")
COMPARED = ("start_faces", "ce_faces", "arcface_faces", "course_start_faces", "course_ce_faces", "course_arcface_faces")


@dataclass(frozen=True)
class Track:
    "One of the two tellings of the study"
    main:tuple # recipes with the full bootstrap and the errors by attribute
    versus:tuple # pairs to compare
    people:str # who is asked about
    command:str = COMMAND # that makes it again
    floor:tuple = () # what is measured without any training


TRACKS = dict(
    nothing=Track(("ce", "arcface", "course", "best"), (("arcface", "ce"), ("best", "course"), ("arcface", "triplet")),
                  "people never seen", floor=("pixels",)),
    faces=Track(COMPARED, tuple((f"{k}{a}_faces", f"{k}{b}_faces") for k in ("", "course_")
                                for a, b in (("arcface", "ce"), ("ce", "start"), ("arcface", "start"))),
                "people held out of our training, who may be in the start's", f"{COMMAND} --start faces"))

# headline name -> record and number
HEADLINE = dict(
    top1_ce=("ce", "top1"), top1_arcface=("arcface", "top1"),
    auc_unseen_ce=("ce", "auc_unseen"), auc_unseen_arcface=("arcface", "auc_unseen"),
    auc_unseen_best=("best", "auc_unseen"), auc_unseen_baseline=("course", "auc_unseen"),
    tpr_at_fpr05_unseen=("best", "tpr_at_fpr05_unseen"), rank1_unseen=("best", "rank1_unseen"),
    dir_at_fpir01_unseen=("best", "dir_at_fpir01_unseen"),
    lfw_view1_accuracy=("best", "lfw_view1_accuracy"), lfw_view1_baseline=("course", "lfw_view1_accuracy"),
    train_seconds_best=("best", "train_seconds"), train_seconds_baseline=("course", "train_seconds"))
HEADLINE |= {f"{k}_{n}": (n, k) for k in ("top1", "auc_unseen") for n in COMPARED}
# from faces, of the recipe that is best on the calibration people
CHOSEN = dict(tpr_at_fpr05_faces="tpr_at_fpr05_unseen", rank1_faces="rank1_unseen",
              dir_at_fpir01_faces="dir_at_fpir01_unseen", lfw_view1_accuracy_faces="lfw_view1_accuracy",
              triplet_share_faces="triplet_share_unseen")


class Study(Measures):
    "Faces, trainings, measurements, and the records made of them"
    @property
    def track(self) -> Track: # from nothing or from faces
        "Which telling of the study this is"
        return TRACKS["faces" if any(r.start == "faces" for r in self.recipes.values()) else "nothing"]

    def about(self) -> dict: # name, fingerprint, n_images, n_people, and the counts of every role
        "What the study is made of, for its records"
        t = self.table
        def by_source(k): return t.groupby("source")[k].value_counts().unstack(fill_value=0).to_dict("index")
        return dict(name="celeba-aligned-3000x5, celeba-wild-60x30, lfw-view1-devtest", fingerprint=self.key,
                    n_images=len(t), n_people=int(t.identity.nunique()), images=t.role.value_counts().to_dict(),
                    people=t.groupby("role").identity.nunique().to_dict(), box=by_source("box"),
                    alignment=by_source("align"))

    def over(self,
        name:str, # a key of `recipes`
        n_boot:int, # bootstrap draws over people
    ) -> tuple: # see `over_seeds`
        "A recipe measured as thoroughly as it deserves: the main ones fully, the others with a fifth of the draws"
        main = name in self.track.main
        return self.over_seeds(name, n_boot if main else n_boot//5, main)

    def write_run(self,
        name:str, # a key of `recipes`, or 'pixels'
        out:str|Path, # folder of the records
        n_boot:int=1000, # bootstrap draws over people; a fifth of it for what is not the track's main
    ) -> dict: # the record written to `out/NAME.json`
        "Measure a recipe and write its record"
        if name == "pixels":
            metrics, _, curves = self.numbers(pixel_embeddings, n_boot//5)[:3]
            seeds, what, about = [], "the bare pixels, nothing learned", self.about()
        else:
            metrics, _, curves, seeds = self.over(name, n_boot)
            curves, what = curves | dict(recipe=asdict(self.recipes[name])), f"recipe {name}"
            about = self.playing(name).about()
        rec = record(f"Faces of {self.track.people}: {what}", self.track.command, about, metrics, curves, seeds)
        write_record(Path(out)/f"{name}.json", rec)
        return rec

    def compare(self,
        a:str, # a key of `recipes`
        b:str, # another
        out:str|Path, # folder of the records
        n_boot:int=1000, # bootstrap draws
    ) -> dict: # the record written to `out/A_against_B.json`
        "Is A better than B? Differences with paired intervals, p-values in the curves"
        (ma, da, ca, sa), (_, db, cb, sb) = self.over(a, n_boot), self.over(b, n_boot)
        n = min(len(d) for d in [*da, *db])
        diff = paired_difference([d[:n] for d in da], [d[:n] for d in db], ca["seeds"], cb["seeds"])
        metrics = {k: metric(d["value"], d["low"], d["high"], ma[k]["n"], "difference") for k, d in diff.items()}
        curves = dict(p={k: d["p"] for k, d in diff.items()}, seeds={a: sa, b: sb})
        what = f"{a} minus {b}, people and seeds drawn together"
        rec = record(what, self.track.command, self.playing(a).about(), metrics, curves, sorted({*sa, *sb}))
        write_record(Path(out)/f"{a}_against_{b}.json", rec)
        return rec

    def training_cost(self,
        name:str, # a key of `recipes`
        steps:int=32, # of an epoch
    ) -> dict: # `metric`s train_images_per_s_NAME and train_core_seconds_NAME, of one thread
        "What a training costs on a quiet machine, measured on a few steps of it"
        self = self.sized(name)
        recipe = self.recipes[name]
        rows, faces = self.training(recipe)
        n, few = len(rows), min(len(rows), steps*recipe.batch_size)
        with one_thread(), tempfile.TemporaryDirectory() as tmp:
            self.run_recipe(recipe, (rows[:few], faces[:few]), tmp, 3, held=self.watched(2))
            rate = read_log(tmp, short_name(recipe.head)).images_per_s.iloc[1:]
        speed = metric(float(rate.mean()), float(rate.min()), float(rate.max()), n=few*2,
                       unit="faces/s, 1 thread; range over two epochs")
        cost = metric(float(n*recipe.epochs/rate.mean()), n=n*recipe.epochs,
                      unit="s on one quiet core, the rate times the length")
        return {f"train_images_per_s_{name}": speed, f"train_core_seconds_{name}": cost}

    def speed(self,
        out:str|Path, # folder of the records
        names:tuple=LADDER, # the ladder and the others; those not trained are left out
        repeats:int=20, # measurements of each
    ) -> dict: # the record written to `out/speed.json`
        "Milliseconds per face of the trained networks, one at a time and 32 at once, and what their trainings cost"
        metrics = {}
        for n in names:
            seeds = self.trained(n) if n in self.recipes else []
            if not seeds: continue
            metrics |= self.training_cost(n)
            path = self.runs/f"{n}-{seeds[0]}"/f"best_{short_name(self.recipes[n].head)}.pth"
            model = FaceEmbedder.load(path, "cpu")
            metrics |= {f"ms_{n}_{b}": ms_per_face(model, b, repeats) for b in (1, 32)}
        rec = record("Milliseconds per face, one CPU thread", COMMAND + " --speed", self.about(), metrics)
        write_record(Path(out)/"speed.json", rec)
        return rec

    def write_records(self,
        out:str|Path="results/recognition", # folder of the records
        n_boot:int=1000, # bootstrap draws
    ) -> dict: # the summary
        "Measure the recipes all of whose seeds are trained; the records of the others stay as they are"
        done = [n for n, r in self.recipes.items() if {*r.seeds} <= {*self.trained(n)}]
        for n in [*self.track.floor, *done]: self.write_run(n, out, n_boot)
        for a, b in self.track.versus:
            if a in done and b in done: self.compare(a, b, out, n_boot)
        return summarise(out, self.about())


def error_cut(best, base):
    "The share of the baseline's error that is gone; null where one was not measured"
    known = None not in (best, base) and base < 1
    return metric(1 - (1 - best)/(1 - base) if known else None, unit="share of the baseline's error")


def chosen(
    numbers, # recipe -> its metrics, a function
) -> str: # a recipe; `None` where none was measured
    "The recipe from faces with the highest TAR at its own threshold on the calibration people"
    known = {n: numbers(n).get("tar_at_threshold_calibration") for n, r in FACES.items() if not r.photographs}
    known = {n: m["value"] for n, m in known.items() if m}
    return max(known, key=known.get) if known else None


def summarise(
    out:str|Path, # folder of the records
    about:dict, # from `Study.about`
) -> dict: # the record written to `out/summary.json`
    "The headline numbers out of the records that there are; what was not measured is null"
    def numbers(name):
        path = Path(out)/f"{name}.json"
        return read_json(path)["metrics"] if path.exists() else {}
    got, best = {n: numbers(n) for n in ("ce", "arcface", "best", "course", "speed", *COMPARED)}, chosen(numbers)
    metrics = {k: got[n].get(m) or metric(None) for k, (n, m) in HEADLINE.items()}
    metrics |= {k: numbers(best).get(m) or metric(None) for k, m in CHOSEN.items()}
    value = {k: m["value"] for k, m in metrics.items()}
    metrics["auc_error_cut"] = error_cut(value["auc_unseen_best"], value["auc_unseen_baseline"])
    metrics["lfw_error_cut"] = error_cut(value["lfw_view1_accuracy"], value["lfw_view1_baseline"])
    cost = [got["speed"].get(f"train_core_seconds_{n}", metric(None))["value"] for n in ("best", "course")]
    metrics["train_time_ratio"] = metric(cost[0]/cost[1] if all(cost) else None,
                                         unit="ratio of the seconds on one quiet core")
    rec = record("Recognition: the headline numbers", COMMAND, about, metrics, dict(best_faces=best))
    write_record(Path(out)/"summary.json", rec)
    return rec


class one_thread:
    "Within it, torch computes on one thread"
    def __enter__(self):
        import torch
        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_):
        import torch
        torch.set_num_threads(self.before)


def ms_per_face(
    model:FaceEmbedder, # on the CPU
    batch:int=1, # faces at once
    repeats:int=20, # measurements; the median counts
) -> dict: # `metric` in ms of processor time, one thread, without the mirror image
    "What an embedding costs"
    faces = np.random.default_rng(0).integers(0, 256, (batch, model.size, model.size, 3), np.uint8)
    took = []
    with one_thread():
        for _ in range(repeats + 3):
            start = time.process_time()
            model.embed(faces, flip=False, check_colour=False)
            took.append((time.process_time() - start)*1000/batch)
    low, high = np.quantile(took[3:], [0.025, 0.975]).tolist()
    return metric(float(np.median(took[3:])), low, high, n=repeats, unit="ms of processor time, 1 thread")


def open_study(
    data:str|Path="../shared/data", # the folder that holds the three folders of pictures and the annotations
    runs:str|Path="runs/recognition", # folder of faces and trainings
    model:str="big", # 'big' or 'small' landmark network of the package, or a run folder or `.pth`
    start:str="nothing", # what the trainings begin as: nothing, or faces
    progress:bool=False, # show progress bars
) -> Study: # ready to train and to measure
    "Align what is not aligned yet, and open the study; raises `InputError`"
    recipes = REGISTERS[start]
    wanted, more = next(iter(recipes.values())), start == "faces"
    size = max(r.size for r in recipes.values())
    table, faces = align_all(sources(data, more=more), LandmarkModel.load(model), Path(runs)/f"faces-{size}", size,
                             progress=progress, name=wanted.template)
    return Study(table[table.role != "more"], faces, runs, recipes, data)


# The command

def arguments():
    "What can be asked"
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    say, number = parser.add_argument, dict(type=int, metavar="N")
    say("--data", default="../shared/data", help="folder with the three folders of pictures and celeba-annotations")
    say("--runs", default="runs/recognition", help="folder of the aligned faces and of the trainings")
    say("--out", default="results/recognition", help="folder of the records")
    say("--train", help="train only these, NAME:SEED separated by commas (see --state), and measure nothing")
    say("--faces", action="store_true", help="only align the faces")
    say("--state", action="store_true", help="only say which trainings are finished, begun, missing")
    say("--measure", action="store_true", help="only measure what is trained, recipes with all of their seeds")
    say("--speed", action="store_true", help="only time the trained networks, with nothing else running")
    say("--start", default="nothing", choices=REGISTERS, help="what the trainings begin as (default: nothing)")
    say("--model", default="big", help="landmark network: big or small, a run folder or a .pth")
    say("--boot", default=1000, help="bootstrap draws of the intervals (default: 1000)", **number)
    say("--threads", help="processor threads; without it one a core", **number)
    return parser


def run(args):
    "Do what the arguments say"
    recipes = REGISTERS[args.start]
    wanted = [parse_job(j.strip(), recipes) for j in (args.train or "").split(",") if j.strip()]
    if args.state: return print(list_jobs(args.runs, recipes).to_string(index=False))
    if args.threads:
        import torch
        torch.set_num_threads(args.threads)
    show = sys.stderr.isatty()
    study = open_study(args.data, args.runs, args.model, args.start, show)
    if args.faces: return print(json.dumps(study.about(), indent=1))
    if args.speed: return print(json.dumps(study.speed(args.out)["metrics"], indent=1))
    every = [] if args.measure else list_jobs(args.runs, recipes)[["name", "seed"]].values.tolist()
    for name, seed in wanted or every:
        done = study.train(name, seed, progress=show)
        print(name, seed, json.dumps(done["metrics"]), file=sys.stderr)
    if not wanted: print(json.dumps(study.write_records(args.out, args.boot)["metrics"], indent=1))


def main(
    argv:list=None, # arguments; `None`: those of the command line
) -> int: # 0, or 1 after one line that says what to do
    "The command"
    try: run(arguments().parse_args(argv))
    except InputError as e:
        print(f"studies.recognition: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__": sys.exit(main())
