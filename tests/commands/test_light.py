"Without the extras: no PyTorch, Matplotlib, scikit-learn, SciPy or FAISS, and everything but training works"
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facerec_nb.core.files import write_image
from facerec_nb.core.installed import EXTRAS
from facerec_nb.datasets.portraits import public_portraits
from facerec_nb.datasets.synthetic import sample_faces

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """import sys
from facerec_nb.apps import commands
sys.argv = sys.argv[1:]
sys.exit(getattr(commands, sys.argv[0])())
"""
TRAINING = dict(
    facerec_demo=["--out", "run"], facerec_train_landmarks=["data", "run"], facerec_align=["data", "out"],
    facerec_train_embedder=["data", "run"], facerec_export_onnx=["run", "onnx"], facerec_evaluate=["data", "run"])


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    "Runs Python where the libraries of the extras cannot be imported"
    home = tmp_path_factory.mktemp("light")
    (home/"sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({[*EXTRAS, 'skimage']}))\n")
    path = os.pathsep.join([str(home), str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(*args, cwd=home, code=0):
        r = subprocess.run([sys.executable, *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True)
        assert r.returncode == code, (args, r.returncode, (r.stdout + r.stderr)[-3000:])
        return r.stdout if code == 0 else r.stderr

    return run


@pytest.fixture(scope="module")
def typed(light, tmp_path_factory):
    "A command as the terminal has it"
    script = tmp_path_factory.mktemp("script")/"command.py"
    script.write_text(COMMAND)
    return lambda *words, **how: light(script, *words, **how)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    "Two portraits in the public domain and six drawn people, one folder each; and a photograph to ask about"
    home = tmp_path_factory.mktemp("photographs")
    for name, img in public_portraits().items():
        for i in range(2): write_image(home/"people"/name/f"{i}.jpg", img if i else img[:, ::-1].copy())
    drawn = sample_faces(6, 3, seed=4)["images"]
    for i, img in enumerate(drawn): write_image(home/"people"/f"drawn {i//3}"/f"{i}.jpg", img)
    write_image(home/"asked.jpg", public_portraits()["Grace"])
    return home


def test_the_extras_are_away(light):
    for module in EXTRAS: light("-c", f"import {module}", code=1)


def test_from_enrolling_to_evaluating(typed, people):
    gallery = people/"gallery.db"
    said = json.loads(typed("facerec_enroll", people/"people", gallery, "--json"))
    assert "8 people" in typed("facerec_enroll", people/"people", gallery), said
    assert "\tknown\tGrace\t" in typed("facerec_identify", people/"asked.jpg", "--gallery", gallery)
    asked = "facerec_verify", people/"asked.jpg", people/"people/Grace/0.jpg"
    assert typed(*asked).startswith("same")
    assert "drawn 0" in typed("facerec_people", gallery)
    typed("facerec_cluster", people/"people", "--out", people/"groups")
    assert (people/"groups").is_dir()
    assert "rank1" in typed("facerec_evaluate", "--people", people/"people", "--json")


@pytest.mark.parametrize("command", TRAINING)
def test_training_is_one_sentence(typed, command):
    said = typed(command, *TRAINING[command], code=1)
    assert said.count("\n") == 1 and "Traceback" not in said
    assert said.rstrip().endswith('needs torch, which is not installed: pip install "facerec_nb[train]"'), said


def test_a_checkpoint_without_its_file_is_one_sentence(light):
    code = ("from facerec_nb import FacePipeline\n"
            "try: FacePipeline.load(engine='torch')\nexcept Exception as e: print(type(e).__name__, e)")
    said = light("-c", code)
    assert said.startswith("InputError") and 'quick needs torch' in said and "[train]" in said


def test_the_page_and_pictures_are_one_sentence(typed, light):
    assert 'pip install "facerec_nb[app]"' in typed("facerec_app", code=1)
    code = ("import numpy as np\nfrom facerec_nb.pipeline.answers import show_ranking\n"
            "try: show_ranking(np.zeros((9, 9, 3), np.uint8), None, [])\nexcept Exception as e: print(e)")
    assert "the picture needs matplotlib" in light("-c", code)


@pytest.mark.parametrize("tests", ["unit/test_folders.py", "commands/test_people.py", "commands/test_cluster.py"])
def test_the_pipeline_s_tests_pass(light, tests):
    without = "not server and not one_address" # a database's library is an extra too
    said = light("-m", "pytest", ROOT/"tests"/tests, "-n0", "-q", "-p", "no:cacheprovider", "-k", without, cwd=ROOT)
    assert " failed" not in said and "error" not in said


def test_nothing_heavy_is_loaded_for_an_answer(people):
    "Where everything is installed, one photograph still needs none of it"
    photo = str(people/"asked.jpg")
    code = ("import sys\nfrom facerec_nb import FacePipeline\nassert not heavy()\n"
            f"assert len(FacePipeline.load(threads=1).find({photo!r})) == 1\nassert not heavy(), heavy()")
    heavy = f"def heavy(): return [m for m in {[*EXTRAS, 'pandas']} if m in sys.modules]\n"
    r = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0, r.stderr[-3000:]


def test_help_is_told_before_numpy_is_loaded():
    away = f"[m for m in {[*EXTRAS, 'pandas', 'numpy', 'PIL', 'cv2', 'onnxruntime']} if m in sys.modules]"
    code = f"import sys, facerec_nb.apps.commands; assert not {away}, {away}"
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0, r.stderr[-3000:]


def test_embedding_into_shards_is_one_sentence(light, people):
    code = "import sys; from facerec_nb.apps.embed import facerec_embed; sys.exit(facerec_embed(sys.argv[1], 'out'))"
    err = light("-c", code, people/"people", code=1)
    assert err.count("\n") == 1 and 'pip install "facerec_nb[shards]"' in err
