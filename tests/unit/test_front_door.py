"What most users need is imported from facerec_nb itself, and nothing is loaded before it is asked for."
import importlib
import subprocess
import sys

import pytest

import facerec_nb

HEAVY = "torch torchvision matplotlib sklearn scipy pandas numpy cv2 PIL onnxruntime".split()


def fresh(code):
    "What some code prints in a new process"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


def test_importing_facerec_nb_loads_nothing():
    code = "import sys, facerec_nb; print(*[m for m in sys.modules if m.startswith('facerec_nb.')]); "
    code += f"print(*[m for m in {HEAVY} if m in sys.modules])"
    assert fresh(code) == []


def test_the_promised_line_works():
    code = "from facerec_nb import FacePipeline, Gallery, load_celeba; print(load_celeba.__name__)"
    assert fresh(code) == ["load_celeba"]


def test_a_light_name_loads_no_network():
    code = "from facerec_nb import read_image, load_celeba; import sys; print('torch' in sys.modules)"
    assert fresh(code) == ["False"]


@pytest.mark.parametrize("name", facerec_nb.__all__)
def test_a_name_is_its_module_s(name):
    thing = getattr(facerec_nb, name)
    home = importlib.import_module(thing.__module__)
    assert home.__name__.startswith("facerec_nb.") and getattr(home, name) is thing
    assert home.__name__ == f"facerec_nb.{facerec_nb._HOMES[name]}", "the front door leads through another module"
    assert facerec_nb.__dict__[name] is thing, "asked for once, found at once"


def test_dir_lists_them():
    assert set(facerec_nb.__all__) <= set(dir(facerec_nb)) and "__version__" in dir(facerec_nb)
    code = "import sys, facerec_nb; print('Gallery' in dir(facerec_nb), 'torch' in sys.modules)"
    assert fresh(code) == ["True", "False"]


def test_a_wrong_name_is_an_error_of_the_usual_kind():
    with pytest.raises(AttributeError, match="module 'facerec_nb' has no attribute 'FacePipelin'"):
        facerec_nb.FacePipelin  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Galery'"): from facerec_nb import Galery  # noqa: F401
    assert not hasattr(facerec_nb, "_repr_html_")


def test_export_keeps_the_front_door(tmp_path):
    "nbdev_export writes the version into this file, and touches nothing else of it"
    from nbdev.config import update_version
    text = open(facerec_nb.__file__, encoding="utf-8").read()
    (tmp_path/"__init__.py").write_text(text.replace(facerec_nb.__version__, "9.9.9"), encoding="utf-8")
    update_version(tmp_path)
    assert (tmp_path/"__init__.py").read_text(encoding="utf-8") == text
