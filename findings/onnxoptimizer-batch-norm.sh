#!/usr/bin/env bash
# A guess: folding a BatchNormalization into the convolution before it makes a model smaller: two nodes become one.
# What happens: onnxoptimizer writes the folding down as ten nodes and leaves them in the graph (casts, a square root, products
# of the old parameters), so a model of 4 nodes has 13 and the convolution's weight is no initializer any more.
# Seen with onnxoptimizer 0.4.2, onnx 1.23.2, onnxruntime 1.32.0. Who looks for zero channels in initializers of an optimised model,
# or quantises it, meets it. What to do: fold constants afterwards, or let the runtime or the exporter fold BatchNormalization.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 onnxoptimizer==0.4.2 || { echo "not run: the packages did not install"; exit 2; }

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import onnxoptimizer
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime", "onnxoptimizer")), sep=", ")

chance = np.random.default_rng(0)
tensors = {"first": chance.standard_normal((8, 3, 3, 3)), "last": chance.standard_normal((4, 8, 1, 1))}
tensors |= {name: chance.uniform(0.5, 1, 8) for name in ("scale", "shift", "mean", "variance")}
graph = helper.make_graph(
    [
        helper.make_node("Conv", ["x", "first"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "last"], ["y"]),
    ],
    "network",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])],
    [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
folded = onnxoptimizer.optimize(model)

print("before:", *(node.op_type for node in model.graph.node))
print("after: ", *(node.op_type for node in folded.graph.node))
expect(len(folded.graph.node) > len(model.graph.node), "folding makes the graph no longer larger")
expect("BatchNormalization" not in {node.op_type for node in folded.graph.node}, "it folds no BatchNormalization")
weight = next(node for node in folded.graph.node if node.op_type == "Conv").input[1]
expect(weight not in {tensor.name for tensor in folded.graph.initializer}, "the weight is an initializer")
print("the first convolution's weight is computed by a node, not stored")

image = {"x": np.ones((2, 3, 8, 8), np.float32)}
answers = [ort.InferenceSession(m.SerializeToString()).run(None, image)[0] for m in (model, folded)]
expect(np.allclose(*answers, atol=1e-5), "the answers differ")
print("equal answers")
PYTHON
