"Every layout people have, and every way in which a CelebA folder is broken"
import gzip
import shutil
import subprocess
import sys

import numpy as np
import pytest

from facerec_nb import celeba
from facerec_nb.celeba import ALIGNED_SIZE, ATTRIBUTES, BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.files import InputError, find_images, write_image
from facerec_nb.synthetic import tiny_celeba

COLUMNS = dict(list_attr_celeba=ATTRIBUTES, list_bbox_celeba=BOX_COLUMNS, list_landmarks_celeba=POINT_COLUMNS, identity_CelebA=["identity"])


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    "A good folder of three people, four photographs each"
    return tiny_celeba(tmp_path_factory.mktemp("source")/"celeba", ids=3, per_id=4)


@pytest.fixture
def folder(source, tmp_path): return shutil.copytree(source, tmp_path/"celeba")


def write(table, columns, path, no=-1, header=True):
    "One annotation file in the form its suffixes ask for"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = table[["image_id", *columns]].copy()
    if "Male" in columns: rows[ATTRIBUTES] = np.where(rows[ATTRIBUTES], 1, no)
    txt = ".txt" in path.suffixes
    text = rows.to_csv(sep=" " if txt else ",", header=not txt, index=False)
    if txt and header: text = f"{len(rows)}\n{' '.join(columns)}\n" + text
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def edit(folder, name, change):
    "Change the lines of one file of the good folder"
    path = next(folder.rglob(f"{name}.*"))
    path.write_text("\n".join(change(path.read_text().splitlines())))
    return path


def kinds(celeba): return celeba.problems.groupby("kind").image_id.apply(list).to_dict()


# ---------------------------------------------------------------- layouts
def test_good(folder):
    data = load_celeba(folder, check="decode")
    assert len(data) == 12 and data.table.identity.nunique() == 3 and not len(data.problems) and not data.aligned
    assert data.table.dtypes[ATTRIBUTES].eq(bool).all() and data.path(data.table.image_id[0]).is_file()
    assert data.table.image_id.is_monotonic_increasing and str(folder) not in repr(data) + data._repr_html_()


def test_layouts_agree(folder, tmp_path):
    good = load_celeba(folder); t = good.table
    official, archive, packed = tmp_path/"official", tmp_path/"archive", tmp_path/"packed"
    for name, columns in COLUMNS.items():
        write(t, columns, official/f"Anno/{name}.txt", header=columns != ["identity"])
        write(t, columns, archive/f"{name}.{'csv' if columns in (ATTRIBUTES, BOX_COLUMNS) else 'txt'}", header=columns != ["identity"], no=0)
        write(t, columns, packed/f"{name}.csv.gz")
    for i, (image_id, path) in enumerate(find_images(folder).items()):
        for target in (official/"Img/img_celeba", archive/f"img_celeba/part{i % 2}/part{i % 2}"):
            target.mkdir(parents=True, exist_ok=True); shutil.copy(path, target/image_id)
    for root in (official, archive): assert load_celeba(root).fingerprint == good.fingerprint
    assert load_celeba(packed, images=False).fingerprint == good.fingerprint
    assert set(kinds(load_celeba(archive))) == {"zero_one"}


def aligned_folder(good, root, name="img_align_celeba", points="list_landmarks_align_celeba.txt"):
    t = good.table.copy(); rng = np.random.default_rng(0)
    t[POINT_COLUMNS] = np.array([69, 111, 108, 111, 88, 135, 72, 152, 105, 152]) + rng.integers(-2, 3, (len(t), 10))
    for role, columns in COLUMNS.items(): write(t, columns, root/(points if columns is POINT_COLUMNS else f"{role}.txt"))
    for i in t.image_id: write_image(root/name/i, np.full((ALIGNED_SIZE[1], ALIGNED_SIZE[0], 3), 90, np.uint8))
    return root


def test_torchvision_aligned(folder, tmp_path):
    data = load_celeba(aligned_folder(load_celeba(folder), tmp_path/"tv"))
    assert data.aligned and data.table[BOX_COLUMNS].drop_duplicates().values.tolist() == [[0, 0, *ALIGNED_SIZE]]
    assert set(kinds(data)) == {"aligned_images"}
    data = load_celeba(aligned_folder(load_celeba(folder), tmp_path/"named", name="pictures")) # known by their size
    assert data.aligned


def test_wild_and_aligned_are_not_mixed(folder, tmp_path):
    good = load_celeba(folder)
    shutil.move(folder/"list_landmarks_celeba.csv", folder/"list_landmarks_align_celeba.csv")
    with pytest.raises(InputError, match="points of the aligned 178x218 images, but the photographs"): load_celeba(folder)
    with pytest.raises(InputError, match="points of the original .* but the photographs"): load_celeba(aligned_folder(good, tmp_path/"a", points="list_landmarks_celeba.txt"))
    renamed = aligned_folder(good, tmp_path/"b"); shutil.rmtree(renamed/"img_align_celeba"); shutil.copytree(folder/"img_celeba", renamed/"img_celeba")
    (renamed/"list_landmarks_align_celeba.txt").rename(renamed/"list_landmarks_celeba.txt")
    with pytest.raises(InputError, match="whatever its name says"): load_celeba(renamed)


def test_both_kinds_prefers_the_originals(folder, tmp_path):
    good = load_celeba(folder); aligned_folder(good, tmp_path/"both")
    both = shutil.copytree(tmp_path/"both/img_align_celeba", folder/"img_align_celeba").parent
    shutil.copy(tmp_path/"both/list_landmarks_align_celeba.txt", both)
    assert load_celeba(both).fingerprint == good.fingerprint


def test_subset_and_other_suffix(folder):
    photos = sorted((folder/"img_celeba").iterdir())
    photos[0].unlink(); photos[1].rename(photos[1].with_suffix(".png"))
    data = load_celeba(folder)
    assert kinds(data) == dict(missing_photo=[photos[0].name], other_suffix=[photos[1].name]) and len(data) == 11


def test_links(folder, tmp_path):
    good = load_celeba(folder)
    shutil.move(folder/"img_celeba", tmp_path/"disk"); (folder/"img_celeba").symlink_to(tmp_path/"disk"); (tmp_path/"disk/loop").symlink_to(folder)
    data = load_celeba(folder)
    assert data.fingerprint == good.fingerprint and data.path(data.table.image_id[0]).is_file() and not len(data.problems)


def test_partition_is_optional(folder):
    t = load_celeba(folder).table.assign(partition=1)
    write(t.iloc[1:], ["partition"], folder/"list_eval_partition.csv")
    assert load_celeba(folder).table.partition.tolist() == [-1] + [1]*11


# ---------------------------------------------------------------- found, counted, repaired
def box(text): return lambda lines: [lines[0], f"{lines[1].split(',')[0]},{text}", *lines[2:]]


@pytest.mark.parametrize("name, change, kind, left", [
    ("list_bbox_celeba", box("-4,2,90,90"), "box_over_edge", 12),
    ("list_bbox_celeba", box("5000,2,90,90"), "box_outside", 11),
    ("list_bbox_celeba", box("5,5,0,0"), "box_outside", 11),
    ("list_bbox_celeba", box("5,5,x,40"), "bad_value", 11),
    ("list_bbox_celeba", box("5,5,,40"), "bad_value", 11),
    ("list_bbox_celeba", box("5,5,inf,40"), "bad_value", 11),
    ("list_bbox_celeba", box("5,5"), "truncated_line", 11),
    ("list_bbox_celeba", lambda l: [*l, l[1]], "duplicate_row", 12),
    ("list_bbox_celeba", lambda l: [*l, l[1].split(",")[0] + ",1,1,50,50"], "conflicting_rows", 11),
    ("list_bbox_celeba", lambda l: l[:-1], "missing_row", 11),
    ("identity_CelebA", lambda l: [*l, "999999.jpg,1"], "missing_row", 12),
    ("identity_CelebA", lambda l: [l[0], l[1].split(",")[0] + ",Ada", *l[2:]], "bad_value", 11),
    ("list_attr_celeba", lambda l: [l[0], l[1].rsplit(",", 1)[0] + ",7", *l[2:]], "bad_value", 11),
    ("list_attr_celeba", lambda l: [l[0], *(x.replace("-1", "0") for x in l[1:])], "zero_one", 12),
    ("list_landmarks_celeba", lambda l: [l[0], l[1].split(",")[0] + ",9999"*10, *l[2:]], "point_outside_photo", 11),
    ("list_landmarks_celeba", lambda l: [l[0], l[1].split(",")[0] + ",1"*10, *l[2:]], "point_outside_box", 12),
])
def test_repairs(folder, name, change, kind, left):
    good = load_celeba(folder)
    edit(folder, name, change)
    data = load_celeba(folder)
    assert kind in kinds(data), data.problems
    assert len(data) == left
    rows = data.table[data.table.image_id != good.table.image_id[0]]
    assert rows.isin(good.table[good.table.image_id.isin(rows.image_id)].to_dict("list")).all(axis=None) # the others are untouched
    row = data.problems[data.problems.kind == kind].iloc[0]
    assert row.detail and row.action and kind in set(data.summary().kind)


def test_blank_lines_bom_and_crlf(folder):
    good = load_celeba(folder)
    path = next(folder.glob("list_attr_celeba.*"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert load_celeba(folder).fingerprint == good.fingerprint


def test_promised_rows(folder):
    t = load_celeba(folder).table
    (folder/"list_bbox_celeba.csv").unlink(); write(t, BOX_COLUMNS, folder/"list_bbox_celeba.txt")
    edit(folder, "list_bbox_celeba", lambda l: ["202599", *l[1:]])
    data = load_celeba(folder)
    assert list(kinds(data)) == ["row_count"] and len(data) == 12


def test_damaged_photos(folder):
    photos = sorted((folder/"img_celeba").iterdir())
    photos[0].write_bytes(b""); photos[1].write_text("<html>"); photos[2].write_bytes(photos[2].read_bytes()[:2000]); shutil.copy(photos[3], folder/"img_celeba/stranger.jpg")
    (folder/"img_celeba/.hidden.jpg").write_text("x")
    found = kinds(load_celeba(folder))
    assert found["unreadable_photo"] == [p.name for p in photos[:2]] and found["photo_without_row"] == ["stranger.jpg"]
    assert kinds(load_celeba(folder, check="decode"))["unreadable_photo"] == [p.name for p in photos[:3]]
    assert "unreadable_photo" not in kinds(load_celeba(folder, check="none"))


def test_second_file(folder):
    shutil.copy(folder/"list_bbox_celeba.csv", folder/"img_celeba/list_bbox_celeba (1).csv")
    assert list(kinds(load_celeba(folder))) == ["second_file"]
    edit(folder/"img_celeba", "list_bbox_celeba (1)", box("1,1,50,50"))
    with pytest.raises(InputError, match="disagree"): load_celeba(folder)


# ---------------------------------------------------------------- refused
def test_refusals(folder, tmp_path):
    def refuses(match, **kw):
        with pytest.raises(InputError, match=match) as e: load_celeba(folder, **kw)
        assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="is not a folder"): load_celeba(tmp_path/"nowhere")
    refuses("check='all' is unknown", check="all")
    attr = folder/"list_attr_celeba.csv"; good = attr.read_bytes()
    attr.write_text(good.decode().replace("-1", "0", 3)); refuses("writes 'no' as -1 in .* and as 0 in")
    attr.write_text("<!DOCTYPE html>\n<html>\n<body>Quota exceeded\n</html>"); refuses("does not look like a CelebA file")
    attr.write_text(""); refuses("is empty")
    attr.write_text(good.decode().replace("Young", "Old")); refuses("has no column 'Young'")
    attr.unlink(); refuses("has no file with the attributes")
    packed = folder/"list_attr_celeba.csv.gz"; packed.write_bytes(gzip.compress(good)[:-20]); refuses("cannot be read")
    packed.write_bytes(good); refuses("cannot be read")
    packed.write_bytes(gzip.compress(good)); assert len(load_celeba(folder)) == 12
    (folder/"again").mkdir(); shutil.copy(next((folder/"img_celeba").iterdir()), folder/"again"); refuses("occurs twice")
    shutil.rmtree(folder/"again"); shutil.rmtree(folder/"img_celeba"); refuses("holds no photographs")
    assert len(load_celeba(folder, images=False)) == 12


def test_resized_photos_are_refused(folder):
    for p in (folder/"img_celeba").iterdir(): write_image(p, np.zeros((40, 30, 3), np.uint8))
    with pytest.raises(InputError, match="resized or other photographs"): load_celeba(folder)


def test_foreign_names_stay_inside(folder):
    edit(folder, "identity_CelebA", lambda l: [*l, "../../etc/passwd,1"])
    data = load_celeba(folder)
    assert "../../etc/passwd" not in set(data.table.image_id) and all(not p.startswith("..") for p in data.table.path)


def test_need(folder):
    for name in ("list_bbox_celeba.csv", "list_landmarks_celeba.csv"): (folder/name).unlink()
    data = load_celeba(folder, images=False, need=("attributes", "identity"))
    assert len(data) == 12 and not set(BOX_COLUMNS + POINT_COLUMNS) & set(data.table)


def test_light_import():
    code = "import sys, facerec_nb.celeba; print([m for m in ('torch', 'matplotlib', 'sklearn', 'cv2', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# ---------------------------------------------------------------- quick and patient reader
def clean(df): return df.astype({c: "int64" for c in df if c != "image_id"}).to_dict("list")


@pytest.mark.parametrize("fmt", ["csv", "txt"])
def test_quick_reader_agrees_with_the_patient_one(folder, fmt):
    "Whatever is done to a file, the quick reader either stays silent or says what the patient one says"
    t = load_celeba(folder).table
    raw = {}
    for name, columns in COLUMNS.items():
        write(t, columns, folder/f"other/{name}.{fmt}", header=columns != ["identity"])
        raw[name] = (folder/f"other/{name}.{fmt}").read_bytes()
    rng, spoke, silent = np.random.default_rng(0), 0, 0
    for name, good in raw.items():
        path = folder/f"other/{name}.{fmt}"
        assert clean(celeba._quick(path, good, {})[0]) == clean(celeba._any_lines(path, good, celeba._Problems())[0])
        for _ in range(150):
            at, k = rng.integers(len(good)), rng.integers(0, 3)
            bad = good[:at] + bytes(rng.choice(list(b"0123456789-- ,,\n\n.\"+xNaE\t\xe9"), k)) + good[at + rng.integers(0, 3):]
            try: quick = celeba._quick(path, bad, {})
            except InputError: continue
            silent += quick is None; spoke += quick is not None
            if quick is not None:
                found = celeba._Problems(); patient = celeba._any_lines(path, bad, found)
                assert not found and quick[1:] == patient[1:] and clean(quick[0]) == clean(patient[0]), bad
    assert spoke > 100 and silent > 100


def test_unusual_files_take_the_patient_way_and_say_the_same(folder, monkeypatch):
    good = load_celeba(folder)
    monkeypatch.setattr(celeba, "_regular", lambda *args: None)
    again = load_celeba(folder)
    assert again.table.equals(good.table) and (again.table.dtypes == good.table.dtypes).all() and again.fingerprint == good.fingerprint and again.problems.equals(good.problems)
