"Code that reads aloud: short cells, narrow lines, functions with few parameters; and the measure is measured."
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT/"tools"))

import cells  # noqa: E402

ALL = [c for p in cells.pages() for c in cells.cells(p)]
EXPORTED = [c for c in ALL if c.exported]


def test_pages_are_found(): assert len(cells.pages()) > 40 and len(EXPORTED) > 500


def test_exported_cells_are_short():
    characters, nodes = cells.measure(EXPORTED)
    assert characters <= cells.CHARACTERS, f"one exported cell in ten has more than {characters} characters: split them"
    assert nodes <= cells.NODES, f"half of the exported cells have more than {nodes} syntax nodes: split them"


@pytest.mark.parametrize("page", cells.pages(), ids=lambda p: p.stem)
def test_code_of_a_page_fits_the_screen(page):
    assert not (bad := cells.wide_cells(cells.cells(page))), "\n".join(bad)


def test_files_fit_the_screen(): assert not (bad := cells.wide_files()), "\n".join(bad)


def test_functions_have_few_parameters(): assert not (bad := cells.many_parameters(EXPORTED)), "\n".join(bad)


# the measure itself

@pytest.fixture
def page(tmp_path):
    def make(*sources):
        p = tmp_path/"page.ipynb"
        some = [dict(cell_type="code", id=f"c{i}", source=[s], outputs=[]) for i, s in enumerate(sources)]
        p.write_text(json.dumps(dict(cells=[*some, dict(cell_type="markdown", source=["x"*300])])))
        return cells.cells(p)
    return make


def test_exported_cells_are_known(page):
    got = page("#| default_exp rooms.one", "#| export\nx = 1", "#| exports\ny = 2", "%matplotlib inline\nx + y")
    assert [c.exported for c in got] == [False, True, True, False] and got[1].module == "rooms.one"


def test_size_counts_characters_and_nodes(page):
    assert cells.size(page("#| export\nx = 1")[0]) == (15, 5)  # Module, Assign, Name, Store, Constant
    assert cells.size(page("%timeit f()\n!ls")[0])[1] == 3  # two lines of IPython's, as `pass`


def test_width_cannot_hide_what_lines_count(page):
    "Forty lines of code squeezed into one are as large as before"
    long = "\n".join(f"x{i} = {i}" for i in range(40))
    assert cells.size(page(long)[0])[1] == cells.size(page(long.replace("\n", "; "))[0])[1]
    assert cells.wide_cells(page(long.replace("\n", "; "))) and not cells.wide_cells(page(long))


def test_measure_is_p90_and_median(page):
    got = page(*[f"#| export\n{'x'*n} = 1" for n in range(1, 11)])
    assert cells.measure(got) == (10 + len("#| export\n = 1"), 5)


@pytest.mark.parametrize("head,n", [
    ("def f(a, b, c, d, e, f, g, h, i)", 9), ("def f(a, b, c, d, e, *, f, g, h, i)", 9),
    ("def f(self, a, b, c, d, e, f, g, h)", 0), ("def _f(a, b, c, d, e, f, g, h, i)", 0)])
def test_parameters_are_counted(page, head, n):
    got = cells.many_parameters(page("#| default_exp core.x", f"#| export\n{head}: pass"))
    assert len(got) == bool(n) and all("has 9 parameters" in g for g in got)


def test_commands_have_as_many_options_as_they_have(page):
    command = "#| export\ndef f(a, b, c, d, e, f, g, h, i): pass"
    assert not cells.many_parameters(page("#| default_exp apps.commands", command))
