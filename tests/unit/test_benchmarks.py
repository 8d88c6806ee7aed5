"Every benchmark starts from a checkout, with nothing but the package installed"
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ("studies", "hostile") # what lies beside the package


@pytest.mark.parametrize("path", sorted((ROOT/"benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_finds_what_it_imports(path, monkeypatch, capsys):
    elsewhere = [p for p in sys.path if Path(p).resolve() not in (ROOT, ROOT/"tests", ROOT/"tests"/"faults")]
    monkeypatch.setattr(sys, "path", [str(path.parent), *elsewhere])
    for name in [m for m in sys.modules if m.split(".")[0] in BESIDE]: monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as end: runpy.run_path(str(path), run_name="__main__")
    assert end.value.code == 0 and "usage" in capsys.readouterr().out
