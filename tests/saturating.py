"""A session that adds as processors without VNNI do:
two neighbouring products of bytes at a time, in 16 bits, and what does not fit is cut off."""
import numpy as np
import onnx
from onnx.numpy_helper import to_array
from onnx.reference import ReferenceEvaluator

INT16 = 2**15 - 1


def columns(x, kernel, pads, strides, fill):
    "What a convolution sees at every place: (n, places, kh kw channels), channels fastest; and the size of the result"
    x = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))[:, :, ::strides[0], ::strides[1]]
    n, c, h, w, kh, kw = windows.shape
    return windows.transpose(0, 2, 3, 4, 5, 1).reshape(n, h*w, kh*kw*c), (h, w)


def add_pairs(a, b, most):
    "a (rows, k) times b (k, out): neighbouring products are added, cut off at `most`, and summed up"
    a, b = (np.pad(v, pad) for v, pad in ((a, [(0, 0), (0, a.shape[1] % 2)]), (b, [(0, b.shape[0] % 2), (0, 0)])))
    total = np.zeros((len(a), b.shape[1]), np.int32)
    for k in range(0, len(b), 2):
        pair = np.outer(a[:, k], b[k]) + np.outer(a[:, k + 1], b[k + 1])
        total += np.clip(pair, -most - 1, most)
    return total


def convolve(node, x, w, bias, most):
    "A convolution of bytes; x and w are (values, scale, zero point)"
    (xq, xs, xz), (wq, ws, wz) = x, w
    how = dict(group=1, dilations=[1, 1], pads=[0]*4, strides=[1, 1])
    how |= {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert how["group"] in (1, xq.shape[1]) and set(how["dilations"]) == {1} and not np.any(wz)
    seen, (h, wide) = columns(xq.astype(np.int32), wq.shape[2:], how["pads"], how["strides"], int(xz))
    b = wq.astype(np.int32).transpose(2, 3, 1, 0)
    if how["group"] == 1:
        b = b.reshape(-1, len(wq))
        total = add_pairs(seen.reshape(-1, seen.shape[-1]), b, most) - int(xz)*b.sum(0)
    else: # a filter per channel is added up in 32 bits everywhere
        b = b.reshape(-1, len(wq))
        total = ((seen.reshape(-1, *b.shape) - int(xz))*b).sum(1)
    y = total*(np.float32(xs)*np.asarray(ws, np.float32)) + bias
    return y.reshape(len(xq), h, wide, -1).transpose(0, 3, 1, 2).astype(np.float32)


class Saturating:
    "Stands where an onnxruntime.InferenceSession stands; `most` is the largest sum of two products"
    def __init__(self, session, data, most=INT16):
        self.session, self.graph, self.most = session, onnx.load_from_string(data).graph, most
        self.constants = {t.name: to_array(t) for t in self.graph.initializer}
    def __getattr__(self, name): return getattr(self.session, name)

    def run(self, names, feed):
        values, bytes_ = {**self.constants, **feed}, {}
        for node in self.graph.node: self.step(node, values, bytes_)
        return [values[n] for n in names]

    def step(self, node, values, bytes_):
        "One node: bytes are kept beside the numbers that they stand for, so that convolutions can use them"
        inputs = [values[i] if i else None for i in node.input]
        if node.op_type == "Conv" and set(node.input[:2]) <= bytes_.keys():
            bias = inputs[2] if len(inputs) > 2 else np.float32(0)
            values[node.output[0]] = convolve(node, *(bytes_[i] for i in node.input[:2]), bias, self.most)
            return
        if node.op_type == "DequantizeLinear": bytes_[node.output[0]] = tuple(inputs)
        got = ReferenceEvaluator(node).run(None, {i: v for i, v in zip(node.input, inputs) if i})
        values.update(zip(node.output, got))
