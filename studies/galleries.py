"""Who is in the fit of the law for galleries, who is enrolled in its check, and who are the strangers there."""
from pathlib import Path

import numpy as np
import pandas as pd

from facerec_nb.core.files import fingerprint
from facerec_nb.core.gallery_threshold import equal_people
from facerec_nb.faces.landmarks import LandmarkModel
from studies.recognition_faces import align_all, sources

FIT, ENROLLED = 1700, 3000  # people, of the 5,700 aligned ones that trainings may see; the rest are strangers
TUNED = ("celeba",)  # embedders of the package that were trained on the 2,700 people of the study


def aligned_embeddings(
    embedder, # an OnnxEmbedder or FaceEmbedder
    data:str|Path, # the folder that holds the study's raw data
    runs:str|Path, # faces and embeddings are kept here
) -> tuple: # table, `(N, D)`: a row of the table has this embedding
    "The study's faces cut for an embedder, and their embeddings, with the mirrored face"
    size, name, runs = embedder.size, embedder.template, Path(runs)
    table, faces = align_all(sources(data, more=True), LandmarkModel.load("big"), runs/f"faces-{name}", size, name=name)
    kept = runs/"galleries"/f"{fingerprint(embedder.preprocessing, table.to_csv(index=False), probe_of(embedder))}.npy"
    if kept.exists(): return table, np.load(kept)
    parts = [embedder.embed(np.asarray(faces[rows]), flip=True) for rows in np.array_split(table.row, len(table)//512)]
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, np.concatenate(parts))
    return table, np.load(kept)


def probe_of(embedder):
    "What an embedder answers to noise, rounded: its weights count here, its calibration does not"
    noise = np.random.default_rng(0).integers(0, 256, (2, embedder.size, embedder.size, 3), np.uint8)
    return embedder.embed(noise).round(4).tolist()


def fit_people(
    table:pd.DataFrame, # from aligned_embeddings
    emb:np.ndarray, # `(N, D)`
    trained:bool=False, # was the embedder trained on the aligned people? Then only `more` and those held out are left
) -> tuple: # `(n, D)` embeddings, `(n,)` who they are
    "The aligned people of the fit: those held out from every training, and FIT of the others"
    ids, part = table.identity.to_numpy(), others(table, trained)[:FIT]
    take = (table.role == "unseen").to_numpy() | np.isin(ids, part)
    return emb[take], ids[take]


def others(table, trained=False):
    "The aligned people the embedder has not seen, in the order in which parts are given out"
    roles = ["more"] if trained else ["train", "test", "more"]
    return np.random.default_rng(2).permutation(np.unique(table.identity[table.role.isin(roles)]))


def check_people(
    table:pd.DataFrame, # from aligned_embeddings
    emb:np.ndarray, # `(N, D)`
    trained:bool=False, # see fit_people
) -> tuple: # `(people, 5, D)` to enrol, `(people, 5, D)` strangers
    "People who are in no fit. Trained: all of them are strangers and the first to enrol; the trained ones come behind"
    ids, order = table.identity.to_numpy(), others(table, trained)[FIT:]
    def faces(people): return equal_people(emb[np.isin(ids, people)], ids[np.isin(ids, people)])
    if not trained: return faces(order[:ENROLLED]), faces(order[ENROLLED:])
    left, seen = faces(order), faces(np.setdiff1d(others(table), others(table, trained)))
    return np.concatenate([left, seen]), left
