#!/usr/bin/env bash
# A guess: nodes and tensors of onnx-graphsurgeon can be kept in a set, and == tells whether two are one.
# What happens: they define __eq__ without __hash__, so hash() fails; tensors are compared by name alone, so a variable
# equals a constant, or one of another type and shape, of the same name. Seen with onnx-graphsurgeon 0.6.1, onnx 1.23.2.
# Who walks a graph to prune it keeps visited nodes in a set, or asks "tensor in found", and meets it.
# What to do: use id(node) as the key and "is" to compare.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 onnx==1.23.2 onnx-graphsurgeon==0.6.1 || { echo "not run: the packages did not install"; exit 2; }

export OMP_WAIT_POLICY=passive
venv/bin/python -I -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import onnx_graphsurgeon as gs


def expect(holds, what):
    if not holds:
        print("changed:", what)
        sys.exit(1)


print(*(f"{name} {version(name)}" for name in ("numpy", "onnx", "onnx-graphsurgeon")), sep=", ")


def hashable(item):
    try:
        hash(item)
    except TypeError:
        return False
    return True


tensor, other = gs.Variable("w", np.float32, (3,)), gs.Variable("w", np.int64, (5, 5))
weight, node = gs.Constant("w", np.ones(3, np.float32)), gs.Node("Relu", "node", inputs=[tensor])
print("hashable: node", hashable(node), "variable", hashable(tensor), "constant", hashable(weight))
print(
    "of one name: variable equals constant", tensor == weight, "and float32 (3,) equals int64 (5, 5)", tensor == other
)
expect(not any(map(hashable, (node, tensor, weight))), "nodes or tensors are hashable")
expect(tensor == weight and tensor == other, "tensors of one name differ by their content")
expect(other in node.inputs, "'in' tells tensors of one name apart")
print("a tensor that is not an input of the node is 'in' its inputs:", other in node.inputs)
PYTHON
