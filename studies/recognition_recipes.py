"""The register of the recognition study's trainings: everything that each of them depends on."""
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from facerec_nb.core.files import InputError
from facerec_nb.models.augment import Augment


@dataclass(frozen=True)
class Recipe:
    "One training of the study"
    head:str = "arcface" # one of `HEADS`
    backbone:str = "tiny" # one of `BACKBONES`
    seeds:tuple = (0,) # the seeds it is run with
    epochs:int = 10 # passes over the training faces
    batch_size:int = 64 # faces a step
    lr:float = 2e-3 # highest learning rate
    weight_decay:float = 1e-2 # of AdamW
    emb_dim:int = 512 # numbers in an embedding
    head_kw:dict = field(default_factory=dict) # scale, margin, smoothing, centres, mining
    augment:Augment = Augment() # what a training face may look like
    together:bool = False # four photographs a person in a batch
    with_test:bool = False # train on the closed set's test photographs too; then there is no top-1
    people:int = None # only so many people
    per_person:int = None # only so many photographs of each
    size:int = 112 # side of the faces in pixels; smaller than the study's: shrunk
    attributes:float = 0. # weight of CelebA's forty attributes as a second task; 0: not used
    start:str = "nothing" # what the weights begin as: nothing, or faces
    template:str = "arcface" # the template the faces are aligned to
    photographs:bool = False # the 60 people with thirty photographs each train, not the 2,700 with four
    tuning:dict = field(default_factory=dict) # body_lr, frozen_steps; otherwise those of `EmbedderCfg`


ARC = dict(scale=30.0, margin=0.3)  # the grid shows what else there is
PLAIN = Augment(rotation=0., zoom=0., shift=0., light=0., colour=0., grey=0., cutout=0.)  # mirrored at most
HARD = Augment(coarse=0.15)
MILD = Augment(rotation=5., zoom=0.05, shift=0.02, light=0.2, cutout=0.25)
COURSE = Recipe("ce", "resnet18", epochs=30, lr=1e-3, head_kw=dict(smoothing=0.1), augment=PLAIN, with_test=True)

# the comparison, three seeds each; and the other losses beside the same on faces of half the side
RUNS = dict(
    ce=Recipe("ce", seeds=(0, 1, 2)),
    arcface=Recipe(seeds=(0, 1, 2), head_kw=ARC),
    ce_half=Recipe("ce", size=56),
    arcface_half=Recipe(head_kw=ARC, size=56),
    normface=Recipe("normface", head_kw=dict(scale=30.0), size=56),
    cosface=Recipe("cosface", head_kw=dict(scale=30.0, margin=0.2), size=56),
    adaface=Recipe("adaface", head_kw=dict(scale=30.0, margin=0.3), size=56),
    subcentres=Recipe(head_kw=ARC | dict(centres=3), size=56),
    triplet=Recipe("triplet", together=True, size=56),
    triplet_random=Recipe("triplet", together=True, head_kw=dict(mining="random"), size=56),
    attributes=Recipe(head_kw=ARC, attributes=10., size=56),
)
# the course's recipe on a smaller network, the ladder of networks, and the best we know
RUNS |= dict(
    course=replace(COURSE, head="arcface", head_kw=dict(scale=30.0, margin=0.5, smoothing=0.1)),
    course_ce=COURSE,
    small=Recipe(backbone="small", head_kw=ARC, size=56),
    base=Recipe(backbone="base", head_kw=ARC, size=56),
    best=Recipe(backbone="small", epochs=24, weight_decay=0.3, head_kw=ARC, augment=HARD, with_test=True,
                attributes=10.),
)
# the time of best, spent on more passes over smaller faces
RUNS["best_64"] = replace(RUNS["best"], epochs=44, size=64)
# margin and scale; the middle is arcface_half
RUNS |= {f"grid_m{m:g}_s{s:g}": Recipe(head_kw=dict(scale=s, margin=m), size=56)
         for m in (0.1, 0.3, 0.5) for s in (16.0, 30.0, 64.0) if (m, s) != (0.3, 30.0)}
# learning curves, the same number of steps each; all 2,700 people and all four photographs are arcface_half
RUNS |= {f"people_{n}": Recipe(head_kw=ARC, people=n, epochs=e, size=56) for n, e in ((270, 100), (900, 30))}
RUNS |= {f"photos_{k}": Recipe(head_kw=ARC, per_person=k, epochs=e, size=56) for k, e in ((1, 40), (2, 20), (3, 13))}

# from faces: the public-domain network goes on learning; a pass at a learning rate of nothing is the start, untuned.
# All its faces lie in one cone, two people 20 degrees apart: scales are larger there, margins smaller
START = Recipe("normface", "dlib_resnet", epochs=1, lr=1e-12, emb_dim=128, size=150, start="faces", template="dlib")
TUNED = replace(START, epochs=3, lr=4e-4, augment=MILD, tuning=dict(body_lr=0.05))
THREE, NEAR = (0, 1, 2), dict(scale=128.0, margin=0.1)
FACES = dict(
    start_faces=START,
    ce_faces=replace(TUNED, head="ce", seeds=THREE),
    arcface_faces=replace(TUNED, head="arcface", head_kw=NEAR, seeds=THREE),
    normface_faces=replace(TUNED, head_kw=dict(scale=128.0), seeds=THREE),
    cosface_faces=replace(TUNED, head="cosface", head_kw=dict(scale=128.0, margin=0.03), seeds=THREE),
    adaface_faces=replace(TUNED, head="adaface", head_kw=dict(scale=128.0, margin=0.03), seeds=THREE),
    subcentres_faces=replace(TUNED, head="arcface", head_kw=NEAR | dict(centres=3), seeds=THREE),
    triplet_faces=replace(TUNED, head="triplet", together=True, seeds=THREE),
)
# the course's own ratio: 60 people, 18 of 25 photographs of each
FACES |= {f"course_{n}": replace(FACES[n], photographs=True, epochs=e)
          for n, e in dict(start_faces=1, ce_faces=8, arcface_faces=8).items()}
REGISTERS = dict(nothing=RUNS, faces=FACES)


def parse_job(
    job:str, # 'NAME:SEED', or 'NAME' for its first seed
    runs:dict=None, # name -> `Recipe`; `None`: `RUNS`
) -> tuple: # name and seed
    "A training by its name; raises `InputError` that lists the names"
    name, _, seed = job.partition(":")
    runs = RUNS if runs is None else runs
    if name not in runs: raise InputError(f"there is no training {name!r}: choose one of {', '.join(runs)}")
    if seed and not seed.isdecimal():
        raise InputError(f"{job!r}: the seed after the colon must be a whole number, for example {name}:0")
    return name, int(seed or runs[name].seeds[0])


def list_jobs(
    runs:str|Path, # folder of the trainings
    recipes:dict=None, # name -> `Recipe`; `None`: `RUNS`
) -> pd.DataFrame: # name, seed, state (finished, begun, missing), a row a training
    "What there is to train"
    def state(run):
        if (run/"trained.json").exists(): return "finished"
        return "begun" if (run/"begun.json").exists() else "missing"
    jobs = [(name, seed) for name, recipe in (recipes or RUNS).items() for seed in recipe.seeds]
    return pd.DataFrame([dict(name=n, seed=s, state=state(Path(runs)/f"{n}-{s}")) for n, s in jobs])
