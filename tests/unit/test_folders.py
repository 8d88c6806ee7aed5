"Folders as people have them: whose they are, what is in them, and what a second enrolment does."
import os
import pickle
import shutil
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from facerec_nb.core.files import FORMATS, IMAGE_SUFFIXES, InputError, read_image, write_image
from facerec_nb.datasets.photos import people_below, photos_below
from facerec_nb.pipeline.answers import Face, Faces
from facerec_nb.pipeline.enrolment import enroll_people
from facerec_nb.pipeline.gallery import Gallery

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="rights and links of POSIX")


def grey(value): return np.full((9, 9, 3), value, np.uint8)


class StandIn:
    "One face in every bright picture, whose embedding is its grey value; none in a black one"
    model = "m"

    def stream(self, paths):
        for p in paths:
            try: img = read_image(p)
            except InputError as e: yield Faces(source=p, problem=str(e))
            else: yield Faces([self.face(img)] if img.max() else [], p)

    def face(self, img):
        e = np.random.default_rng(int(img.max())).normal(size=16).astype(np.float32)
        return Face(np.arange(4), 1, np.zeros((5, 2)), 1, img, e/np.linalg.norm(e))


def touch(root, *names):
    for n in names:
        (root/n).parent.mkdir(parents=True, exist_ok=True)
        (root/n).touch()


def people(folder, **how):
    told = []
    return {n: len(p) for n, p in people_below(folder, trouble=told, **how).items()}, told


# whose folder is it?

@pytest.mark.parametrize("names,want", [
    (["Ann/1.jpg", "Bob/1.jpg"], {"Ann": 1, "Bob": 1}),
    (["Ann/1.jpg"], {"Ann": 1}),
    (["Ann/1.jpg", "Ann/holiday/2.jpg", "Bob/1.jpg"], {"Ann": 2, "Bob": 1}),
    (["root/Ann/1.jpg", "root/Bob/1.jpg"], {"Ann": 1, "Bob": 1}),
    (["lfw-a/lfw-a/Ann/1.jpg", "lfw-a/lfw-a/Bob/1.jpg"], {"Ann": 1, "Bob": 1}),
    (["root-main/Ann/1.jpg", "root-main/Bob/1.jpg"], {"Ann": 1, "Bob": 1}),
    (["images/Ann/1.jpg", "images/Bob/1.jpg"], {"Ann": 1, "Bob": 1}),
    (["train/Ann/1.jpg", "test/Ann/2.jpg", "test/Bob/1.jpg"], {"Ann": 2, "Bob": 1}),
    (["Train/Ann/1.jpg", "VAL/Ann/2.jpg"], {"Ann": 2}),
    (["train/Ann/1.jpg", "train/Bob/1.jpg"], {"Ann": 1, "Bob": 1}),
    (["data/train/Ann/1.jpg", "data/test/Bob/1.jpg"], {"Ann": 1, "Bob": 1}),
    (["root/photos/train/Ann/1.jpg"], {"Ann": 1}),
])
def test_layouts_that_are_recognised(tmp_path, names, want):
    touch(tmp_path/"root", *names)
    assert people(tmp_path/"root") == (want, [])


@pytest.mark.parametrize("names,asked", [
    (["family/Ann/1.jpg", "friends/Bob/1.jpg"], "family holds photographs only in folders such as Ann"),
    (["family/Ann/1.jpg", "family/Bob/1.jpg"], "family holds photographs only in folders such as Ann"),
    (["Ann/1.jpg", "family/Bob/1.jpg"], "family holds photographs only in folders such as Bob"),
    (["train/1.jpg", "test/1.jpg"], "called as a part of a data set and holds photographs"),
    (["train/1.jpg", "Ann/1.jpg"], "train is called as a part of a data set"),
    (["photos/1.jpg"], "photos is called as a part of a data set"),
    (["train/family/Ann/1.jpg", "test/family/Ann/2.jpg"], "family holds photographs only in folders such as Ann"),
])
def test_layouts_that_are_asked_for(tmp_path, names, asked):
    touch(tmp_path/"root", *names)
    with pytest.raises(InputError, match=asked) as e: people(tmp_path/"root")
    assert "level=" in str(e.value) and "\n" not in str(e.value)


def test_the_owner_says_the_level(tmp_path):
    touch(tmp_path, "family/Ann/1.jpg", "friends/Bob/1.jpg")
    assert people(tmp_path, level=1)[0] == {"family": 1, "friends": 1}
    assert people(tmp_path, level=2)[0] == {"Ann": 1, "Bob": 1}


@pytest.mark.parametrize("litter", [
    ".ipynb_checkpoints", ".Trash-1000", "@eaDir", "@eadir", "__MACOSX", "Thumbnails", ".hidden", "#recycle",
    "$RECYCLE.BIN", "lost+found"])
def test_litter_never_enrols(tmp_path, litter):
    touch(tmp_path, "Ann/1.jpg", f"{litter}/1.jpg", f"{litter}/Bob/1.jpg", f"Ann/{litter}/2.jpg", "Ann/._1.jpg")
    assert people(tmp_path) == ({"Ann": 1}, [])


@posix
def test_links_are_followed_and_loops_end(tmp_path):
    touch(tmp_path, "disk/Bob/1.jpg", "people/Ann/1.jpg")
    (tmp_path/"people/Bob").symlink_to(tmp_path/"disk/Bob", target_is_directory=True)
    (tmp_path/"people/Ann/loop").symlink_to(tmp_path/"people", target_is_directory=True)
    (tmp_path/"people/Ann/2.jpg").symlink_to(tmp_path/"disk/Bob/1.jpg")
    (tmp_path/"people/Ann/gone.jpg").symlink_to(tmp_path/"nowhere.jpg")
    assert people(tmp_path/"people")[0] == {"Ann": 3, "Bob": 1}


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes no such name")
def test_bad_encodings_tabs_and_loose_photographs_are_listed(tmp_path):
    touch(tmp_path, "good/1.jpg", "a\tb/1.jpg", "a\tb/2.jpg", "loose.jpg")
    os.makedirs(os.fsencode(tmp_path) + b"/J\xfcrgen")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/J\xfcrgen"))/"1.jpg").touch()
    got, told = people(tmp_path)
    assert got == {"good": 1} and len(told) == 3
    assert sum("cannot be a person's name" in t for t in told) == 2
    assert sum("no person's folder" in t for t in told) == 1


def test_an_unreadable_folder_is_listed_and_the_rest_goes_on(tmp_path, monkeypatch):
    touch(tmp_path, "Ann/1.jpg", "Bob/1.jpg")
    scan = os.scandir

    def closed(path):
        if str(path).endswith("Bob"): raise PermissionError(13, "Permission denied", str(path))
        return scan(path)
    monkeypatch.setattr(os, "scandir", closed)
    got, told = people(tmp_path)
    assert got == {"Ann": 1} and len(told) == 1 and "Bob cannot be read (Permission denied)" in told[0]
    with pytest.raises(InputError, match=r"Bob cannot be read \(Permission denied\).* there are no others"):
        photos_below(tmp_path / "Bob")
    with pytest.warns(UserWarning, match="Bob cannot be read"): photos_below(tmp_path)


def test_one_person_in_two_spellings(tmp_path):
    for form in ("NFC", "NFD"): touch(tmp_path, f"{unicodedata.normalize(form, 'José')}/{form}.jpg")
    assert people(tmp_path)[0] == {unicodedata.normalize("NFC", "José"): 2}


# one list of formats

def written(im, path, **how):
    try: im.save(path, **how)
    except (KeyError, OSError, ValueError): pytest.skip(f"this Pillow cannot write {path.suffix}")


@pytest.mark.parametrize("suffix,fmt", [
    ("jpg", None), ("JPEG", None), ("jfif", "JPEG"), ("jpe", "JPEG"), ("png", None), ("gif", None), ("bmp", None),
    ("webp", None), ("tif", None), ("tiff", None), ("ppm", None), ("jp2", None), ("j2k", None), ("avif", None),
    ("mpo", None)])
def test_what_is_read_alone_is_read_in_a_folder(tmp_path, suffix, fmt):
    im = Image.fromarray(np.full((24, 32, 3), 120, np.uint8))
    path = tmp_path/"Ann"/f"1.{suffix}"
    path.parent.mkdir()
    written(im, path, **({"format": fmt} if fmt else {}))
    assert np.abs(read_image(path).astype(int) - 120).max() < 4 and photos_below(tmp_path) == [path]


def test_every_suffix_has_a_format():
    Image.init()
    have = {s for s, f in Image.registered_extensions().items() if f in FORMATS}
    assert IMAGE_SUFFIXES - have <= {".heic", ".heif", ".hif", ".avif", ".avifs"}


def test_heic_without_its_package_names_it(tmp_path, monkeypatch):
    from facerec_nb.core import files
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for f in ("HEIF",): monkeypatch.delitem(Image.OPEN, f, raising=False)
    files.readable_formats.cache_clear()
    for name in ("phone.heic", "heic_named.jpg"):
        (tmp_path/name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0"*2000)
        with pytest.raises(InputError, match=r'is a HEIC photograph: pip install "facerec_nb\[heic\]"'):
            read_image(tmp_path/name)
    files.readable_formats.cache_clear()


def test_a_photograph_of_somebody_else_says_so(tmp_path, monkeypatch):
    path = write_image(tmp_path/"a.png", grey(9))

    def closed(*args, **how): raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr("builtins.open", closed)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"a.png cannot be read \(Permission denied\)"): read_image(path)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_a_sensors_bits_are_not_read_as_night(tmp_path, bits, suffix, colour):
    a = np.linspace(0, 2**bits - 1, 400).astype(np.uint16).reshape(20, 20)
    a = np.stack([a, a[::-1], a.T], -1) if colour else a
    cv2.imwrite(str(tmp_path/f"x.{suffix}"), a[..., ::-1] if colour else a)
    got = read_image(tmp_path/f"x.{suffix}")
    want = (a if colour else np.stack([a]*3, -1))*(255/(2**bits - 1))
    assert np.abs(got - want).max() <= 1.01, np.abs(got - want).max()


# what a second enrolment does

@pytest.fixture
def album(tmp_path):
    for n, v in dict(Ann=(20, 30), Bob=(40, 50)).items():
        for i, value in enumerate(v): write_image(tmp_path/"people"/n/f"{i + 1}.png", grey(value))
    with Gallery(tmp_path/"g.db", model="m") as g:
        enroll_people(StandIn(), tmp_path/"people", g)
        yield tmp_path, g


def again(g, folder, **how): return enroll_people(StandIn(), folder, g, **how).status.value_counts().to_dict()


def test_a_second_batch_numbered_alike_is_new(album):
    root, g = album
    for i in (1, 2): write_image(root/"card 2/Ann"/f"{i}.png", grey(100 + i))
    assert again(g, root/"card 2") == {"enrolled": 2} and g.people() == {"Ann": 4, "Bob": 2}
    assert again(g, root/"card 2") == {"already": 2} and again(g, root/"people") == {"already": 4}


def test_a_replaced_file_replaces_its_reference(album):
    root, g = album
    old = [h.id for h in g.held() if h.source == "Ann/1.png"]
    write_image(root/"people/Ann/1.png", grey(200))
    assert again(g, root/"people") == {"enrolled": 1, "already": 3} and g.people() == {"Ann": 2, "Bob": 2}
    assert old[0] not in [h.id for h in g.held()]


def test_a_renamed_file_is_the_same(album):
    root, g = album
    (root/"people/Ann/1.png").rename(root/"people/Ann/beach.png")
    assert again(g, root/"people") == {"already": 4}
    assert g.sources("Ann") == {"Ann/beach.png", "Ann/2.png"}


def test_swapped_files_are_the_same(album):
    root, g = album
    a, b, c = (root/"people/Ann"/n for n in ("1.png", "2.png", "x.png"))
    for src, dst in ((a, c), (b, a), (c, b)): src.rename(dst)
    assert again(g, root/"people") == {"already": 4} and g.people() == {"Ann": 2, "Bob": 2}


@posix
def test_other_ways_to_the_same_folder_do_not_double_it(album, monkeypatch):
    root, g = album
    (root/"link").symlink_to(root/"people", target_is_directory=True)
    shutil.copytree(root/"people", root/"moved")
    monkeypatch.chdir(root)
    for way in ("people", "./people/", "link", root/"people/../people", "moved"):
        assert again(g, way) == {"already": 4}, way
    monkeypatch.chdir(root/"people")
    assert again(g, ".") == {"already": 4} and again(g, "../people") == {"already": 4}


def test_names_of_a_mac_and_of_linux(album):
    root, g = album
    for form in ("NFC", "NFD"):
        write_image(root/form/unicodedata.normalize(form, "José")/unicodedata.normalize(form, "café.png"), grey(77))
    assert again(g, root/"NFC") == {"enrolled": 1} and again(g, root/"NFD") == {"already": 1}
    assert g.people()[unicodedata.normalize("NFC", "José")] == 1


def test_copies_count_once(album):
    root, g = album
    for n in ("copy.png", "copy (1).png"): write_image(root/"people/Cem"/n, grey(90))
    assert again(g, root/"people") == {"already": 5, "enrolled": 1} and g.people()["Cem"] == 1


def test_what_has_gone_is_told_and_pruned(album):
    root, g = album
    (root/"people/Ann/1.png").unlink()
    shutil.rmtree(root/"people/Bob")
    assert again(g, root/"people") == {"already": 1, "gone": 3} and g.people() == {"Ann": 2, "Bob": 2}
    assert again(g, root/"people", prune=True) == {"already": 1, "pruned": 3} and g.people() == {"Ann": 1}
    assert again(g, root/"people") == {"already": 1}


def test_another_folder_is_not_what_has_gone(album):
    root, g = album
    write_image(root/"card 2/Cem/1.png", grey(99))
    assert again(g, root/"card 2", prune=True) == {"enrolled": 1} and g.people() == {"Ann": 2, "Bob": 2, "Cem": 1}


def test_nothing_is_pruned_where_something_could_not_be_read(album, monkeypatch):
    root, g = album
    scan = os.scandir

    def closed(path):
        if str(path).endswith("Bob"): raise PermissionError(13, "Permission denied", str(path))
        return scan(path)
    monkeypatch.setattr(os, "scandir", closed)
    assert again(g, root/"people", prune=True) == {"already": 2, "passed": 1} and g.people() == {"Ann": 2, "Bob": 2}


def test_one_photograph_under_two_people_is_said(album):
    root, g = album
    shutil.copy(root/"people/Ann/1.png", root/"people/Bob/3.png")
    table = enroll_people(StandIn(), root/"people", g)
    assert table.problem[table.file == "Bob/3.png"].item() == "the same photograph is a reference of Ann"


def test_a_person_renamed_in_the_gallery_stays_renamed(album):
    root, g = album
    g.rename("Bob", "Robert")
    assert again(g, root/"people") == {"already": 4} and g.people() == {"Ann": 2, "Robert": 2}
    g.merge("Robert", "Ann")
    assert again(g, root/"people") == {"already": 4} and g.people() == {"Ann": 4}


def test_an_export_knows_its_photographs(album):
    root, g = album
    with Gallery(root/"other.db", model="m") as h:
        h.import_file(g.export(root/"all.zip"))
        assert again(h, root/"people") == {"already": 4} and h.people() == g.people()


# the file

@posix
def test_a_gallery_is_its_owners(tmp_path):
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        with Gallery(tmp_path/"new/folder/g.db", model="m") as g:
            g.add("a", np.eye(8)[0])
            made = [*(tmp_path/"new/folder").iterdir(), g.save(tmp_path/"copy.db"), g.export(tmp_path/"x.zip")]
    finally: os.umask(before)
    assert len(made) == 5 and {stat.S_IMODE(p.stat().st_mode) for p in made if p.exists()} == {0o600}


AS_NOBODY = """
import os, sys
import numpy as np
from facerec_nb.pipeline.gallery import Gallery, InputError
Gallery(model="m").close()
os.setgid(65534)
os.setuid(65534)
with Gallery(sys.argv[1]) as g:
    print(g.search(np.eye(8)[0])[0][0].name, g.read_only)
    try: g.add("b", np.eye(8)[1])
    except InputError as e: print(e)
"""


@posix
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="becomes another user")
def test_a_gallery_that_cannot_be_written_can_be_asked(tmp_path):
    folder = tmp_path/"mount"
    with Gallery(folder/"g.db", model="m") as g: g.add("a", np.eye(8)[0])
    os.chmod(folder/"g.db", 0o444)
    for p in (folder, *folder.parents):
        if p != Path("/") and not p.stat().st_mode & 1: os.chmod(p, 0o755)
    r = subprocess.run([sys.executable, "-c", AS_NOBODY, folder/"g.db"], capture_output=True, text=True, cwd=ROOT)
    first, second = r.stdout.splitlines()
    assert first == "a True" and "the folder must be writable" in second, r.stderr
    assert [p.name for p in folder.iterdir()] == ["g.db"]


# forks and pickles

FORK = """
import os, sys
import numpy as np, torch
from facerec_nb.datasets.synthetic import sample_faces
from facerec_nb.faces.detection import create_detector
from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.pipeline.gallery import Gallery
torch.set_num_threads(2)
find, net = create_detector("centerface", threads=2), LandmarkModel.load("small")
img = sample_faces(1, 1, seed=5)["images"][0]
def points(): return net.points(img, find(img)[0])[0]
want, g, e = points(), Gallery(sys.argv[1], model="m"), np.eye(8)[0]
g.add("a", e)
g.search(e)
for i in range(2):
    if not (pid := os.fork()):
        g.add(f"child {i}", e)
        os._exit(0 if np.allclose(points(), want, atol=0.01) and g.search(e) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print(list(g.people()), np.allclose(points(), want, atol=0.01))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_networks_and_a_gallery_survive_a_fork(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    forked = [sys.executable, "-c", FORK, tmp_path/"g.db"]
    r = subprocess.run(forked, capture_output=True, text=True, timeout=120, env=env)
    assert r.stdout.strip() == "['a', 'child 0', 'child 1'] True", r.stderr[-2000:]


def test_a_pipeline_of_parts_says_how_to_pickle():
    from facerec_nb.pipeline.face_pipeline import FacePipeline
    by_hand = FacePipeline(None, None, None, "m")
    with pytest.raises(InputError, match="make it with FacePipeline.load"): pickle.dumps(by_hand)
