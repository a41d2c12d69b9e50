#!/usr/bin/env bash
# A guess: onnxruntime's quantiser reads the sparse weights that onnxruntime runs, or names them as not supported.
# What happens: quantize_static sorts the nodes without knowing sparse initializers, finds a node that is never ready
# and reports a graph with a cycle ("not a DAG"), though the graph is one single node.
# Seen with onnxruntime 1.32.0, onnx 1.23.2. Who quantises a pruned model stored sparsely meets it.
# What to do: make the weights dense, quantise, and make them sparse again afterwards.
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
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime")), sep=", ")


def sparse_matmul():
    """y = x @ w with the 3x4 weight w stored as a sparse initializer of three values."""
    values = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    places = numpy_helper.from_array(np.array([0, 5, 10], np.int64), "w_places")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "sparse",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        sparse_initializer=[helper.make_sparse_tensor(values, places, [3, 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def run(model):
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": np.ones((2, 3), np.float32)})[0]


model = sparse_matmul()
onnx.checker.check_model(model)
expect(run(model)[0].tolist() == [1, 2, 3, 0], "onnxruntime no longer runs the sparse initializer")
print("onnxruntime runs the model with its sparse weight:", run(model)[0])


class Reader(CalibrationDataReader):
    def __init__(self):
        self.samples = iter([{"x": np.ones((2, 3), np.float32)}])

    def get_next(self):
        return next(self.samples, None)


logging.disable(logging.WARNING)
onnx.save(model, "sparse.onnx")
try:
    quantize_static("sparse.onnx", "int8.onnx", Reader())
except AssertionError as error:
    message = str(error)
else:
    message = ""
print("nodes:", [node.op_type for node in model.graph.node], "quantize_static says:", message or "nothing")
expect("not a DAG" in message, "the quantiser takes the sparse initializer, or fails otherwise")
PYTHON
