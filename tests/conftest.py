"Two tests run at a time, one a core: notebooks one by one, other tests beside those of their file, to share fixtures."
import itertools
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).resolve().parent.parent))
NUMBERS = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name != "test_notebooks.py": item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def server():
    "A PostgreSQL server, started when a test asks for it"
    from studies.postgres import Server
    with Server(fsync="off") as s: yield s


@pytest.fixture
def database(server): return server.database(f"t{next(NUMBERS)}")


@pytest.fixture(params=["file", "server"])
def place(request, tmp_path):
    "Where a gallery may be: a file, or a database of a server"
    return tmp_path/"g.db" if request.param == "file" else request.getfixturevalue("database")
