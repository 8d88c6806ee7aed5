"The package is what the notebooks export, the notebooks are clean, README.md is the index, and ruff is content."
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(p for p in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def source(nb):
    cells = json.loads(nb.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]


def run(*args, cwd=ROOT):
    r = subprocess.run(args, cwd=cwd, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-6000:]
    return r.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "A copy of the sources in which export and clean have been run"
    copy = tmp_path_factory.mktemp("copy")
    left_out = shutil.ignore_patterns("__pycache__", "weights")
    for name in ("nbs", "facerec_nb"): shutil.copytree(ROOT/name, copy/name, symlinks=True, ignore=left_out)
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(ROOT/name, copy/name)
    run(BIN/"nbdev_export", cwd=copy)
    run(BIN/"nbdev_clean", cwd=copy)
    return copy


def test_package_is_exported(exported):
    for p in sorted((exported/"facerec_nb").rglob("*.py")):
        name = p.relative_to(exported)
        assert p.read_text() == (ROOT/name).read_text(), f"{name} differs from its notebook: run nbdev_export"


def test_every_module_has_a_notebook():
    cells = [c for nb in NOTEBOOKS for c in source(nb)]
    found = [m[1] for c in cells if (m := re.search(r"^#\|\s*default_exp\s+([\w.]+)", c, re.M))]
    made = [p.relative_to(ROOT/"facerec_nb").with_suffix("").parts for p in (ROOT/"facerec_nb").rglob("*.py")]
    assert sorted(found) == sorted(".".join(m) for m in made if m[-1] not in ("__init__", "_modidx"))


def test_every_room_is_a_package():
    "Without its __init__.py a folder is left out of what pip installs; and it holds nothing but its modules"
    for folder in {p.parent for p in (ROOT/"facerec_nb").rglob("*.py")}:
        assert (folder/"__init__.py").exists(), f"{folder.name} has no __init__.py"
        if folder.name != "facerec_nb": assert not (folder/"__init__.py").read_text().strip(), folder.name


@pytest.mark.parametrize("nb", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT/"nbs").with_suffix("").as_posix())
def test_notebook_is_clean(nb, exported):
    assert nb.read_text() == (exported/nb.relative_to(ROOT)).read_text(), f"{nb.name} is not clean: run nbdev_clean"
    assert nb.stat().st_size < 1_000_000, f"{nb.name} is {nb.stat().st_size/1e6:.1f} MB: make its pictures smaller"


@pytest.mark.parametrize("nb", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT/"nbs").with_suffix("").as_posix())
def test_notebook_keeps_the_house_style(nb):
    "No error or warning saved, no local path, and a story ends in what was found"
    d = json.loads(nb.read_text(encoding="utf-8"))
    outs = [o for c in d["cells"] for o in c.get("outputs", [])]
    bad = [o for o in outs if o.get("output_type") == "error" or o.get("name") == "stderr"]
    assert not bad, "a saved error or warning"
    assert not re.search(r"/(?:tmp|root|home)/\w", json.dumps(outs)), "a local path in a saved output"
    if nb.name[:2].isdigit(): assert "## Findings" in nb.read_text(encoding="utf-8")


# narrowed for the tests, because nbdev 2.4.14 does not import with fastcore 2: test_packaging.py has the commands run
# under both
NARROWED = {"fastcore"}


def test_tests_run_with_what_users_get():
    "No other requirement of the package is narrowed for the tests: what a fresh `make demo` installs was tested"
    cfg = configparser.ConfigParser()
    cfg.read(ROOT/"settings.ini")
    names = {k: {re.match(r"[\w-]+", r)[0] for r in cfg["DEFAULT"][k].split()}
             for k in ("requirements", "dev_requirements")}
    twice = names["requirements"] & names["dev_requirements"]
    assert twice == NARROWED, f"{twice - NARROWED} is required twice: say its versions once, in requirements"


def test_readme_is_the_index(): run(sys.executable, "tools/readme.py", "--check")


def test_ruff():
    folders = ("nbs", "facerec_nb", "tests", "tools", "benchmarks", "studies")
    run(BIN/"ruff", "check", *[f for f in folders if (ROOT/f).exists()])
