"""The faces of the recognition study: which pictures, who plays what, and how each is aligned, once and resumable."""
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from facerec_nb.datasets.celeba_files import BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.datasets.photos import find_images
from facerec_nb.faces.detection import create_detector
from facerec_nb.evaluation.folders import central_box
from facerec_nb.faces.aligned import align_batch, resume_batches
from facerec_nb.core.files import InputError, atomic_path, fingerprint, read_json, write_json
from facerec_nb.core.geometry import align_matrix, similarity, template, xywh_to_xyxy
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import add_splits

ALIGNED_BOX = (12., 10., 116., 150.)  # pixels of a 128x160 window: a box like CelebA's
EYES = np.array([[44., 69], [83, 69]])  # pixels of that window: where CelebA put the eyes
EYE_LIMIT = 8.  # pixels of that window: a found eye further away than this has failed
FOLDERS = ("celeba-aligned-3000x5", "celeba-wild-60x30", "lfw-view1-devtest", "celeba-annotations")
MORE = "celeba-aligned-more-3000x5"  # further people, for the trainings that start from faces
BOX = ["x1", "y1", "x2", "y2"]


# Which pictures

def aligned_rows(folder):
    "Pictures of a folder like `celeba-aligned-3000x5` that identity.csv names"
    rows = pd.read_csv(Path(folder)/"identity.csv", dtype=dict(image_id=str))
    found = find_images(Path(folder)/"img")
    lost = rows.image_id[~rows.image_id.isin(found)]
    if len(lost):
        raise InputError(f"{folder}/identity.csv names {lost.iloc[0]}, which {folder}/img does not hold "
                         f"({len(lost)} such): get the folder again")
    paths = [str(found[i]) for i in rows.image_id]
    return rows.assign(source="aligned", path=paths, **dict(zip(BOX, ALIGNED_BOX)))


def wild_rows(folder):
    "Photographs of `celeba-wild-60x30` with their official boxes, chosen as for the landmark training"
    rows = Usable(min_box=0, drop_blurry=False).select(load_celeba(folder, check="none").table)
    boxes = xywh_to_xyxy(rows[BOX_COLUMNS].to_numpy(float))
    paths = [str(Path(folder)/p) for p in rows.path]
    return rows[["image_id", "identity"]].assign(source="wild", path=paths, **dict(zip(BOX, boxes.T)))


def lfw_rows(folder):
    "Photographs of `lfw-view1-devtest`; no boxes; a number from 1,000,001 for each name"
    found = find_images(folder)
    names = [p.parent.name for p in found.values()]
    rows = dict(image_id=list(found), identity=1_000_001 + np.unique(names, return_inverse=True)[1], source="lfw",
                path=[str(p) for p in found.values()])
    return pd.DataFrame(rows).assign(**dict.fromkeys(BOX, np.nan))


# Who plays what

def one_place(
    table:pd.DataFrame, # with identity and role
) -> pd.DataFrame: # the same
    "Raise `InputError` when somebody has two roles; train and test are photographs of the same people, one role"
    roles = table.role.replace("test", "train").groupby(table.identity.to_numpy()).nunique()
    if (roles > 1).any():
        raise InputError(f"person {roles.idxmax()} has {roles.max()} roles: everyone must be in one place; "
                         "make the faces again")
    return table


def sources(
    data:str|Path, # the folder that holds the three
    unseen:tuple=(0.1, 0.2), # shares of the people held out, of the aligned and of the wild ones
    seed:int=21, # of the people held out and the test photographs
    more:bool=False, # also the further 3,000 people, whose role is 'more'
) -> pd.DataFrame: # source, image_id, path, identity, role (train, test, unseen, calibration, wild_unseen, lfw), box
    "All photographs of the study and what each is for; raises `InputError`"
    data = Path(data)
    lost = [f for f in FOLDERS if not (data/f).is_dir()]
    if lost:
        raise InputError(f"{data} has no folder {', '.join(lost)}: give the folder that holds the study's raw data")
    aligned = add_splits(aligned_rows(data/FOLDERS[0]), split=(4, 0, 1), unseen=unseen[0], seed=seed)
    wild = add_splits(wild_rows(data/FOLDERS[1]), unseen=unseen[1], seed=seed)
    aligned["role"] = np.where(aligned.people == "unseen", "unseen", aligned.split)
    wild["role"] = np.where(wild.people == "unseen", "wild_unseen", "calibration")
    parts = [aligned, wild, lfw_rows(data/FOLDERS[2]).assign(role="lfw")]
    if more: parts.append(aligned_rows(data/MORE).assign(role="more"))
    rows = pd.concat(parts, ignore_index=True)
    return one_place(rows[["source", "image_id", "path", "identity", "role", *BOX]])


def of_photographs(
    table:pd.DataFrame, # from `align_all`
    split:tuple=(18, 0, 7), # training : val : test photographs within each person
    n_watched:int=100, # of the aligned people, who set the threshold
    seed:int=21, # of both draws
) -> pd.DataFrame: # the table with other roles
    "The course's ratio: all people of the wild photographs train, some of the aligned ones are the calibration"
    rows, spare = add_splits(table[table.source == "wild"], split, 0, seed), table.role.isin(["train", "test"])
    watched = np.random.default_rng(seed).permutation(table.identity[spare].unique())[:n_watched]
    role = table.role.mask(spare, "spare").mask(spare & table.identity.isin(watched), "calibration")
    return table.assign(role=rows.split.reindex(table.index).fillna(role))


# From photograph to face

def face_matrix(
    points:np.ndarray, # `(5, 2)` found, in pixels
    size:int=112, # side of the aligned face in pixels
    known:np.ndarray=None, # `(2, 2)` where the eyes are known to be, in pixels
    limit:float=EYE_LIMIT, # largest distance of a found eye from the known one, in pixels
    name:str="arcface", # the template
) -> tuple: # `(2, 3)` photograph -> face, and 'points' or 'eyes'
    "Align by the five points, or by the known eyes where the points disagree with them"
    off = 0 if known is None else np.linalg.norm(np.asarray(points)[:2] - known, axis=1).max()
    if off <= limit: return align_matrix(points, size, name), "points"
    return similarity(known, template(size, name)[:2]), "eyes"


def found_boxes(rows, photos, detector):
    "Boxes `(N, 4)` and where each comes from: given, detected, whole"
    given = rows[BOX].to_numpy(float, copy=True)
    how = np.where(np.isnan(given[:, 0]), "detected", "given").astype(object)
    for i in np.flatnonzero(how == "detected"):
        box = central_box(detector(photos[i])[0], photos[i].shape)
        if box is None: how[i] = "whole"
        given[i] = [0, 0, photos[i].shape[1], photos[i].shape[0]] if box is None else box
    return given, how


def described(rows, i, batch, box_how, points_how):
    "What is written of one face"
    points = dict(zip(POINT_COLUMNS, batch.points[i].ravel().round(3).tolist()))
    return dict(row=int(rows.index[i]), box=box_how[i], align=points_how[i],
                confidence=round(float(batch.confidence[i]), 5), sharpness=round(float(batch.sharpness[i]), 2)) | points


def align_block(rows, model, detector, size, name="arcface"):
    "Faces of one block, black where there is none, and a dict for each that was made"
    box_how, points_how = {}, {}
    def boxes(at, photos):
        found, how = found_boxes(rows.iloc[at], photos, detector)
        box_how.update(zip(at, how))
        return found
    def place(i, points, confidence):
        M, points_how[i] = face_matrix(points, size, EYES if rows.source.iloc[i] == "aligned" else None, name=name)
        return M
    batch = align_batch(model, rows.path.tolist(), boxes, place, size)
    return batch.faces, [described(rows, i, batch, box_how, points_how) for i in np.flatnonzero(batch.made)]


def what_for(rows, model, size, detector, name):
    "The name of the array: what the faces are made of"
    said = dict(size=size, detector=str(detector), box=ALIGNED_BOX, limit=EYE_LIMIT)
    if name != "arcface": said["template"] = name
    bytes_ = [os.path.getsize(p) for p in rows.path]
    return fingerprint(said, model.fingerprint, rows.drop(columns="path").to_csv(index=False), bytes_)


def open_array(path, shape):
    "The memory-mapped faces, as far as they got, or empty ones"
    if path.exists(): return np.lib.format.open_memmap(path, "r+")
    return np.lib.format.open_memmap(path, "w+", np.uint8, shape)


def align_all(
    rows:pd.DataFrame, # from `sources`
    model, # a `LandmarkModel`
    out:str|Path, # the folder to write
    size:int=112, # side of the aligned faces in pixels
    detector="centerface", # name of a detector for photographs without a box, or the detector itself
    block:int=128, # photographs in memory at once
    progress:bool=False, # show a progress bar
    name:str="arcface", # the template: 'arcface', 'course' or 'dlib'
) -> tuple: # table, faces uint8 `(N, size, size, 3)` memory-mapped: face of a table row is `faces[row]`
    "Align all faces of the study once, resumable; raises `InputError`"
    out, rows = Path(out), rows.reset_index(drop=True)
    key = what_for(rows, model, size, detector, name)
    if (out/"faces.json").exists() and read_json(out/"faces.json")["key"] == key: return read_faces(out)
    out.mkdir(parents=True, exist_ok=True)
    faces = open_array(out/f"{key}.npy", (len(rows), size, size, 3))
    detect = create_detector(detector) if isinstance(detector, str) else detector
    def work(start, stop):
        faces[start:stop], found = align_block(rows.iloc[start:stop], model, detect, size, name)
        faces.flush()
        return found
    blocks = resume_batches(out/"progress"/key, len(rows), block, work, "faces", progress)
    found = pd.DataFrame([row for found in blocks for row in found])
    if not len(found):
        raise InputError(f"none of the {len(rows)} photographs could be aligned: check that they are photographs")
    about = rows.loc[found.row, ["source", "image_id", "identity", "role"]].reset_index(drop=True)
    return finish_faces(out, about.join(found), rows, key, size)


def finish_faces(out, table, rows, key, size):
    "Write the table, then the counts; older arrays go"
    with atomic_path(out/"faces.csv") as temp: table.to_csv(temp, index=False)
    counts = {k: table.groupby("source")[k].value_counts().unstack(fill_value=0).to_dict("index")
              for k in ("box", "align", "role")}
    lost = rows.image_id[~rows.index.isin(table.row)].tolist()
    write_json(out/"faces.json", dict(key=key, size=size, n=len(rows), unreadable=lost, **counts))
    for p in out.glob("*.npy"):
        if p.name != f"{key}.npy": p.unlink()
    shutil.rmtree(out/"progress")
    return read_faces(out)


def read_faces(
    out:str|Path, # what `align_all` wrote
) -> tuple: # table and memory-mapped faces, see `align_all`
    "Open the aligned faces; raises `InputError` when they are missing or do not belong together"
    about = read_json(Path(out)/"faces.json")
    path = Path(out)/f"{about['key']}.npy"
    if not path.is_file(): raise InputError(f"{path} does not exist: delete {out}/faces.json and run the study again")
    table = one_place(pd.read_csv(Path(out)/"faces.csv", dtype=dict(image_id=str)))
    faces = np.load(path, mmap_mode="r")
    if faces.shape != (about["n"], about["size"], about["size"], 3):
        raise InputError(f"{path} holds {faces.shape}, faces.json says {about['n']} faces of {about['size']} px: "
                         "delete faces.json and run the study again")
    return table, faces
