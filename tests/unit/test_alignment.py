"Alignment with bad input: a damaged photograph is skipped and listed, a wrong name or file stops with one sentence"
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from facerec_nb.faces.alignment import train_landmarks
from facerec_nb.datasets.celeba_files import POINT_COLUMNS, load_celeba
from facerec_nb.models.checkpoint import save_checkpoint
from facerec_nb.faces import aligned
from facerec_nb.faces.aligned import align, read_aligned
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.core.files import InputError, read_image, write_image
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import prepare, read_selected
from facerec_nb.datasets.synthetic import tiny_celeba

torch.set_num_threads(1)
SMALL = dict(epochs=4, stacks=1, channels=8, depth=2, input_size=64, batch_size=4)


def drawn(folder, out, split=(1, 0, 0), unseen=0, **people):
    "A prepared folder of drawn people"
    celeba = load_celeba(tiny_celeba(folder, **people))
    prepare(celeba, Usable(min_box=0, drop_blurry=False), out, split=split, unseen=unseen)


def files(folder):
    "Every file below a folder with its bytes"
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A prepared folder with one photograph damaged afterwards, and a run trained on it"
    here = tmp_path_factory.mktemp("alignment")
    drawn(here/"raw", here/"data", split=(3, 1, 0), unseen=0.3, ids=3, per_id=4, seed=1)
    rows = read_selected(here/"data")
    hurt = rows[(rows.people == "seen") & (rows.split == "train")].image_id.iloc[0]
    (here/"data"/"images"/hurt).write_bytes(b"\xff\xd8 not a photograph")
    return here, rows, hurt, train_landmarks(here/"data", here/"run", **SMALL)


def test_training_lists_the_damaged_photograph(trained):
    _, rows, hurt, result = trained
    assert [s["image_id"] for s in result["skipped"]] == [hurt]
    assert "not a readable image" in result["skipped"][0]["reason"]
    assert result["n_train"] == ((rows.people == "seen") & (rows.split == "train")).sum() - 1
    assert result["unseen"]["n_people"] == 1


def test_profiles_of_a_training_leave_out_what_cannot_be_turned(trained, tmp_path):
    here, rows, hurt, result = trained
    shutil.copytree(here/"data", tmp_path/"data")
    table = pd.read_csv(tmp_path/"data"/"selected_images.csv")
    mine = table[(table.people == "seen") & (table.split == "train") & (table.image_id != hurt)].index[0]
    table.loc[mine, POINT_COLUMNS] = 40
    table.to_csv(tmp_path/"data"/"selected_images.csv", index=False)
    got = train_landmarks(tmp_path/"data", tmp_path/"run", start=here/"run", aside=True, turned=2, **SMALL)
    why = {s["image_id"]: s["reason"] for s in got["skipped"]}
    assert list(why) == [hurt, table.image_id[mine]] and "one place" in why[table.image_id[mine]]
    assert got["n_train"] == result["n_train"] and got["config"]["start"] == "run"  # no path of this machine
    with pytest.raises(InputError, match="ask for the same"):
        train_landmarks(here/"data", tmp_path/"no", start="small", **SMALL)


def test_align_lists_the_damaged_photograph(trained):
    here, rows, hurt, _ = trained
    table = align(here/"data", here/"run", here/"out", batch_size=5)
    skipped = pd.read_csv(here/"out"/"skipped.csv")
    assert list(skipped.image_id) == [hurt] and len(table) == len(rows) - 1 and hurt not in set(table.image_id)
    again, faces = read_aligned(here/"out")
    assert faces.shape == (len(rows) - 1, 112, 112, 3) and faces.dtype == np.uint8 and again.equals(table)
    names = ["aligned.json", "aligned_pred_all.csv", "faces_aligned", "skipped.csv"]
    assert sorted(p.name for p in (here/"out").iterdir()) == names


def test_a_face_of_one_flat_colour_is_skipped_and_listed(trained, monkeypatch):
    "Points that were not found lead to nothing but border; a face that is nearly flat is kept"
    here, rows, hurt, _ = trained
    flat, nearly = rows.image_id[rows.image_id != hurt].iloc[[0, 1]]
    photos, whole = {i: read_image(here/"data"/"images"/i) for i in (flat, nearly)}, aligned.warp
    def lost(photo, M, size):
        face = whole(photo, M, size)
        if size == 112 and np.array_equal(photo, photos[flat]): face = np.full_like(face, 200)
        if size == 112 and np.array_equal(photo, photos[nearly]): face = np.full_like(face, 200); face[50, 60] = 190
        return face
    monkeypatch.setattr(aligned, "warp", lost)
    table = align(here/"data", here/"run", here/"flat", batch_size=5)
    skipped = pd.read_csv(here/"flat"/"skipped.csv").set_index("image_id").reason
    assert set(skipped.index) == {hurt, flat}
    assert skipped[flat] == "the aligned face is one flat colour: its points were not found"
    assert len(table) == len(rows) - 2 and nearly in set(table.image_id)
    assert len(read_aligned(here/"flat")[1]) == len(table) == len(list((here/"flat"/"faces_aligned").iterdir()))


def test_killed_between_batches_ends_with_the_same_bytes(trained, monkeypatch):
    here = trained[0]
    align(here/"data", here/"run", here/"whole", batch_size=3)
    batch, calls = aligned.align_batch, []
    def dies(*args):
        calls.append(1)
        if len(calls) == 3: raise KeyboardInterrupt
        return batch(*args)
    monkeypatch.setattr(aligned, "align_batch", dies)
    with pytest.raises(KeyboardInterrupt): align(here/"data", here/"run", here/"killed", batch_size=3)
    align(here/"data", here/"run", here/"killed", batch_size=3)
    assert files(here/"whole") == files(here/"killed") and len(calls) == 5


def test_killed_inside_a_batch_repeats_that_batch_only(trained, monkeypatch):
    "Half a batch and half a picture are on the disk: the same bytes in the end, and no other face is made twice"
    here, rows, _, _ = trained
    align(here/"data", here/"run", here/"calm", batch_size=4)
    write, written, most = aligned.write_image, [], 5
    def dies(path, img):
        if len(written) >= most: raise KeyboardInterrupt
        written.append(path.name); return write(path, img)
    monkeypatch.setattr(aligned, "write_image", dies)
    with pytest.raises(KeyboardInterrupt): align(here/"data", here/"run", here/"stopped", batch_size=4)
    first, out = list(written), here/"stopped"
    whole = set(pd.read_csv(here/"calm"/"aligned_pred_all.csv").image_id) & set(rows.image_id[:4])
    assert len(first) == 5 and whole < set(first)
    assert not (out/"aligned.json").exists() and not (out/"aligned_pred_all.csv").exists()
    (out/"faces_aligned"/".000002-1-00.jpg").write_bytes(b"\xff\xd8 half")
    most = 1000; align(here/"data", here/"run", out, batch_size=4)
    assert not whole & set(written[5:])
    assert files(here/"calm") == files(out)


def test_a_missing_face_is_named(trained):
    here = trained[0]
    table = align(here/"data", here/"run", here/"gap")
    lost = here/"gap"/"faces_aligned"/table.image_id[0]
    lost.unlink()
    with pytest.raises(InputError, match=table.image_id[0]): read_aligned(here/"gap")
    write_image(lost, np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(InputError, match="another size"): read_aligned(here/"gap")


def test_wrong_files_and_settings_are_refused(trained, tmp_path):
    here = trained[0]
    data, run = here/"data", here/"run"
    with pytest.raises(InputError, match="no face could be aligned"):
        align(data, run, tmp_path/"none", min_confidence=2.)
    with pytest.raises(InputError, match="use one of arcface, course"):
        align(data, run, tmp_path/"no", template="cubist")
    with pytest.raises(InputError, match="does not exist"): LandmarkModel.load(tmp_path)
    save_checkpoint(tmp_path/"other.pth", "embedder", {}, {}, {})
    with pytest.raises(InputError, match="'embedder'"): LandmarkModel.load(tmp_path/"other.pth")
    with pytest.raises(InputError, match="no setting epoch"): train_landmarks(here/"data", tmp_path, epoch=3)


def test_further_faces_are_of_other_people(trained, tmp_path):
    "Further faces are trained on; a person or a photograph that is in both folders is named"
    here, rows, _, alone = trained
    more, images = tmp_path/"more", tmp_path/"more"/"images"
    drawn(tmp_path/"raw", more, ids=2, per_id=3, seed=7)
    table = pd.read_csv(more/"selected_images.csv")
    def save(**columns): table.assign(**columns).to_csv(more/"selected_images.csv", index=False)
    def again(): return train_landmarks(here/"data", tmp_path/"run", extra=more, **SMALL)
    others = dict(identity=table.identity + 1000, image_id=[f"more_{i}" for i in table.image_id])
    for old, new in zip(table.image_id, others["image_id"]): (images/old).rename(images/new)
    save(**others)
    both = again()
    assert (both["n_train"], both["n_extra"]) == (alone["n_train"], len(table))
    person, photo = rows.identity.iloc[0], rows.image_id.iloc[0]
    save(**others | dict(identity=person, class_id=0))
    with pytest.raises(InputError, match=f"person {person} is in .*of other people"): again()
    (images/others["image_id"][0]).rename(images/photo)
    save(**others | dict(image_id=[photo, *others["image_id"][1:]]))
    with pytest.raises(InputError, match=f"photograph {photo} is in .*of other people"): again()


def test_a_name_that_is_no_landmark_network_is_told_those_that_are():
    with pytest.raises(InputError, match="there is no landmark network 'medium': give big, small"):
        LandmarkModel.load("medium")
