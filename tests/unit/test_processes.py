"A pipeline in other processes: started anew (spawn), and as joblib and Dask send it (cloudpickle)."
import multiprocessing

import numpy as np
import pytest

from facerec_nb.datasets.portraits import public_portraits
from facerec_nb.pipeline.face_pipeline import FacePipeline


@pytest.fixture(scope="module")
def pipe(): return FacePipeline.load(threads=1)


def embeddings(pipe): return np.stack([pipe(img)[0].embedding for img in public_portraits().values()])


def test_a_new_process_gives_the_same_answers(pipe):
    with multiprocessing.get_context("spawn").Pool(1) as pool: there = pool.apply(embeddings, [pipe])
    assert np.allclose(there, embeddings(pipe), atol=1e-5)


def test_what_joblib_and_dask_send_is_small_and_complete(pipe):
    cloudpickle = pytest.importorskip("cloudpickle")
    sent = cloudpickle.dumps(pipe)
    again = cloudpickle.loads(sent)
    assert len(sent) < 100_000 and again.model == pipe.model and again.threshold == pipe.threshold
    assert np.allclose(embeddings(again), embeddings(pipe), atol=1e-5)
