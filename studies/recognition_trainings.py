"""The trainings of the recognition study: what a recipe learns from, and how it is begun, gone on with, left alone."""
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from facerec_nb.datasets.celeba_files import ATTRIBUTES, load_celeba
from facerec_nb.core.files import InputError, fingerprint, read_json, thread_map, write_json
from facerec_nb.faces.recognition import train_embedder
from studies.recognition_faces import of_photographs, one_place
from studies.recognition_recipes import RUNS, Recipe


class Trainings:
    "The aligned faces and the folder of the trainings"
    def __init__(self,
        table:pd.DataFrame, # from `align_all`
        faces:np.ndarray, # likewise
        runs:str|Path, # folder of the trainings; each gets a folder NAME-SEED
        recipes:dict=None, # name -> `Recipe`; `None`: `RUNS`
        raw:str|Path=None, # the folder of the raw data, for LFW's list of pairs and the attributes
    ):
        self.table, self.faces, self.runs = one_place(table), faces, Path(runs)
        self.recipes, self.raw = recipes or RUNS, raw and Path(raw)
        self.key = fingerprint(table.to_csv(index=False), faces.shape)

    def part(self,
        *roles:str, # 'train', 'test', 'unseen', 'calibration', 'wild_unseen', 'lfw'
    ) -> tuple: # rows of the table, their faces
        "The faces with these roles"
        rows = self.table[self.table.role.isin(roles)].reset_index(drop=True)
        return rows, self.faces[rows.row.to_numpy()]

    def trained(self,
        name:str, # a key of `recipes`
    ) -> list: # seeds whose training is complete
        "Which seeds of a recipe are done"
        runs = [p.parent.name.rpartition("-") for p in self.runs.glob(f"{name}-*/trained.json")]
        return sorted(int(seed) for run, _, seed in runs if run == name)

    def training(self,
        recipe:Recipe, # says which people and photographs
    ) -> tuple: # table with the columns of `load_faces`, faces
        "What a recipe trains on"
        rows = self.table[self.table.role.isin(["train", "test"] if recipe.with_test else ["train"])]
        people = np.random.default_rng(21).permutation(rows.identity.unique())[:recipe.people]
        rows = rows[rows.identity.isin(people)]
        if recipe.per_person: rows = rows.groupby("identity").head(recipe.per_person)
        return rows.assign(split="train", people="seen").reset_index(drop=True), self.faces[rows.row.to_numpy()]

    def watched(self,
        per_person:int=10, # photographs of each of the calibration people
    ) -> tuple: # table, faces
        "The people whose AUC the log follows; they are in no training and no test"
        rows, faces = self.part("calibration")
        keep = rows.groupby("identity").cumcount().to_numpy() < per_person
        return rows[keep].reset_index(drop=True), faces[keep]

    def at(self,
        size:int, # side of the faces in pixels
    ): # the same people, photographs and folder of trainings
        "The study on smaller faces; raises `InputError` for larger ones"
        have = self.faces.shape[1]
        if size > have:
            raise InputError(f"faces of {size} px are asked for, these are {have} px: align with size={size}")
        def shrink(face): return cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
        faces = np.stack(thread_map(shrink, self.faces))
        return type(self)(self.table, faces, self.runs, self.recipes, self.raw)

    def playing(self,
        name:str, # a key of `recipes`
    ): # this study, or the same with other roles
        "The study in which the people play what a recipe wants"
        if not self.recipes[name].photographs: return self
        return type(self)(of_photographs(self.table), self.faces, self.runs, self.recipes, self.raw)

    def sized(self,
        name:str, # a key of `recipes`
    ): # this study, or the same on smaller faces
        "The study on the faces, and with the roles, that a recipe wants"
        self, size = self.playing(name), self.recipes[name].size
        return self if size == self.faces.shape[1] else self.at(size)

    def known(self,
        rows:pd.DataFrame, # of the CelebA faces
        names:list=ATTRIBUTES, # which
    ) -> np.ndarray: # bool `(len(rows), len(names))`
        "CelebA's attributes of these faces; raises `InputError`"
        folder = self.raw/"celeba-annotations"
        table = load_celeba(folder, images=False, need=("attributes", "identity")).table.set_index("image_id")
        return table.loc[rows.image_id, list(names)].to_numpy(bool)

    def run_recipe(self,
        recipe:Recipe, # how
        data:tuple, # table and faces, from `training`
        run:str|Path, # folder of the run
        epochs:int, # passes, the recipe's or fewer
        seed:int=0, # of weights, order and augmentation
        **settings, # held, resume, progress of `train_embedder`
    ) -> dict: # what `train_embedder` returns
        "Train as a recipe says"
        same = ("head", "backbone", "batch_size", "lr", "weight_decay", "emb_dim", "augment", "head_kw", "together",
                "start", "template")
        wanted = {k: getattr(recipe, k) for k in same} | recipe.tuning
        attributes = self.known(data[0]) if recipe.attributes else None
        return train_embedder(data, run, **wanted, epochs=epochs, seed=seed, attributes=attributes,
                              attribute_weight=recipe.attributes, **settings)

    def train(self,
        name:str, # a key of `recipes`
        seed:int=0, # of weights, order and augmentation
        progress:bool=False, # show a progress bar
    ) -> dict: # what `train_embedder` returns, and the recipe
        "Train one recipe with one seed to its end, or go on; raises `InputError` when it was begun with another recipe"
        self = self.sized(name)
        recipe, run = self.recipes[name], self.runs/f"{name}-{seed}"
        said = fingerprint(asdict(recipe) | dict(seeds=0), self.key)
        for begun in (run/"begun.json", run/"trained.json"):
            if begun.exists() and read_json(begun)["said"] != said:
                raise InputError(f"{run} was trained with another recipe or other faces: "
                                 "move it away, or give another folder of runs")
        if (run/"trained.json").exists(): return read_json(run/"trained.json")
        write_json(run/"begun.json", dict(said=said))
        done = self.run_recipe(recipe, self.training(recipe), run, recipe.epochs, seed, held=self.watched(),
                               resume=True, progress=progress)
        write_json(run/"trained.json", done | dict(said=said, recipe=asdict(recipe)))
        return read_json(run/"trained.json")
