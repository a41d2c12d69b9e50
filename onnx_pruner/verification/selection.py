"""Outputs that a selection decides: NonMaxSuppression, TopK, ArgMax, a threshold, and whatever follows.

Near-ties flip under any rounding there, between onnxruntime's own optimisation levels too, and a flip moves an output
by all of its scale. So what goes into the selection is compared; and what comes out of it is computed from the very
same numbers by both models.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from onnx_shift.onnx_pruner.graph.inner import subgraphs
from onnx_shift.onnx_pruner.verification.engines import Array, copied

#: Operators that jump: an input that moves by rounding may move the output by its whole scale.
SELECTING = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "Less", "LessOrEqual",
     "NonMaxSuppression", "NonZero", "Round", "Sign", "TopK", "Unique"}
)  # fmt: skip
_WHOLE_NUMBERS = frozenset(
    {TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8}
)
_SIZES = frozenset({"Shape", "Size", "Constant", "ConstantOfShape"})


@dataclass(frozen=True)
class Selection:
    """What selections of a graph read and decide.

    `reads`: tensors that go into a selection and come out of none, with its operator. `decided`: all that follows.
    `enters`: tensors that come out of no selection and are read where one decided.
    """

    reads: Mapping[str, str]
    decided: Mapping[str, str]
    enters: tuple[str, ...]


def find_selection(graph: onnx.GraphProto) -> Selection:
    """Follow what selections decide through a graph; sizes of tensors do not depend on values."""
    fixed = {tensor.name for tensor in graph.initializer}
    fixed |= {tensor.values.name for tensor in graph.sparse_initializer}
    reads: dict[str, str] = {}
    decided: dict[str, str] = {}
    enters: dict[str, None] = {}
    for node in graph.node:
        names = read_by(node)
        if node.op_type in _SIZES or (names and fixed.issuperset(names)):
            fixed.update(node.output)
            continue
        kind = _selecting(node)
        follows = next((decided[name] for name in names if name in decided), "")
        if not kind and not follows:
            continue
        pure = [name for name in names if name not in decided and name not in fixed]
        enters.update(dict.fromkeys(pure))
        if kind:
            reads.update((name, kind) for name in pure)
        decided.update(dict.fromkeys((name for name in node.output if name), follows or kind))
    return Selection(reads, decided, tuple(enters))


def read_by(node: onnx.NodeProto) -> list[str]:
    """Return what a node reads, the captures of its bodies among it (and some names of theirs)."""
    names = [name for name in node.input if name]
    for body in subgraphs(node):
        names += [name for inner in body.node for name in read_by(inner)]
        names += [value.name for value in body.output]
    return names


def _selecting(node: onnx.NodeProto) -> str:
    """Return the selecting operator that a node is or holds; an empty string when there is none."""
    if node.op_type in SELECTING:
        return node.op_type
    if node.op_type == "Cast" and any(a.name == "to" and a.i in _WHOLE_NUMBERS for a in node.attribute):
        return "Cast"
    inner = (_selecting(one) for body in subgraphs(node) for one in body.node)
    return next((kind for kind in inner if kind), "")


def computed(graph: onnx.GraphProto) -> set[str]:
    """Return the names that a graph's nodes compute."""
    return {name for node in graph.node for name in node.output if name}


def tail(model: onnx.ModelProto, outputs: Collection[str], given: Mapping[str, Array]) -> onnx.ModelProto:
    """Return the part of a model that computes `outputs`, with the tensors of `given` as its inputs."""
    wanted = set(outputs)
    nodes = []
    for node in reversed(model.graph.node):
        if any(name in wanted and name not in given for name in node.output):
            nodes.append(node)
            wanted.update(read_by(node))
    found = copied(model)
    graph = found.graph
    for field in ("node", "output", "input", "value_info"):
        graph.ClearField(field)
    graph.node.extend(reversed(nodes))
    graph.output.extend(one for one in model.graph.output if one.name in outputs)
    graph.input.extend(one for one in model.graph.input if one.name in wanted and one.name not in given)
    for name, array in given.items():
        if name in wanted:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, list(array.shape)))
    kept = [tensor for tensor in graph.initializer if tensor.name in wanted]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    return found
