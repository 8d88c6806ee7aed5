"""From photographs of faces to names: `from facerec_nb import FacePipeline, Gallery, load_celeba`.

A name's module is loaded when the name is first asked for, so importing facerec_nb loads nothing else."""
import importlib

__version__ = "0.2.0"

_HOMES = dict(
    FacePipeline="pipeline.face_pipeline",  # a photograph in, names out
    Gallery="pipeline.gallery",  # the people one knows
    load_celeba="datasets.celeba_files",  # a CelebA folder as one table
    Detector="faces.detection",  # a photograph -> boxes of faces
    LandmarkModel="faces.landmarks",  # a face -> five points
    FaceEmbedder="faces.embedder",  # an aligned face -> an embedding
    read_image="core.files",  # a file as RGB
    InputError="core.errors",  # what is raised when a file or a folder is not what it should be
    synthesise="datasets.synthetic",  # drawn people in CelebA's layout
)
__all__ = [*_HOMES]


def __getattr__(name):
    "Load a name's module at its first use"
    if name not in _HOMES: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__(): return sorted({*globals(), *_HOMES})
