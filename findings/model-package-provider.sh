#!/usr/bin/env bash
# A guess: in one of onnxruntime's model packages a variant that names no execution provider runs on any of them, as
# an ONNX model does.
# What happens: the package opens and lists the variant, and every selection fails with "No suitable model
# variant found for the configured execution providers", the CPU's alone included; so do "", "*" and "cpu" as names.
# Seen with onnxruntime 1.32.0. Who ships pruned variants of one network as a package meets it.
# What to do: give each variant "ep": "CPUExecutionProvider", and one more for each other provider it should run on: only
# the first provider of the session options is compared.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 || { echo "not run: the packages did not install"; exit 2; }

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnxruntime")), sep=", ")

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def answer(**provider):
    """Write a package of one variant, and return what it answers for ones, or why not."""
    variant = {"variant_directory": "small", "executor_info": {"ort": {"model_file": "model.onnx"}}, **provider}
    name = "-".join(provider.values()) or "none"
    folder = Path(f"package{len(list(Path().glob('package*')))}")
    (folder / "small").mkdir(parents=True)
    onnx.save(model, folder / "small" / "model.onnx")
    manifest = {"schema_version": "1.0", "components": {"net": {"variants": {"small": variant}}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    package = ort.ModelPackageContext(str(folder))
    expect(package.get_variant_names("net") == ["small"], f"provider {name}: the variant is not listed")
    options = ort.SessionOptions()
    options.add_provider("CPUExecutionProvider", {})
    try:
        session = package.select_component("net", ort.ModelPackageOptions(options)).create_session()
    except Exception as error:
        return str(error)
    return session.run(None, {"x": np.ones((1, 4), np.float32)})[0].tolist()


for provider in ({}, {"ep": ""}, {"ep": "*"}, {"ep": "cpu"}):
    found = answer(**provider)
    print(provider, "->", found)
    expect("No suitable model variant" in str(found), f"{provider} is selected, or fails otherwise")
found = answer(ep="CPUExecutionProvider")
print("the CPU by name ->", found)
expect(found == [[1, 1, 1, 1]], "a variant that names the CPU is not selected")
PYTHON
