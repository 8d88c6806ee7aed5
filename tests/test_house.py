"The rooms of the package: arrows go down only, stories are read and not used, and nobody takes a private name."
import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT/"tools"))

import house  # noqa: E402

ARROWS = house.graph()


def none(bad): assert not bad, "\n" + "\n".join(bad)


def test_modules_are_found(): assert len(ARROWS) > 30 and sum(map(len, ARROWS.values())) > 100
def test_every_module_stands_in_a_room(): none(house.rooms_wrong(ARROWS))
def test_no_arrow_goes_up(): none(house.arrows_up(ARROWS))
def test_no_circle(): none(house.circles(ARROWS))
def test_stories_are_read_and_not_used(): none(house.story_readers(ARROWS, house.stories()))
def test_nobody_takes_a_private_name(): none(house.privates_taken())


def test_stories_are_modules(): assert house.stories() and set(house.stories()) <= set(ARROWS)


def test_the_picture_is_what_the_imports_say():
    shown = house.shown((ROOT/"CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert shown, f"CONTRIBUTING.md has no block that begins with {house.HEAD!r}"
    assert shown == house.picture(), "run python tools/house.py --write"


# the checker itself, on a small house

@pytest.fixture
def built(tmp_path):
    "A package and what lies beside it, from a dict of file names and texts"
    def build(**files):
        for name, text in files.items():
            p = (tmp_path/name.replace("__", "/")).with_suffix(".py")
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_text(text)
        return tmp_path
    return build


def test_an_arrow_upward_is_said_in_words(built):
    root = built(facerec_nb__core__files="from ..faces.crops import cut\n", facerec_nb__faces__crops="x = 1\n")
    assert house.arrows_up(house.graph(root)) == [
        "core.files in the room core imports faces.crops, line 1: an arrow from core up to faces"]


@pytest.mark.parametrize("line", [
    "from facerec_nb.faces.crops import cut", "from facerec_nb.faces import crops", "import facerec_nb.faces.crops",
    "import facerec_nb.faces.crops as c", "from ..faces import crops", "def f():\n    from ..faces.crops import cut"])
def test_every_way_to_import_is_seen(built, line):
    root = built(facerec_nb__core__files=line, facerec_nb__faces__crops="", facerec_nb__faces__other="")
    got = house.arrows_up(house.graph(root))
    assert len(got) == 1 and "faces.crops" in got[0] and ("inside a function" in got[0]) == ("def" in line)


def test_arrows_down_and_within_a_room_are_fine(built):
    root = built(facerec_nb__apps__demo="from ..core.files import a\nfrom ..pipeline import gallery\nimport numpy",
                 facerec_nb__pipeline__gallery="from .index import b", facerec_nb__pipeline__index="",
                 facerec_nb__core__files="")
    assert house.wrong(root) == []


def test_a_circle_is_drawn(built):
    root = built(facerec_nb__core__a="from .b import x", facerec_nb__core__b="from .c import x",
                 facerec_nb__core__c="from .a import x")
    assert house.circles(house.graph(root)) == ["core.a -> core.b -> core.c -> core.a: a circle"]
    built(facerec_nb__core__c="def f(): from .a import x")
    assert not house.circles(house.graph(root)), "what waits in a function closes no circle"
    built(facerec_nb__core__c="if TYPE_CHECKING:\n    from .a import x")
    assert not house.circles(house.graph(root)), "nor does what only a type checker sees"


def test_a_part_that_reads_a_story_is_named(built):
    root = built(facerec_nb__faces__crops="from ..datasets.celeba import x", facerec_nb__datasets__celeba="",
                 facerec_nb__apps__demo="from ..datasets import celeba",
                 facerec_nb__faces__alignment="from ..datasets.celeba import x")
    assert house.story_readers(house.graph(root), ["datasets.celeba", "faces.alignment"]) == [
        "faces.crops imports the story datasets.celeba, line 1: only apps and other stories may"]


def test_modules_outside_rooms_and_rooms_that_nobody_planned(built):
    assert house.rooms_wrong(house.graph(built(facerec_nb__files=""))) == ["files stands in no room"]
    assert "the room utils has no floor" in house.rooms_wrong(house.graph(built(facerec_nb__utils__x="")))[1]
    many = {f"{c}.x": [] for c in "abcdefghij"}
    assert house.rooms_wrong(many)[-1] == "10 rooms, at most 9"


@pytest.mark.parametrize("code,name", [
    ("from facerec_nb.core.files import _walk", "_walk"), ("from facerec_nb.core import files\nfiles._walk()", "_walk"),
    ("import facerec_nb.core.files as f\nf._walk()", "_walk"),
    ("import facerec_nb.core.files\nfacerec_nb.core.files._walk()", "_walk"),
    ("from facerec_nb.core import files\nmonkeypatch.setattr(files, '_walk', None)", "_walk"),
    ("patch('facerec_nb.core.files._walk')", "_walk"),
    ("def f():\n    from facerec_nb.core.files import open as o, _x", "_x"),
    ("from facerec_nb.core import files\nfiles.__file__", None), ("self._walk()\nx._y", None),
    ("from facerec_nb.core.files import walk", None), ("from other.files import _walk", None)])
def test_private_names_are_seen_however_they_are_taken(code, name):
    got = house.reaches(ast.parse(code), None, {"core.files"})
    assert [(r.module, r.name) for r in got] == ([("core.files", name)] if name else [])


def test_a_module_has_its_own_private_names(built):
    root = built(facerec_nb__core__files="def _walk(): pass", facerec_nb__core__plots="from .files import _walk",
                 tests__unit__test_x="from facerec_nb.core import files\nfiles._walk()", benchmarks__b="x = 1")
    assert [b.split(":")[0] for b in house.privates_taken(root)] == [
        "facerec_nb/core/plots.py takes _walk of core.files, line 1",
        "tests/unit/test_x.py takes _walk of core.files, line 2"]


def test_the_picture_goes_from_the_roof_down(built):
    root = built(facerec_nb__core__files="", facerec_nb__core__plots="",
                 facerec_nb__apps__demo="from ..core import files")
    picture = house.picture(house.graph(root))
    assert picture.splitlines() == [
        "rooms, from the roof down", "apps         demo", "        uses core",
        "core         files, plots", "        uses nothing of ours"]
    assert house.shown(f"# How\n\n```text\n{picture}\n```\n\nMore.") == picture and house.shown("```\nno\n```") is None
