"The commands, as a user types them: help, exit codes, one chain from nothing to a name, and imports that stay quick."
import configparser
import importlib
import inspect
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facerec_nb.core.files import write_image

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
settings = configparser.ConfigParser(delimiters=["="])
settings.read(ROOT/"settings.ini", encoding="utf-8")
MODULES = dict(re.findall(r"(\w+)=([\w.]+):", settings["DEFAULT"]["console_scripts"]))
COMMANDS = list(MODULES)


def run(command, *args, cwd=None):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([BIN/command, *map(str, args)], capture_output=True, text=True, timeout=300, cwd=cwd, env=env)


def good(command, *args, code=0):
    r = run(command, *args)
    assert r.returncode == code, (command, args, r.returncode, r.stdout[-2000:], r.stderr[-4000:])
    return r.stdout


def processor_time():
    "Of the processes started so far: other jobs on the machine do not count"
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_and_is_quick(command):
    times = []
    for _ in range(3):
        start = processor_time()
        text = good(command, "--help")
        times.append(processor_time() - start)
        if times[-1] < 1: break
    assert min(times) < 1, f"--help takes {min(times):.2f} s of processor time"
    options = inspect.signature(getattr(importlib.import_module(MODULES[command]), command)).parameters
    for name, p in options.items():
        line = re.search(rf"^  (--)?{name}\b.*(?:\n {{6,}}.*)*", text, re.M)
        assert line and len(line[0].split()) > 2, f"{command} --help does not explain {name}"
        if p.default in (None, False, inspect.Parameter.empty): continue
        assert f"(default: {p.default})" in " ".join(line[0].split()), line[0]


def test_every_command_of_the_design_is_there():
    design = "demo synth prepare train_landmarks align train_embedder evaluate enroll identify verify"
    assert {f"facerec_{c}" for c in design.split()} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_errors_are_2(command):
    r = run(command, "--no_such_option")
    assert r.returncode == 2 and "usage:" in r.stderr and "Traceback" not in r.stderr


PROBE = """
import sys, time
start = time.process_time()
import {module}
heavy = [m for m in ("torch", "matplotlib", "sklearn", "scipy", "torchvision") if m in sys.modules]
print(time.process_time() - start, *heavy)
"""


@pytest.mark.parametrize("module", ["facerec_nb", "facerec_nb.datasets.celeba", "facerec_nb.apps.commands"])
def test_imports_are_light(module, limit=0.3):
    best, code = float("inf"), f"import {module}"
    probe = [sys.executable, "-c", PROBE.format(module=module)]
    for _ in range(5):
        took, *heavy = subprocess.run(probe, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
        assert not heavy, f"{code} imports {heavy}"
        best = min(best, float(took))
        if best < limit: break
    assert best < limit, f"{code} takes {best:.2f} s of processor time"


def test_options_have_two_spellings(tmp_path):
    for k, option in enumerate(("--per_id", "--per-id")): good("facerec_synth", tmp_path/str(k), "--ids", 1, option, 1)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    "Everything once, by commands alone, small: the numbers are poor, the way is complete"
    home = tmp_path_factory.mktemp("a chain with späces")
    good("facerec_synth", home/"data", "--ids", 8, "--per_id", 10)
    choice = ["--ids", 8, "--per_id", 10, "--min_box", 30, "--keep_blurry", "--unseen", 0.5]
    good("facerec_prepare", home/"data", home/"dfa", *choice)
    small = ["--epochs", 10, "--channels", 16, "--stacks", 1, "--input_size", 64, "--batch_size", 8]
    good("facerec_train_landmarks", home/"dfa", home/"run", *small)
    good("facerec_align", home/"dfa", home/"dfr", "--model", home/"run")
    short = ["--epochs", 2, "--emb_dim", 64]
    for head in ("ce", "arcface"): good("facerec_train_embedder", home/"dfr", home/"run", "--head", head, *short)
    from facerec_nb.datasets.celeba_files import load_celeba
    celeba = load_celeba(home/"data")
    for who, group in celeba.table.groupby("identity"):
        folder = home/"people"/f"Zoë {who}"
        folder.mkdir(parents=True)
        for image in group.image_id[:2]: shutil.copy(celeba.path(image), folder/f"1 {image}")
    return home


def test_the_chain_leaves_what_the_design_names(chain):
    run = [f"run/{name}" for name in ("best_stacked_hg.pth", "best_ce.pth", "best_af.pth", "log.jsonl")]
    for name in ("dfa/selected_images.csv", "dfr/aligned_pred_all.csv", *run): assert (chain/name).is_file(), name


def test_two_processes_leave_one_run(chain, tmp_path, capfd):
    from facerec_nb.datasets.hosts import run_command
    from facerec_nb.faces.embedder import FaceEmbedder
    run_command("facerec_train_embedder", chain/"dfr", tmp_path/"run", "--epochs", 2, "--emb_dim", 64, processes=2)
    said = capfd.readouterr().out
    assert said.count("trained on") == 1 and len((tmp_path/"run/log.jsonl").read_text().splitlines()) == 2
    assert FaceEmbedder.load(tmp_path/"run/best_af.pth").threshold["n_impostor"] > 0


def test_evaluate(chain):
    result = json.loads(good("facerec_evaluate", chain/"dfr", chain/"run", "--json"))
    assert result["metrics"]["top1_ce"]["n"] > 0 and (chain/"run"/"report.html").is_file()
    assert "NaN" not in json.dumps(result)


def test_enroll_identify_verify(chain):
    run_ = ["--run", chain/"run"]
    first = json.loads(good("facerec_enroll", chain/"people", chain/"g.db", *run_, "--json"))
    assert len(first["people"]) == 8 and first["photographs"]["enrolled"] >= 12 and "Zoë 1" in first["people"]
    again = json.loads(good("facerec_enroll", chain/"people", chain/"g.db", *run_, "--json"))
    assert again["people"] == first["people"], "enrolling twice adds nothing"
    options = ["--gallery", chain/"g.db", "--threshold", 0.5, "--draw", chain/"drawn"]
    text = good("facerec_identify", chain/"people", *options, *run_)
    rows = [line.split("\t") for line in text.splitlines()]
    assert len({r[0] for r in rows}) == 16 and all(len(r) == 7 for r in rows)
    assert {r[1] for r in rows} <= {"known", "unknown", "no_face"}
    right = sum(r[1] == "known" and Path(r[0]).parent.name == r[2] for r in rows)
    assert right >= 9, "an enrolled photograph is near to the mean of its person's two"
    assert len([p for p in (chain/"drawn").rglob("*") if p.is_file()]) == 16
    photo = next(Path(r[0]) for r in rows if r[1] == "known")
    same = json.loads(good("facerec_verify", photo, photo, *run_, "--threshold", 0.9, "--json"))
    assert same["status"] == "same" and same["similarity"] > 0.999 and same["threshold"] == 0.9


def test_without_a_run_the_networks_of_the_package_answer(chain, tmp_path):
    first = json.loads(good("facerec_enroll", chain/"people", tmp_path/"g.db", "--fast", "--json"))
    assert first["photographs"]["enrolled"] >= 12
    said = good("facerec_identify", chain/"people"/"Zoë 1", "--gallery", tmp_path/"g.db", "--fast")
    rows = [line.split("\t") for line in said.splitlines()]
    assert rows and all(r[1:3] == ["known", "Zoë 1"] and float(r[5]) > 0.9 for r in rows if r[1] != "no_face")
    r = run("facerec_identify", chain/"people"/"Zoë 1", "--gallery", tmp_path/"g.db")
    assert r.returncode == 1 and "-fast" in r.stderr and r.stderr.count("\n") == 1


def test_evaluate_on_people_and_pairs(chain, tmp_path):
    "The whole pipeline, by a folder of people and by a list of pairs"
    got = json.loads(good("facerec_evaluate", "--people", chain/"people", chain/"run", "--json"))["metrics"]
    assert got["found_share"]["n"] == 16 and got["rank1_1"]["n"] == 20*8
    assert got["rank1_3"]["value"] is None and "3" in got["rank1_3"]["why"] and got["no_face_1"]["value"] is not None
    names = {}
    for i, folder in enumerate(sorted((chain/"people").iterdir())):
        for j, photo in enumerate(sorted(folder.iterdir())):
            names[i, j] = f"P{i}_{j + 1:04}.jpg"
            shutil.copy(photo, tmp_path/names[i, j])
    lines = [f"P{i}\t1\t2" for i in range(8)]*2 + [f"P{i}\t1\tP{(i + d) % 8}\t2" for d in (1, 2) for i in range(8)]
    (tmp_path/"pairs.txt").write_text("\n".join(["10", *lines]))
    text = good("facerec_evaluate", "--pairs", tmp_path/"pairs.txt", "--images", tmp_path, chain/"run")
    assert re.search(r"^accuracy +\d\.\d+ \(.*n = 32\)", text, re.M) and "found_share" in text
    refused = {"give their folder with --images": ("--pairs", tmp_path/"pairs.txt"), "nothing to measure": (),
               "is not a folder": ("--people", tmp_path/"none", chain/"run")}
    for why, args in refused.items():
        r = run("facerec_evaluate", *args)
        assert r.returncode == 1 and r.stderr.count("\n") == 1 and why in r.stderr


def test_bring_your_own_embedder(chain, tmp_path):
    "An ONNX file of somebody else in the place of ours; galleries of the two do not mix"
    import onnx
    h, f32 = onnx.helper, onnx.TensorProto.FLOAT
    pool = h.make_node("AveragePool", ["faces"], ["p"], kernel_shape=[8, 8], strides=[8, 8])
    nodes = [pool, h.make_node("Flatten", ["p"], ["e"])]
    faces = h.make_tensor_value_info("faces", f32, ["n", 3, 112, 112])
    graph = h.make_graph(nodes, "means of squares", [faces], [h.make_tensor_value_info("e", f32, ["n", 588])])
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), tmp_path/"theirs.onnx")
    with_theirs = ["--run", chain/"run", "--embedder", tmp_path/"theirs.onnx"]
    said = good("facerec_enroll", chain/"people", tmp_path/"t.db", *with_theirs, "--threshold", 0.5, "--json")
    assert len(json.loads(said)["people"]) == 8
    rows = json.loads(good("facerec_identify", chain/"people", "--gallery", tmp_path/"t.db", *with_theirs, "--json"))
    assert rows["model"].startswith("theirs.onnx-") and len(rows["photos"]) == 16
    faces = [f for p in rows["photos"] for f in p["faces"]]
    assert all(f["probability"] is None for f in faces) and sum(f["status"] == "known" for f in faces) >= 12
    r = run("facerec_identify", chain/"people", "--gallery", tmp_path/"t.db", "--run", chain/"run")
    assert r.returncode == 1 and "theirs.onnx-" in r.stderr and "best_af.pth-" in r.stderr
    photo = next((chain/"people").rglob("*.jpg"))
    assert good("facerec_verify", photo, photo, *with_theirs, "--threshold", 0.9).startswith("same\t1.0000\t0.9000\t")
    missing = ["--embedder", tmp_path/"none.onnx", "--threshold", 0.5]
    r = run("facerec_verify", photo, photo, "--run", chain/"run", *missing)
    assert r.returncode == 1 and "none.onnx does not exist" in r.stderr and r.stderr.count("\n") == 1


def test_verify_answers_by_exit_code(chain):
    photo = next((chain/"people").rglob("*.jpg"))
    other = next(p for p in (chain/"people").rglob("*.jpg") if p.parent != photo.parent)
    grey = write_image(chain/"grey wall.png", np.full((300, 400, 3), 120, np.uint8))
    good("facerec_verify", photo, photo, "--run", chain/"run", "--threshold", 0.9, code=0)
    strict = ["--run", chain/"run", "--threshold", 0.9999]
    assert good("facerec_verify", photo, other, *strict, code=3).startswith("different\t")
    assert good("facerec_verify", photo, grey, "--run", chain/"run", "--threshold", 0.5, code=4).startswith("no_face\t")
    r = run("facerec_verify", photo, chain/"nowhere.jpg", "--run", chain/"run")
    assert r.returncode == 1 and r.stderr.count("\n") == 1 and "nowhere.jpg is not a file" in r.stderr


def test_one_bad_photo_does_not_stop_a_folder(chain, tmp_path):
    photo = next((chain/"people").rglob("*.jpg"))
    for name in ("good.jpg", "zz good.jpg"): shutil.copy(photo, tmp_path/name)
    (tmp_path/"bad.jpg").write_text("not a picture")
    good("facerec_enroll", chain/"people", tmp_path/"g.db", "--run", chain/"run", "--threshold", 0.5)
    r = run("facerec_identify", tmp_path, "--gallery", tmp_path/"g.db", "--run", chain/"run")
    named = {Path(line.split("\t")[0]).name for line in r.stdout.splitlines()}
    assert r.returncode == 0 and named == {"good.jpg", "zz good.jpg"}
    assert "bad.jpg is not a readable image" in r.stderr and "1 of 3 photographs could not be read" in r.stderr
