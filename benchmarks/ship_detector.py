"""The detector of the package in 8 bits: writes facerec_nb/weights/centerface_8.onnx.

    python benchmarks/ship_detector.py [--data ../shared/data/celeba-wild-60x30]

Convolutions, those with a filter per channel too, get 8-bit maps and 7-bit weights, a scale per filter (7 bits: see
nbs/engines/quantise), and so do the ReLUs behind them, which then cost nothing: a map that is nowhere negative has its
zero at the byte 0. The first convolution, the last ones, the sums and the enlarging ones stay in 32 bits. The scales
are the whole range of every map on every fourteenth photograph of the 48 calibration people, at the first two passes.
Before, the channels in front of a filter per channel are brought to the same range, and the filters divided by it:
the answers stay, and one scale suits all of them. The coarse points, which nobody asks for, are left out. What it finds
is measured by benchmarks/detection.py.
"""

import argparse, hashlib, tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import utils, version_converter
from onnx.numpy_helper import from_array, to_array
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from facerec_nb.core.files import read_image
from facerec_nb.core.installed import packaged
from facerec_nb.core.sessions import Session
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


def in_full(graph):
    "Names of the convolutions that stay in 32 bits"
    found = [n for n in graph.node if n.op_type == "Conv"]
    needed = {i for n in graph.node if set(n.output) & set(MAPS) for i in n.input}
    return [found[0].name, *[n.name for n in found if set(n.output) & (set(MAPS) | needed)]]


def per_channel(graph):
    "Convolutions with a filter per channel, each with the name of the map in front of it"
    groups = {n.name: next((a.i for a in n.attribute if a.name == "group"), 1) for n in graph.node}
    return {n.input[0]: n for n in graph.node if n.op_type == "Conv" and groups[n.name] > 1}


def ranges(model, names, pictures):
    "The largest value of every channel of some maps: name -> (channels,)"
    probe, top = onnx.ModelProto.FromString(model.SerializeToString()), dict.fromkeys(names, 0)
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(k) for k in names)
    session = Session(probe.SerializeToString(), 1)
    for x in pictures:
        for k, v in zip(names, session.run(names, {"input.1": x})):
            top[k] = np.maximum(top[k], v.max((0, 2, 3)))
    return top


def equalised(path, pictures):
    "Bring the channels in front of a filter per channel to one range; the answers stay"
    model = onnx.load(path)
    weights = {t.name: t for t in model.graph.initializer}
    made, after = {o: n for n in model.graph.node for o in n.output}, per_channel(model.graph)

    def times(name, factor):
        w = to_array(weights[name])
        weights[name].CopyFrom(from_array(w * factor.reshape(-1, *[1] * (w.ndim - 1)).astype(w.dtype), name))

    for name, top in ranges(model, list(after), pictures).items():
        before, scale = made[made[name].input[0]], np.maximum(top / top.max(), 1e-3)
        times(before.input[1], 1 / scale)
        times(before.input[2], 1 / scale)
        times(after[name].input[1], scale)
    onnx.save(model, path)


def quantised(path, out, pictures):
    "Write the graph with 8-bit convolutions"
    full = in_full(onnx.load(path).graph)
    how = dict(per_channel=True, reduce_range=True, op_types_to_quantize=["Conv", "Relu"], nodes_to_exclude=full)
    types = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, quant_format=QuantFormat.QDQ)
    quantize_static(path, out, Pictures(pictures), **types, **how)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-wild-60x30")
    args = parser.parse_args()
    out, seen = Path("facerec_nb/weights/centerface_8.onnx"), pictures(calibration_photos(args.data))
    with tempfile.TemporaryDirectory() as tmp:
        path = f"{tmp}/whole.onnx"
        prepared(path)
        equalised(path, seen)
        quantised(path, f"{tmp}/eight.onnx", seen)
        out.write_bytes(Path(f"{tmp}/eight.onnx").read_bytes())
    print(out, out.stat().st_size, "bytes, SHA-256", hashlib.sha256(out.read_bytes()).hexdigest())
