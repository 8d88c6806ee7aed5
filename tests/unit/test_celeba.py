"Every layout people have, and every way in which a CelebA folder is broken"
import gzip
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from facerec_nb.datasets.annotation_table import Findings, clean_rows, read_annotation_table
from facerec_nb.datasets.celeba_files import ALIGNED_SIZE, ATTRIBUTES, BOX_COLUMNS, POINT_COLUMNS, load_celeba
from facerec_nb.datasets.photos import find_images
from facerec_nb.core.files import InputError, write_image
from facerec_nb.datasets.synthetic import tiny_celeba

COLUMNS = dict(list_attr_celeba=ATTRIBUTES, list_bbox_celeba=BOX_COLUMNS, list_landmarks_celeba=POINT_COLUMNS,
               identity_CelebA=["identity"])


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
    good = load_celeba(folder)
    t = good.table
    official, archive, packed = tmp_path/"official", tmp_path/"archive", tmp_path/"packed"
    for name, columns in COLUMNS.items():
        write(t, columns, official/f"Anno/{name}.txt", header=columns != ["identity"])
        write(t, columns, archive/f"{name}.{'csv' if columns in (ATTRIBUTES, BOX_COLUMNS) else 'txt'}",
              header=columns != ["identity"], no=0)
        write(t, columns, packed/f"{name}.csv.gz")
    for i, (image_id, path) in enumerate(find_images(folder).items()):
        for target in (official/"Img/img_celeba", archive/f"img_celeba/part{i % 2}/part{i % 2}"):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target/image_id)
    for root in (official, archive): assert load_celeba(root).fingerprint == good.fingerprint
    assert load_celeba(packed, images=False).fingerprint == good.fingerprint
    assert set(kinds(load_celeba(archive))) == {"zero_one"}


def aligned_folder(good, root, name="img_align_celeba", points="list_landmarks_align_celeba.txt"):
    t = good.table.copy()
    rng = np.random.default_rng(0)
    t[POINT_COLUMNS] = np.array([69, 111, 108, 111, 88, 135, 72, 152, 105, 152]) + rng.integers(-2, 3, (len(t), 10))
    for role, columns in COLUMNS.items():
        write(t, columns, root/(points if columns is POINT_COLUMNS else f"{role}.txt"))
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
    with pytest.raises(InputError, match="points of the aligned 178x218 images, but the photographs"):
        load_celeba(folder)
    with pytest.raises(InputError, match="points of the original .* but the photographs"):
        load_celeba(aligned_folder(good, tmp_path/"a", points="list_landmarks_celeba.txt"))
    renamed = aligned_folder(good, tmp_path/"b")
    shutil.rmtree(renamed/"img_align_celeba")
    shutil.copytree(folder/"img_celeba", renamed/"img_celeba")
    (renamed/"list_landmarks_align_celeba.txt").rename(renamed/"list_landmarks_celeba.txt")
    with pytest.raises(InputError, match="whatever its name says"): load_celeba(renamed)


def test_both_kinds_prefers_the_originals(folder, tmp_path):
    good = load_celeba(folder)
    aligned_folder(good, tmp_path/"both")
    both = shutil.copytree(tmp_path/"both/img_align_celeba", folder/"img_align_celeba").parent
    shutil.copy(tmp_path/"both/list_landmarks_align_celeba.txt", both)
    assert load_celeba(both).fingerprint == good.fingerprint


def test_subset_and_other_suffix(folder):
    photos = sorted((folder/"img_celeba").iterdir())
    photos[0].unlink()
    photos[1].rename(photos[1].with_suffix(".png"))
    data = load_celeba(folder)
    assert kinds(data) == dict(missing_photo=[photos[0].name], other_suffix=[photos[1].name]) and len(data) == 11


def test_links(folder, tmp_path):
    good = load_celeba(folder)
    shutil.move(folder/"img_celeba", tmp_path/"disk")
    (folder/"img_celeba").symlink_to(tmp_path/"disk")
    (tmp_path/"disk/loop").symlink_to(folder)
    data = load_celeba(folder)
    assert (data.fingerprint == good.fingerprint and data.path(data.table.image_id[0]).is_file()
            and not len(data.problems))


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
    # the others are untouched
    assert rows.isin(good.table[good.table.image_id.isin(rows.image_id)].to_dict("list")).all(axis=None)
    row = data.problems[data.problems.kind == kind].iloc[0]
    assert row.detail and row.action and kind in set(data.summary().kind)


def test_blank_lines_bom_and_crlf(folder):
    good = load_celeba(folder)
    path = next(folder.glob("list_attr_celeba.*"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert load_celeba(folder).fingerprint == good.fingerprint


def test_promised_rows(folder):
    t = load_celeba(folder).table
    (folder/"list_bbox_celeba.csv").unlink()
    write(t, BOX_COLUMNS, folder/"list_bbox_celeba.txt")
    edit(folder, "list_bbox_celeba", lambda l: ["202599", *l[1:]])
    data = load_celeba(folder)
    assert list(kinds(data)) == ["row_count"] and len(data) == 12


def test_damaged_photos(folder):
    photos = sorted((folder/"img_celeba").iterdir())
    photos[0].write_bytes(b"")
    photos[1].write_text("<html>")
    photos[2].write_bytes(photos[2].read_bytes()[:2000])
    shutil.copy(photos[3], folder/"img_celeba/stranger.jpg")
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
    attr = folder/"list_attr_celeba.csv"
    good = attr.read_bytes()
    attr.write_text(good.decode().replace("-1", "0", 3))
    refuses("writes 'no' as -1 in .* and as 0 in")
    attr.write_text("<!DOCTYPE html>\n<html>\n<body>Quota exceeded\n</html>")
    refuses("does not look like a CelebA file")
    attr.write_text("")
    refuses("is empty")
    attr.write_text(good.decode().replace("Young", "Old"))
    refuses("has no column 'Young'")
    attr.unlink()
    refuses("has no file with the attributes")
    packed = folder/"list_attr_celeba.csv.gz"
    packed.write_bytes(gzip.compress(good)[:-20])
    refuses("cannot be read")
    packed.write_bytes(good)
    refuses("cannot be read")
    packed.write_bytes(gzip.compress(good))
    assert len(load_celeba(folder)) == 12
    (folder/"again").mkdir()
    shutil.copy(next((folder/"img_celeba").iterdir()), folder/"again")
    refuses("occurs twice")
    shutil.rmtree(folder/"again")
    shutil.rmtree(folder/"img_celeba")
    refuses("holds no photographs")
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
    heavy = "('torch', 'matplotlib', 'sklearn', 'cv2', 'pandas')"
    code = f"import sys, facerec_nb.datasets.celeba_files; print([m for m in {heavy} if m in sys.modules])"
    assert (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                           check=True).stdout.strip() == "[]")


# ---------------------------------------------------------------- one file, every form
def plain_reader(text, names, sep):
    "What a loop over the lines of a file with a header says: ids and numbers, or None where a line is not regular"
    rows = {}
    for line in text.split("\n")[1:]:
        if not line.strip(): continue
        cells = [c.strip() for c in line.split(sep)]
        try: rows[cells[0]] = [int(c) for c in cells[1:]]
        except ValueError: return None
        if len(cells) != len(names) or not cells[0].endswith(".jpg") or "/" in cells[0] or '"' in line: return None
    return rows


@pytest.mark.parametrize("role", ["list_attr_celeba", "list_bbox_celeba", "list_landmarks_celeba", "identity_CelebA"])
def test_reader_agrees_with_a_loop(folder, role):
    "Whatever is done to a file, the reader writes down what was wrong, refuses the file, or says what a loop says"
    columns, path = COLUMNS[role], folder/f"{role}.csv"
    good, rng, same = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(100):
        at, k = rng.integers(len(good)), rng.integers(0, 3)
        bad = good[:at] + bytes(rng.choice(list(b"0123456789-- ,,\n\n.\"+xNaE\t"), k)) + good[at + rng.integers(0, 3):]
        path.write_bytes(bad)
        found, want = Findings(), plain_reader(bad.decode(), ["image_id", *columns], ",")
        try: df = clean_rows(read_annotation_table(path, [columns], found), columns, path.name, found)
        except InputError: continue
        except KeyError: continue # the header was hit: the folder's reader names the column that lacks
        if found or want is None: continue
        same += 1
        assert dict(zip(df.image_id, df[columns].to_numpy().tolist())) == want, bad
    assert same > 5


# ---------------------------------------------------------------- forms that spreadsheets and scripts make of it
def tables(folder): return {name: next(folder.glob(f"{name}.*")) for name in COLUMNS}


def rewritten(folder, change, **how):
    "Every table of the folder, written again by pandas"
    for path in tables(folder).values():
        table = pd.read_csv(path)
        change(table).to_csv(path, **{"index": False, **how})
    return folder


def with_ids(f): return lambda table: table.assign(image_id=[f(i) for i in table.image_id])


FORMS = dict(windows_folder=dict(change=with_ids(lambda i: f"img_celeba\\{i}")),
             unix_folder=dict(change=with_ids(lambda i: f"./img/{i}")),
             numbers=dict(change=with_ids(lambda i: int(i[:-4]))), no_suffix=dict(change=with_ids(lambda i: i[:-4])),
             pandas_index=dict(change=lambda t: t, index=True), semicolons=dict(change=lambda t: t, sep=";"),
             tabs=dict(change=lambda t: t, sep="\t"),
             lower_case_head=dict(change=lambda t: t.rename(columns=str.lower)),
             upper_case_head=dict(change=lambda t: t.rename(columns=str.upper)),
             other_name_of_ids=dict(change=lambda t: t.rename(columns=dict(image_id="file"))))


@pytest.mark.parametrize("form", FORMS)
def test_forms(folder, form):
    good = load_celeba(folder)
    data = load_celeba(rewritten(folder, **FORMS[form]))
    assert data.fingerprint == good.fingerprint and data.table.path.equals(good.table.path)
    assert (set(kinds(data)) == {"id_with_folder"} if "folder" in form else {"id_without_suffix"}
            if form in ("numbers", "no_suffix") else not len(data.problems))


@pytest.mark.parametrize("ids", ["000001.jpg", "000001", "1"])
def test_no_header_loses_no_row(folder, ids):
    good, path = load_celeba(folder), tables(folder)["identity_CelebA"]
    rows = pd.read_csv(path)
    path.unlink()
    short = {"000001.jpg": lambda i: i, "000001": lambda i: i[:-4], "1": lambda i: int(i[:-4])}[ids]
    lines = [f"{short(i)} {n}\n" for i, n in zip(rows.image_id, rows.identity)]
    (folder/"identity_CelebA.txt").write_text("".join(lines))
    data = load_celeba(folder)
    found = set() if ids.endswith("jpg") else {"id_without_suffix"}
    assert data.fingerprint == good.fingerprint and set(kinds(data)) == found


def test_packed_photographs_are_named(folder):
    shutil.make_archive(folder/"img_celeba", "zip", folder/"img_celeba")
    shutil.rmtree(folder/"img_celeba")
    with pytest.raises(InputError, match="holds no photographs, but img_celeba.zip: unpack it"): load_celeba(folder)
    (folder/"list_attr_celeba.csv").rename(folder/"list_attr_celeba.csv.zip")
    with pytest.raises(InputError, match="has no file with the attributes .*: unpack list_attr_celeba.csv.zip"):
        load_celeba(folder, images=False)


@pytest.mark.parametrize("text", ["These are notes.\nNot a table.\n",
                                  "<!DOCTYPE html>\n<html><head>\n<title>Quota</title>\n",
                                  "Attributes: 40 of them.\n\nEach is -1 or 1.\n"])
def test_notes_are_no_table(folder, text):
    good = load_celeba(folder)
    (folder/"attributes_readme.txt").write_text(text)
    data = load_celeba(folder)
    assert data.fingerprint == good.fingerprint and list(kinds(data)) == ["not_a_table"]
    (folder/"list_attr_celeba.csv").unlink()
    with pytest.raises(InputError, match="attributes_readme.txt (does not look like a CelebA file|has no column)"):
        load_celeba(folder)
