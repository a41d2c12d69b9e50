#!/usr/bin/env bash
# A guess: onnxruntime's errors have a common base class, or are RuntimeErrors or ValueErrors, to catch them with.
# What happens: each class comes straight from Exception (and lives in a private-looking module), while a run through
# an IO binding raises a plain RuntimeError for the very same mistake. Seen with onnxruntime 1.32.0.
# Who tries many pruned variants and would skip those that the runtime refuses meets it.
# What to do: build the tuple of classes once from onnxruntime_pybind11_state, and add RuntimeError.
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
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as state


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime")), sep=", ")


def raised(call):
    try:
        call()
    except Exception as error:
        return type(error)
    return None


classes = [item for item in vars(state).values() if isinstance(item, type) and issubclass(item, Exception)]
print(len(classes), "classes:", ", ".join(item.__name__ for item in classes))
expect(len(classes) > 5, "the classes live elsewhere")
expect(all(item.__bases__ == (Exception,) for item in classes), "the classes have another base than Exception")

graph = helper.make_graph(
    [helper.make_node("Relu", ["x"], ["y"])],
    "one",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
options = ort.SessionOptions()
options.log_severity_level = 4
session = ort.InferenceSession(model.SerializeToString(), options)
binding = session.io_binding()


def bound():
    binding.bind_cpu_input("x", np.ones(2))
    binding.bind_output("y")
    session.run_with_iobinding(binding)


plain = raised(lambda: session.run(None, {"x": np.ones(2)}))
through = raised(bound)
print("float64 for a float32 input: run raises", plain, "and run_with_iobinding", through)
expect(plain is state.InvalidArgument, "run raises another class")
expect(through is RuntimeError, "run_with_iobinding raises another class")
PYTHON
