"The weights that come with the package: small, described, and of use without any training"

from pathlib import Path

import numpy as np
import pytest

import facerec_nb
from facerec_nb.faces.landmarks import LandmarkModel, landmark_errors
from facerec_nb.faces.aligned import align, read_aligned
from facerec_nb.core.installed import packaged
from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.datasets.celeba_files import BOX_COLUMNS, load_celeba
from facerec_nb.faces.crops import read_crops
from facerec_nb.core.files import InputError, read_json
from facerec_nb.core.geometry import xywh_to_xyxy
from facerec_nb.pipeline.gallery import Gallery
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import prepare, read_selected
from facerec_nb.datasets.synthetic import sample_faces, synthesise

FOLDER = Path(facerec_nb.__file__).parent / "weights"
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.pth")), ids=lambda p: p.stem)
def test_a_checkpoint_is_small_and_says_what_it_is(path):
    ck = load_checkpoint(packaged(path.stem))
    assert path.stat().st_size < 14e6 and "non-commercial research" in ck["licence"] and ck["config"] and ck["metrics"]
    card = (FOLDER / f"{path.stem.partition('_')[0]}.md").read_text()
    assert f"`{path.stem.partition('_')[2]}`" in card and "## Limits" in card and "## Licence" in card


@pytest.mark.parametrize("name", ["big", "small"])
def test_the_card_says_what_was_measured(name):
    r, card = read_json(ROOT / f"results/landmarks/{name}.json"), (FOLDER / "landmarks.md").read_text()
    for key, digits in (("nme_unseen", 4), ("failure_rate_10", 3), ("nme_shaken", 4)):
        assert f"{r['metrics'][key]['value']:.{digits}f}" in card
    kept, shipped = load_checkpoint(packaged(f"landmarks_{name}"))["metrics"], r["curves"]["nme_seeds"][0]
    assert (
        kept["nme_unseen"] == r["metrics"]["nme_unseen"]["value"]
        and kept["nme_shipped"] == shipped
        and f"{shipped:.4f}" in card
    )


def test_faces_are_aligned_without_training(tmp_path):
    data = tmp_path / "data"
    prepare(
        load_celeba(synthesise(tmp_path / "raw", ids=4, per_id=4, seed=1)),
        Usable(min_box=0, drop_blurry=False),
        data,
        split=(1, 0, 0),
        unseen=0,
    )
    rows, model = read_selected(data), LandmarkModel.load("big")
    crops = read_crops(
        [data / "images" / i for i in rows.image_id], xywh_to_xyxy(rows[BOX_COLUMNS]), model.crop, model.rim
    )[0]
    errors = landmark_errors(model, rows, crops)
    assert errors.nme.median() < 0.12  # drawn faces are not what it was trained on
    table = align(data, "big", tmp_path / "out")
    assert np.allclose(table.nme, errors.nme, atol=1e-3) and read_aligned(tmp_path / "out")[1].shape == (
        16,
        112,
        112,
        3,
    )


def test_photographs_are_named_without_any_run():
    s, pipe = sample_faces(3, 2), FacePipeline.load(threads=1)
    assert -1 < pipe.threshold < 1 and pipe.probability["prior"] == 0.5
    faces = [pipe(p)[:1] for p in s["images"]]
    assert sum(map(len, faces)) >= 5  # drawn faces are not what the detector knows
    g = Gallery(model=pipe.model)
    quick = FacePipeline.load(threads=1, fast=True)
    assert quick.model != pipe.model and quick.model.endswith("-fast") and quick(s["images"][0])
    with pytest.raises(InputError, match="-fast"):
        g.check_model(quick.model)


def test_unknown_weights_are_named():
    with pytest.raises(InputError, match="no weights 'landmarks_enormous': choose from .*landmarks_big"):
        packaged("landmarks_enormous")
