"""Where the five points of CelebA's original photographs lie in its aligned pictures, and a folder to train on."""
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from facerec_nb.datasets.celeba_files import BOX_COLUMNS, POINT_COLUMNS
from facerec_nb.datasets.photos import find_images
from facerec_nb.core.files import InputError, inside, write_csv
from facerec_nb.core.geometry import apply_matrix, similarity, xywh_to_xyxy
from facerec_nb.datasets.selected import SELECTED_COLUMNS, add_splits

# left eye, right eye, middle of the mouth, in pixels of the 178x218 picture
ALIGNED_TEMPLATE = np.array([[69.37, 111.18], [107.63, 111.44], [88.65, 152.30]])


def aligned_matrix(
    points:np.ndarray, # `(..., 5, 2)` points of the original photograph in pixels
    window:tuple=(0, 0), # top left corner in pixels of the part of the 178x218 picture that is at hand
) -> np.ndarray: # `(..., 2, 3)`: original photograph -> aligned picture
    "The similarity that made CelebA's aligned picture, by eyes and middle of the mouth"
    points = np.asarray(points, float)
    three = np.concatenate([points[..., :2, :], points[..., 3:, :].mean(-2, keepdims=True)], -2)
    return similarity(three, ALIGNED_TEMPLATE - window)


def moved_boxes(
    boxes:np.ndarray, # `(N, 4)` CelebA's x_1, y_1, width, height in pixels
    M:np.ndarray, # `(N, 2, 3)` similarities
) -> np.ndarray: # `(N, 4)` likewise
    "Boxes after a similarity: the centre moves, the sides grow, nothing tilts"
    corners = xywh_to_xyxy(boxes).reshape(-1, 2, 2)
    sides = np.ptp(corners, axis=1)*np.linalg.norm(M[:, :, 0], axis=1)[:, None]
    return np.concatenate([apply_matrix(M, corners.mean(1, keepdims=True))[:, 0] - sides/2, sides], 1)


def moved_rows(rows, window):
    "The rows with boxes and points in pixels of the aligned pictures"
    points = rows[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2)
    M = aligned_matrix(points, window)
    points, boxes = apply_matrix(M, points).reshape(-1, 10), moved_boxes(rows[BOX_COLUMNS].to_numpy(float), M)
    moved = dict(zip(BOX_COLUMNS, boxes.T.round(2))) | dict(zip(POINT_COLUMNS, points.T.round(2)))
    return rows.assign(class_id=np.unique(rows.identity, return_inverse=True)[1], **moved)[SELECTED_COLUMNS]


def aligned_faces(
    table:pd.DataFrame, # `CelebA.table` of the originals: image_id, identity, boxes, points, attributes
    identity:pd.DataFrame, # image_id and identity of all pictures of the folder; the people held out are among these
    images:str|Path, # folder with the aligned pictures
    out:str|Path, # the folder to write, as `prepare` does
    window:tuple=(0, 0), # top left corner in pixels of the part of the 178x218 picture that is at hand
    unseen:float=0.1, # share of the people held out entirely
    seed:int=21, # of the draw
) -> pd.DataFrame: # the rows of selected_images.csv: pictures whose original points are known
    "Aligned pictures as training faces for landmarks; raises `InputError` when none has points"
    found, out = find_images(images), Path(out)
    split = add_splits(identity, unseen=unseen, seed=seed)[["image_id", "split", "people"]]
    rows = table.merge(split[split.image_id.isin(found)], on="image_id")
    if not len(rows):
        raise InputError(f"{images} holds no picture whose boxes and points are among the annotations: "
                         "check both folders")
    rows = moved_rows(rows, window)
    (out/"images").mkdir(parents=True, exist_ok=True)
    for i in rows.image_id: shutil.copyfile(found[i], inside(out/"images", i))
    write_csv(out/"selected_images.csv", rows)
    return rows
