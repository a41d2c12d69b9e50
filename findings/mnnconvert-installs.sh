#!/usr/bin/env bash
# A guess: `mnnconvert model.onnx` converts a model, and touches nothing but the files that it is given.
# What happens: whatever it is asked, the command first runs `pip install -U aliyun-log-python-sdk` with the pip that is
# first on the PATH, which need not be that of its own environment, and after a conversion it reports sizes, options and
# a machine's number over the network. Seen with MNN 3.6.1. Who converts pruned models to MNN meets it; here the other
# environment got ten packages and another version of one that it had.
# What to do: call the converter that the command wraps, `_tools.mnnconvert([...])`, which does neither.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    MNN==3.6.1 numpy==2.4.6 onnx==1.23.2 || { echo "not run: the packages did not install"; exit 2; }

mkdir first  # a pip that installs nothing and keeps what it was asked
printf '#!/bin/sh\necho "pip $*" >> "%s/asked"\nexit 1\n' "$folder" > first/pip
chmod +x first/pip
: > asked

venv/bin/python -I - <<'PYTHON'
import onnx
from onnx import TensorProto, helper

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), "relu.onnx")
PYTHON

files="-f ONNX --modelFile relu.onnx --bizCode test"
PATH="$folder/first:$PATH" venv/bin/python -I -c \
    "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])" $files --MNNModel direct.mnn > /dev/null 2>&1
test -s direct.mnn || { echo "changed: the converter called directly makes no file"; exit 1; }
test ! -s asked || { echo "changed: the converter itself runs pip"; exit 1; }
echo "called directly: a model, and pip was not run"

PATH="$folder/first:$PATH" venv/bin/mnnconvert $files --MNNModel command.mnn > /dev/null 2>&1 || true
grep -q "install -U aliyun-log-python-sdk" asked || { echo "changed: mnnconvert no longer runs pip"; exit 1; }
test -s command.mnn || { echo "changed: mnnconvert makes no file"; exit 1; }
echo "as a command: a model, and it ran: $(head -n 1 asked)"
