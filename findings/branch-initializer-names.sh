#!/usr/bin/env bash
# A guess: weights with distinct names in the two branches of an If keep distinct names in the optimised model.
# What happens: at the level ALL both branches' weights are re-laid out and written under one name ("reorder"), once
# for each branch with different values. The model is valid and right; only names are local to a branch.
# Seen with onnxruntime 1.32.0. Who keeps several pruned variants in branches and looks weights up by name meets it.
# What to do: key weights by the path of the subgraph and the name, never by the name alone.
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


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime")), sep=", ")


def branch(name, seed):
    weight = np.random.default_rng(seed).normal(size=(16, 16, 3, 3)).astype(np.float32)
    return helper.make_graph(
        [helper.make_node("Conv", ["x", f"{name}_w"], [f"{name}_y"], pads=[1] * 4)],
        name,
        [],
        [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, 16, 8, 8])],
        [numpy_helper.from_array(weight, f"{name}_w")],
    )


graph = helper.make_graph(
    [helper.make_node("If", ["condition"], ["y"], then_branch=branch("full", 0), else_branch=branch("pruned", 1))],
    "choice",
    [
        helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8]),
    ],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
options = ort.SessionOptions()
options.log_severity_level = 3
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
options.optimized_model_filepath = "optimised.onnx"
ort.InferenceSession(model.SerializeToString(), options)
choice = next(node for node in onnx.load("optimised.onnx").graph.node if node.op_type == "If")
weights = {
    part.name: {tensor.name: numpy_helper.to_array(tensor) for tensor in part.g.initializer}
    for part in choice.attribute
}
for part, tensors in weights.items():
    print(part, {name: f"sum {values.sum():.3f}" for name, values in tensors.items()})
first, second = weights.values()
shared = set(first) & set(second)
expect(shared, "the branches have no initializer name in common")
expect(all(not np.array_equal(first[name], second[name]) for name in shared), "the shared names have equal values")
print("one name, two tensors:", sorted(shared))
PYTHON
