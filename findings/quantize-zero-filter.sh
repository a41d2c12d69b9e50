#!/usr/bin/env bash
# A guess: a filter pruned to zeros is the easiest one to quantise; it gives its bias and nothing else.
# What happens: quantize_static (QDQ, per channel) gives the zero filter the weight scale 1, and the int32 bias gets
# the scale of the input times 1, hundreds of times coarser than its neighbours': a small bias is rounded to 0.
# Seen with onnxruntime 1.32.0. Who prunes filters to zeros without removing them, then quantises, meets it.
# What to do: remove such filters, or leave one tiny weight in each before quantising.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 || { echo "not run: the packages did not install"; exit 2; }

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime")), sep=", ")


class Reader(CalibrationDataReader):
    def __init__(self):
        random = np.random.default_rng(0)
        self.samples = iter([{"x": random.normal(size=(1, 3, 8, 8)).astype(np.float32)} for _ in range(8)])

    def get_next(self):
        return next(self.samples, None)


logging.disable(logging.WARNING)
weight = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32) / 10
weight[0] = 0
bias = np.full(4, 0.01, np.float32)
graph = helper.make_graph(
    [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)],
    "filters",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
    [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), "float.onnx")
quantize_static(
    "float.onnx",
    "int8.onnx",
    Reader(),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    weight_type=QuantType.QInt8,
)
stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load("int8.onnx").graph.initializer}
kept = stored["b_quantized"] * stored["b_quantized_scale"]
print("every bias is 0.01; filter 0 has zeros alone as weights")
print("scale of the weights:", stored["w_scale"])
print("bias after quantising:", kept)
expect(stored["w_scale"][0] == 1, "the zero filter has another scale than 1")
expect(kept[0] == 0, "the bias of the zero filter is kept")
expect(np.allclose(kept[1:], 0.01, rtol=0.01), "the other biases are not kept within 1 %")
print("so the zero filter has lost its bias, the others keep theirs within 1 %")
PYTHON
