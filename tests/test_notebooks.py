"Every notebook runs from top to bottom, each as a case of its own with its own time limit and duration."

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p.relative_to(ROOT) for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.relative_to("nbs").with_suffix("").as_posix())
def test_notebook_runs(notebook):
    run = subprocess.run(
        [Path(sys.executable).parent / "nbdev_test", "--path", str(notebook), "--n_workers", "0"],
        cwd=ROOT,
        timeout=280,
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert run.returncode == 0 and "Success" in run.stdout, (run.stdout + run.stderr)[-8000:]


def test_notebooks_are_found():
    assert {f"{i:02}" for i in range(5)} <= {p.name[:2] for p in NOTEBOOKS}
    assert len(NOTEBOOKS) >= 18
