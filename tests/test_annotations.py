"The official numbers of CelebA's annotations: recomputed where the annotations are, read from the committed record otherwise"
from pathlib import Path

import pytest

from facerec_nb.celeba import annotation_metrics, load_celeba
from facerec_nb.files import read_json

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent/"shared/data/celeba-annotations"
COUNTS = dict(images=202599, people=10177, people_25=3661, people_over_25=3300, people_30=2360, most_images=35, people_25_sharp=3245,
              images_with_box=70290, images_sharp_box_100=60837, people_25_sharp_box_100=1698)
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
