#!/usr/bin/env bash
# A guess: SessionOptions.add_external_initializers replaces an initializer anywhere in the model.
# What happens: it looks in the main graph only; the name of a weight inside an If branch is "not found", and so no
# branch's weights can be handed over from memory. Seen with onnxruntime 1.32.0, onnx 1.23.2.
# Who keeps several pruned variants in branches and would share their weights between sessions meets it.
# What to do: move the weights to the main graph; branches see its names.
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


def outside(name):
    """A 3x4 initializer of zeros in the file w.bin."""
    tensor = numpy_helper.from_array(np.zeros((3, 4), np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, "w.bin", offset=0, length=48)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def build(inside):
    """An If whose branches multiply x with w; w in the then branch or in the main graph."""
    weights = [outside("w")]

    def branch(name, operator, right, initializers):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["x", *right], [name])], name, [], [value], initializers)

    graph = helper.make_graph(
        [
            helper.make_node(
                "If",
                ["condition"],
                ["y"],
                then_branch=branch("product", "MatMul", ["w"], weights if inside else []),
                else_branch=branch("same", "Identity", [], []),
            )
        ],
        "choice",
        [
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [] if inside else weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def said(inside):
    options = ort.SessionOptions()
    weight = ort.OrtValue.ortvalue_from_numpy(np.ones((3, 4), np.float32))
    options.add_external_initializers(["w"], [weight])
    onnx.save(build(inside), "model.onnx")
    try:
        session = ort.InferenceSession("model.onnx", options)
    except Exception as error:
        return str(error)
    return session.run(None, {"condition": np.array(True), "x": np.ones((2, 3), np.float32)})[0][0].tolist()


np.zeros((3, 4), np.float32).tofile("w.bin")
main, inner = said(inside=False), said(inside=True)
print("weight in the main graph, replaced by ones:", main)
print("weight in a branch:", inner)
expect(main == [3, 3, 3, 3], "a weight in the main graph is not replaced")
expect("Failed to find existing initializer" in str(inner), "a weight in a branch is replaced, or fails otherwise")
PYTHON
