#!/usr/bin/env bash
# A guess: convert_version raises the opset and leaves everything else of a model as it was, or refuses.
# What happens: the converted model has lost its local functions and the metadata of its nodes, without an error; the
# node that calls the function stays and onnxruntime does not know it. Seen with onnx 1.23.2, onnxruntime 1.32.0.
# Who marks pruned layers in node metadata, or exports layers as functions (PyTorch does), meets it.
# What to do: inline functions first (onnx.inliner), and copy the metadata over by node name.
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
from onnx import TensorProto, helper, version_converter


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime")), sep=", ")
opset = [helper.make_opsetid("", 17)]
layer = helper.make_function("demo", "Layer", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opset)
graph = helper.make_graph(
    [helper.make_node("Layer", ["x"], ["y"], domain="demo", name="layer")],
    "calls",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
)
imports = [*opset, helper.make_opsetid("demo", 1)]
model = helper.make_model(graph, opset_imports=imports, functions=[layer], ir_version=10)
model.graph.node[0].metadata_props.add(key="pruned", value="0.9")
onnx.checker.check_model(model, full_check=True)
ort.InferenceSession(model.SerializeToString()).run(None, {"x": np.ones(2, np.float32)})
after = version_converter.convert_version(model, 20)
print("before: functions", len(model.functions), "metadata of the node", len(model.graph.node[0].metadata_props))
print("after: functions", len(after.functions), "metadata of the node", len(after.graph.node[0].metadata_props))
expect(len(after.functions) == 0, "the converter keeps the functions")
expect(len(after.graph.node[0].metadata_props) == 0, "the converter keeps the metadata of the node")
try:
    ort.InferenceSession(after.SerializeToString())
except Exception as error:
    message = str(error)
else:
    message = ""
print("onnxruntime says of the converted model:", message or "nothing")
expect("not a registered function/op" in message, "the converted model loads, or fails otherwise")
PYTHON
