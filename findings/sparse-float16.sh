#!/usr/bin/env bash
# A guess: onnxruntime's convert_float_to_float16 converts all weights, whatever way they are stored.
# What happens: inputs, outputs and dense weights become float16, sparse initializers stay float32 without a word, and
# the model no longer loads: T is bound to two types. Seen with onnxruntime 1.32.0, onnx 1.23.2.
# Who halves a pruned model for an accelerator meets it after the conversion, not during it.
# What to do: make the weights dense first, or convert the values of the sparse initializers yourself.
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

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16


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

half = convert_float_to_float16(model, disable_shape_infer=True)
name = TensorProto.DataType.Name
kept = name(half.graph.sparse_initializer[0].values.data_type)
asked = name(half.graph.input[0].type.tensor_type.elem_type)
print("after the conversion the input is", asked, "and the sparse weight", kept)
expect((asked, kept) == ("FLOAT16", "FLOAT"), "the sparse weight is converted, or the input is not")
try:
    ort.InferenceSession(half.SerializeToString())
except Exception as error:
    message = str(error)
else:
    message = ""
print("onnxruntime says:", message or "nothing")
expect("bound to different types" in message, "the converted model loads, or fails otherwise")
PYTHON
