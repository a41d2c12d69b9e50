#!/usr/bin/env bash
# A guess: an operator unchanged since opset 24 runs in a model of any later opset that the runtime accepts.
# What happens: Swish (of opset 24) runs in a model of opset 24; in one of 25 to 28, which onnxruntime accepts, there is
# no implementation. SwiGLU of opset 28 fails with it, as its function body is made of Swish.
# Seen with onnxruntime 1.32.0, onnx 1.23.2. Who raises a pruned language model to a newer opset meets it.
# What to do: write Mul(x, Sigmoid(x)), or stay at opset 24.
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
from onnx import TensorProto, helper


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime")), sep=", ")


def said(operator, inputs, opset):
    """What onnxruntime says of a model of one node: "runs" or the error."""
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"])],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)
    onnx.checker.check_model(model, full_check=True)
    try:
        session = ort.InferenceSession(model.SerializeToString())
        session.run(None, {name: np.ones(2, np.float32) for name in inputs})
    except Exception as error:
        return str(error)
    return "runs"


seen = {
    f"{operator} at opset {opset}": said(operator, inputs, opset)
    for operator, inputs, opset in [
        ("Relu", ["a"], 28),
        ("Swish", ["a"], 24),
        ("Swish", ["a"], 25),
        ("Swish", ["a"], 28),
        ("SwiGLU", ["a", "b"], 28),
    ]
}
for case, words in seen.items():
    print(f"{case}: {words}")
works = {case for case, words in seen.items() if words == "runs"}
expect(works == {"Relu at opset 28", "Swish at opset 24"}, f"other cases run: {sorted(works)}")
lacks = all("implementation for Swish(24)" in words for words in seen.values() if words != "runs")
expect(lacks, "a case fails for another reason than Swish")
PYTHON
