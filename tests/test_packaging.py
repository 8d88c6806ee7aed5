"What leaves the checkout: commands under the oldest and the newest fastcore, exports by nbdev 2 and 3, sdist, wheel."

import configparser
import filecmp
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
ROOT = Path(__file__).resolve().parent.parent
settings = configparser.ConfigParser(delimiters=["="])
settings.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS, PROJECT = settings["DEFAULT"], tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS = dict(re.findall(r"(\w+)=([\w.]+):", SETTINGS["console_scripts"]))
SOURCES = (
    "facerec_nb",
    "settings.ini",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
)


def run(*args, cwd=ROOT, path=(), code=0):
    "What a program prints, with folders put before the installed packages"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    r = subprocess.run([*map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=280)
    assert r.returncode == code, (args, r.returncode, (r.stdout + r.stderr)[-4000:])
    return r.stdout + r.stderr


@cache
def index_answers():
    "Whether pip finds anything at all; without an index there is nothing to try"
    ask = [sys.executable, "-m", "pip", "index", "versions", "fastcore", "--disable-pip-version-check"]
    return subprocess.run(ask, capture_output=True, timeout=200).returncode == 0


def install(folder, *what):
    "Packages in a folder of their own; skipped only when pip reaches no index"
    if not index_answers():
        pytest.skip("pip reaches no package index")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder, *what)
    return folder


# --- fastcore, old and new

OLD, NEW = "fastcore>=1.7,<1.8", "fastcore>=2"


def script(folder, command):
    "A command as pip writes it"
    path = folder / command
    path.write_text(
        f"import sys\nfrom {COMMANDS[command]} import {command}\nif __name__ == '__main__': sys.exit({command}())\n"
    )
    return path


@pytest.fixture(scope="module", params=[OLD, NEW], ids=["fastcore 1.7", "fastcore 2"])
def home(request, tmp_path_factory):
    "A folder with this fastcore in packages/, and an empty bin/"
    home = tmp_path_factory.mktemp("fastcore")
    install(home / "packages", "--no-deps", request.param)
    (home / "bin").mkdir()
    found = run(sys.executable, "-c", "import fastcore; print(fastcore.__version__)", path=[home / "packages"])
    assert found.split(".")[0] == re.search(r"\d", request.param)[0]
    return home


@pytest.fixture(scope="module")
def typed(home):
    "Types a command under this fastcore; returns what it says"

    def typed(command, *args, code=0):
        path = [home / "packages", ROOT]
        return run(sys.executable, script(home / "bin", command), *args, path=path, cwd=home, code=code)

    return typed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_under_both_fastcores(typed, command):
    text = typed(command, "--help")
    assert text.startswith(f"usage: {command}") and "--" in text


def test_commands_under_both_fastcores(typed):
    "Options in both spellings, booleans, JSON, words that may be left out, exit codes"
    for option in ("--per_id", "--per-id"):
        assert '"photographs": 2' in typed("facerec_synth", "drawn", "--ids", 1, option, 2, "--json")
    assert "annotations of CelebA's size" in typed("facerec_synth", "drawn", "--ids", 1, "--annotations_only")
    assert typed("facerec_evaluate", code=1).startswith("facerec_evaluate: nothing to measure")
    assert "no folder" in typed("facerec_evaluate", "no folder", "no run", code=1)
    assert "people nowhere" in typed("facerec_evaluate", "--people", "people nowhere", code=1)
    assert "fmt is empty" in typed("facerec_synth", "drawn", "--fmt", "", code=1)
    assert "usage:" in typed("facerec_verify", "only one", code=2)
    assert "usage:" in typed("facerec_synth", "drawn", "--no_such_option", code=2)


def test_a_command_called_from_a_module_reads_no_words(home, tmp_path):
    "Python gives the arguments; what stands on the command line is somebody else's"
    (tmp_path / "caller.py").write_text(
        "from facerec_nb.apps.commands import facerec_verify\ncode = facerec_verify('a', 'b')\n"
    )
    said = run(
        sys.executable,
        "-c",
        "import caller; print('code', caller.code)",
        "--words",
        cwd=tmp_path,
        path=[home / "packages", ROOT, tmp_path],
    )
    assert "code 1" in said and "a is not a file" in said


# --- nbdev 2 and nbdev 3


def test_what_stands_in_both_files_is_the_same():
    "settings.ini is the source; pyproject.toml repeats only what nbdev 3 and the build cannot do without"
    project, nbdev = PROJECT["project"], PROJECT["tool"]["nbdev"]
    assert project["name"] == SETTINGS["lib_name"] and project["requires-python"] == ">=" + SETTINGS["min_python"]
    assert project["urls"] == dict(Repository=SETTINGS["git_url"])
    told = dict(true=True, false=False)
    for key, value in nbdev.items():
        mine = SETTINGS[key].strip()
        assert value == (mine.split() if isinstance(value, list) else told.get(mine.lower(), mine)), key
    twice = {"version", "dependencies", "optional-dependencies", "scripts"} & set(project)
    assert not twice, f"{twice} stand in settings.ini"


# nbdev 3 would write each page's address into its module if it knew where the website is, so it is not told; only the
# index of names holds these two, and the one that is committed comes from nbdev 2
SITE = re.compile(r"^ +'doc_(?:baseurl|host)': .*\n", re.M)


def test_nbdev_3_exports_the_same(tmp_path):
    install(tmp_path / "packages", "nbdev>=3,<4")
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "nbs", copy / "nbs", symlinks=True, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("settings.ini", "pyproject.toml", "_quarto.yml"):
        shutil.copy(ROOT / name, copy / name)
    made, here = copy / "facerec_nb", ROOT / "facerec_nb"
    made.mkdir()
    shutil.copy(here / "__init__.py", made)
    do = "from nbdev.doclinks import nbdev_export; from nbdev.clean import nbdev_clean; nbdev_export(); nbdev_clean()"
    run(sys.executable, "-c", do, cwd=copy, path=[tmp_path / "packages"])
    names = sorted(p.relative_to(here) for p in here.rglob("*.py"))
    assert names == sorted(p.relative_to(made) for p in made.rglob("*.py"))
    for name in names:
        theirs, ours = ((side / name).read_text(encoding="utf-8") for side in (made, here))
        if name.name == "_modidx.py":
            theirs, ours = SITE.sub("", theirs), SITE.sub("", ours)
        assert theirs == ours, f"{name} differs between nbdev 2 and nbdev 3"
    for p in (copy / "nbs").rglob("*.ipynb"):
        assert filecmp.cmp(p, ROOT / p.relative_to(copy), shallow=False), f"{p.name} is cleaned differently by nbdev 3"


# --- other systems

ELSEWHERE_MISSING = re.compile(
    r"os\.(?:mkfifo|fork|getuid|setsid|killpg|nice)\b|signal\.SIGKILL"
    r"|^\s*import (?:fcntl|resource|pwd)\b",
    re.M,
)


def test_no_call_that_windows_lacks():
    texts = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "facerec_nb").rglob("*.py")}
    found = {name: calls for name, text in texts.items() if (calls := ELSEWHERE_MISSING.findall(text))}
    assert not found, found


# --- sdist and wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "An sdist, and the wheel that is built from it"
    copy = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", copy / "dist", cwd=copy)
    return {p.suffix: p for p in (copy / "dist").iterdir()}


def test_version_and_weights_are_in_both(built):
    version = SETTINGS["version"]
    names = tarfile.open(built[".gz"]).getnames(), zipfile.ZipFile(built[".whl"]).namelist()
    for folder in ("weights", "fonts"):
        files = {p.name for p in (ROOT / "facerec_nb" / folder).iterdir()}
        assert files and all(files <= {Path(n).name for n in names if f"/{folder}/" in n} for names in names)
    assert f"facerec_nb-{version}/settings.ini" in names[0] and f"facerec_nb-{version}.dist-info/METADATA" in names[1]
    init = (ROOT / "facerec_nb/__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{version}"' in init
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_light_install_has_no_heavy_library(built):
    "What only training, or a million references, need comes with an extra, and the extra is the one that is named"
    from facerec_nb.core.installed import EXTRAS

    package = dict(sklearn="scikit-learn", faiss="faiss-cpu", pillow_heif="pillow-heif")
    wheel = zipfile.ZipFile(built[".whl"])
    metadata = wheel.read(next(n for n in wheel.namelist() if n.endswith("METADATA"))).decode()
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*(?:;.*extra == [\"'](\w+)[\"'])?", metadata, re.M)
    for module, extra in EXTRAS.items():
        asked = {e for name, e in needed if name.lower() == package.get(module, module.replace("_", "-"))}
        assert extra in asked and "" not in asked, (module, asked)
    light = {name for name, extra in needed if not extra}
    assert {"numpy", "onnxruntime", "pandas"} <= light and len(light) <= 12, light


@pytest.mark.parametrize("kind", [".gz", ".whl"], ids=["sdist", "wheel"])
def test_each_installs_into_an_empty_folder(built, kind, tmp_path):
    "Alone, with the requirements of this environment behind it"
    empty = tmp_path / "empty"
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        empty,
        built[kind],
        cwd=tmp_path,
    )
    where = run(sys.executable, "-c", "import facerec_nb; print(facerec_nb.__file__)", cwd=tmp_path, path=[empty])
    assert Path(where.strip()).parent == empty / "facerec_nb"
    for command in COMMANDS:
        assert (empty / "bin" / command).is_file()
    help = run(sys.executable, empty / "bin/facerec_demo", "--help", cwd=tmp_path, path=[empty])
    assert help.startswith("usage: facerec_demo")


# --- what CONTRIBUTING promises


def examples():
    "Heading and code of each worked example"
    for part in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        heading = part.splitlines()[0]
        for code in re.findall(r"^```python\n(.*?)^```", part, re.M | re.S):
            yield pytest.param(code, id=heading)


@pytest.mark.parametrize("code", examples())
def test_worked_examples_run(code):
    run(sys.executable, "-c", code, path=[ROOT])


def test_there_is_an_example_of_each():
    assert {"a loss", "a backbone", "a detector", "a metric"} <= {p.id.removeprefix("Add ") for p in examples()}
