#!/usr/bin/env bash
# A guess: simplifying a model changes nodes, not its interface: an input whose batch is free keeps it free.
# What happens: where the input is added to, or multiplied by, a constant of several rows, the input's free dimension becomes the
# constant's, and a model that broadcast a single row now refuses it. Seen with onnxslim 0.1.98, onnx 1.23.2, onnxruntime 1.32.0.
# Who slims a pruned model with several masks or offsets tried at once meets it when the first request comes alone.
# What to do: compare the inputs' shapes before and after.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 onnxslim==0.1.98 || { echo "not run: the packages did not install"; exit 2; }

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnxruntime as ort
import onnxslim
from onnx import TensorProto, helper, numpy_helper


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime", "onnxslim")), sep=", ")


def masked(operator, mask):
    """y = x (operator) mask, x of free first dimension."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "mask"], ["y"])],
        "masked",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(mask.astype(np.float32), "mask")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def answer(model, rows):
    session = ort.InferenceSession(model.SerializeToString())
    return session.get_inputs()[0].shape, session.run(None, {"x": np.ones((rows, 3), np.float32)})[0].shape


for operator, mask in (("Mul", np.arange(5).reshape(5, 1)), ("Add", np.zeros((5, 3)))):
    model = masked(operator, mask)
    shape, answered = answer(model, 1)
    expect((shape, answered) == (["N", 3], (5, 3)), "the original does not broadcast one row")
    slim = onnxslim.slim(model)
    expect(answer(slim, 5) == ([5, 3], (5, 3)), "the input keeps its free dimension")
    try:
        answer(slim, 1)
    except Exception as error:
        print(f"{operator}: input {shape} became [5, 3]; one row: {str(error).splitlines()[0][:90]}")
    else:
        expect(False, "one row is accepted")
PYTHON
