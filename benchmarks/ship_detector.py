"""The detector of the package in 8 bits: writes facerec_nb/weights/centerface_8.onnx.

    python benchmarks/ship_detector.py [--data ../shared/data/celeba-wild-60x30]

Convolutions get 8-bit maps and 7-bit weights, a scale per filter (7 bits: see nbs/engines/quantise); the first one, the
last ones and those with a filter per channel stay in 32 bits. The scales come from every fourteenth photograph of the
48 calibration people, at the first two passes. The coarse points, which nobody asks for, are left out. What it finds is
measured by benchmarks/detection.py.
"""

import argparse, hashlib, tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import utils, version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from facerec_nb.core.files import read_image
from facerec_nb.core.installed import packaged
from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.datasets.recipes import Usable
from facerec_nb.datasets.selected import add_splits
from facerec_nb.faces.detection import MAPS, CenterFaceDetector


class Pictures(CalibrationDataReader):
    "What the quantiser asks for its scales, one picture after the other"

    def __init__(self, pictures):
        self.left = iter([{"input.1": x} for x in pictures])

    def get_next(self):
        return next(self.left, None)


def calibration_photos(data):
    "Every fourteenth photograph of the people who are not held out"
    table = load_celeba(data).table
    split = add_splits(Usable(min_box=0, drop_blurry=False).select(table), seed=21)
    held = split.query("people == 'unseen'").identity
    return [Path(data) / p for p in table[~table.identity.isin(held)].path[::14]]


def pictures(photos):
    "The input of the network at the first two passes"
    detect, seen = CenterFaceDetector(threads=1, eight=False), []
    detect.net = lambda img, least: seen.append(img) or np.zeros((0, 5))
    for img in map(read_image, photos):
        for side in detect.sizes[:2]:
            detect.one_pass(img, side)
    return [x.transpose(2, 0, 1)[None].astype(np.float32) for x in seen]


def prepared(path):
    "The graph up to the maps that are used, folded, with a name for every node"
    utils.extract_model(packaged("centerface.onnx"), path, ["input.1"], MAPS)
    onnx.save(version_converter.convert_version(onnx.load(path), 13), path)
    quant_pre_process(path, path, skip_symbolic_shape=True)
    model = onnx.load(path)
    for i, n in enumerate(model.graph.node):
        n.name = f"{n.op_type}_{i}"
    onnx.save(model, path)
    return model.graph


def in_full(graph):
    "Names of the convolutions that stay in 32 bits"
    found = [n for n in graph.node if n.op_type == "Conv"]
    groups = {n.name: next((a.i for a in n.attribute if a.name == "group"), 1) for n in found}
    needed = {i for n in graph.node if set(n.output) & set(MAPS) for i in n.input}
    last = [n.name for n in found if set(n.output) & (set(MAPS) | needed)]
    return [found[0].name, *last, *(k for k, g in groups.items() if g > 1)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-wild-60x30")
    args = parser.parse_args()
    out, seen = Path("facerec_nb/weights/centerface_8.onnx"), pictures(calibration_photos(args.data))
    with tempfile.TemporaryDirectory() as tmp:
        path = f"{tmp}/whole.onnx"
        full = in_full(prepared(path))
        how = dict(per_channel=True, reduce_range=True, op_types_to_quantize=["Conv"], nodes_to_exclude=full)
        types = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, quant_format=QuantFormat.QDQ)
        quantize_static(path, f"{tmp}/eight.onnx", Pictures(seen), **types, **how)
        out.write_bytes(Path(f"{tmp}/eight.onnx").read_bytes())
    print(out, out.stat().st_size, "bytes, SHA-256", hashlib.sha256(out.read_bytes()).hexdigest())
