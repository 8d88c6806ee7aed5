"The official numbers of CelebA's annotations: recomputed where these are, read from the committed record otherwise"
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from facerec_nb.datasets.celeba_files import ATTRIBUTES, POINT_COLUMNS, load_celeba
from facerec_nb.datasets.recipes import AttributeRich, BalancedIdentities
from facerec_nb.core.files import InputError, read_json
from facerec_nb.datasets.synthetic import tiny_celeba

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from studies.annotations import annotation_curves, annotation_metrics, record_annotations # noqa: E402
from studies.selection import record_selection, selection_curves # noqa: E402

DATA = ROOT.parent/"shared/data/celeba-annotations"
COUNTS = dict(images=202599, people=10177, people_25=3661, people_over_25=3300, people_30=2360, most_images=35,
              people_25_sharp=3245, images_with_box=70290, images_sharp_box_100=60837, people_25_sharp_box_100=1698)
SHARES = dict(share_male=41.68, share_blurry=5.09, share_eyeglasses=6.51, share_wearing_hat=4.85)

def check(metrics):
    assert {k: metrics[k]["value"] for k in COUNTS} == COUNTS
    assert {k: round(100*metrics[k]["value"], 2) for k in SHARES} == SHARES

def test_record():
    rec = read_json(ROOT/"results/annotations/summary.json")
    check(rec["metrics"])
    assert rec["data"]["n_images"] == 202599 and len(rec["curves"]["attribute_shares"]) == 40

@pytest.mark.skipif(not DATA.is_dir(), reason="the official annotations are not here")
def test_recomputed():
    full, boxed = load_celeba(DATA, images=False, need=("attributes", "identity")), load_celeba(DATA, images=False)
    metrics, rec = annotation_metrics(full.table, boxed.table), read_json(ROOT/"results/annotations/summary.json")
    check(metrics)
    assert full.fingerprint == rec["data"]["fingerprint"] and boxed.fingerprint == rec["data"]["fingerprint_boxes"]
    for name, m in rec["metrics"].items(): assert metrics[name]["value"] == pytest.approx(m["value"], abs=1e-9), name


# ---------------------------------------------------------------- the studies on a small folder
@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "Drawn annotations of six people, six photographs each"
    return tiny_celeba(tmp_path_factory.mktemp("small")/"celeba")


def test_metrics_and_curves(small):
    t = load_celeba(small).table
    m = annotation_metrics(t, t)
    assert (m["images"]["value"], m["people"]["value"], m["most_images"]["value"]) == (36, 6, 6)
    assert m["share_male"]["value"] == t.Male.mean()
    c = annotation_curves(t.assign(Blurry=~t.identity.duplicated()), t) # one blurry photograph each
    assert sum(c["box_side_sharp"]) + sum(c["box_side_blurry"]) == 36
    assert c["people_by_images"][6] == 6 and c["blur_cost"]["people_sharp"][4] == 6


def test_records(small, tmp_path):
    rec = record_annotations(small, tmp_path)
    assert read_json(tmp_path/"summary.json")["data"]["fingerprint_boxes"] == load_celeba(small).fingerprint
    assert rec["metrics"]["images_with_box"]["value"] == 36
    with pytest.raises(InputError, match="is not a folder"): record_selection(tmp_path/"nowhere")


def test_selection():
    "Sizes of both selections, a value per round and per target"
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(300), rng.integers(5, 31, 300))
    t = pd.DataFrame(rng.random((len(who), 40)) < rng.beta(0.5, 2, (300, 40))[who], columns=ATTRIBUTES)
    t = t.assign(image_id=[f"{i:06d}.jpg" for i in range(len(t))], identity=who, x_1=0, y_1=0, height=300)
    t = t.assign(width=rng.integers(60, 300, len(t)), **dict.fromkeys(POINT_COLUMNS, 40))
    rich = AttributeRich(100, (5, 8), 700, min_box=0)
    m, c = selection_curves(t, t, BalancedIdentities(40, 12), rich, targets=(0.1, 0.2))
    assert (m["balanced_images"]["value"], m["rich_images"]["value"]) == (480, 700)
    assert (len(c["trace"]), len(c["target_rarest"]), len(c["rich"]["diff"])) == (60, 2, 40)
