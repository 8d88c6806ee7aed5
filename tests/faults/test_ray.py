"A Ray cluster of two nodes on this machine: a driver and then a node are killed, and the rows are those of one process"

import pytest

from benchmarks.ray_embed import one_round, rows
from facerec_nb.core.files import write_image
from facerec_nb.datasets.synthetic import sample_faces
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.pipeline.shard_workers import embed_photos


@pytest.fixture
def photos(tmp_path):
    "Sixteen photographs and what is none"
    for i, img in enumerate(sample_faces(8, 2)["images"]): write_image(tmp_path/f"photos/{i:02}.jpg", img)
    (tmp_path/"photos/broken.jpg").write_text("no picture")
    return tmp_path/"photos"


def test_a_killed_driver_and_a_killed_node_cost_no_row(photos, tmp_path):
    embed_photos(FacePipeline.load(fast=True, threads=1), photos, tmp_path/"one", 1, workers=0)
    right = rows(tmp_path/"one")
    wrong, before, after = one_round(photos, tmp_path/"ray", 1, right)
    assert wrong == 0 and len(right) >= 17 and set(right.values()) == {1}
    assert 2 <= before < 17 and after > 2, "both died in the middle"
