"""Every layer with weights that a model holds, wherever it lies and however its weights are stored.

Bodies of If, Loop and Scan, other domains, sparse tensors and narrow types are among them: what the pruner does not
look at has to be counted and named, or a report would say that nothing stayed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx

from onnx_shift.onnx_pruner.graph.inner import STANDARD, subgraphs
from onnx_shift.onnx_pruner.graph.network import Array

#: Standard operators that multiply by weights. Of other domains every operator that reads a weight counts.
LAYERS = frozenset(
    {"Attention", "CausalConvWithState", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm",
     "LSTM", "MatMul", "MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN"}
)  # fmt: skip
INTEGER_LAYERS = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
#: What a weight passes between where it is stored and the layer: it is widened, moved, masked.
_ON_THE_WAY = frozenset(
    {"Cast", "CastLike", "DequantizeLinear", "Div", "Identity", "Mul", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
_TYPES_WITHOUT_WEIGHTS = frozenset({onnx.TensorProto.BOOL, onnx.TensorProto.STRING, onnx.TensorProto.INT64,
                                    onnx.TensorProto.INT32})  # fmt: skip

Stored = onnx.TensorProto | onnx.SparseTensorProto


@dataclass(frozen=True)
class Weighted:
    """A layer and its weight as stored; `body` names the If, Loop or Scan that holds it, if one does."""

    node: onnx.NodeProto
    name: str
    weight: Stored
    body: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.dims)

    @property
    def parameters(self) -> int:
        return prod(self.shape)

    @property
    def sparse(self) -> bool:
        return isinstance(self.weight, onnx.SparseTensorProto)

    @property
    def foreign(self) -> bool:
        """Whether the operator is of another domain than the standard's."""
        return self.node.domain not in STANDARD

    def values(self) -> Array:
        """The weight as stored, sparse ones made dense."""
        if isinstance(self.weight, onnx.TensorProto):
            return onnx.numpy_helper.to_array(self.weight)
        values = onnx.numpy_helper.to_array(self.weight.values)
        found = np.zeros(self.parameters, values.dtype)
        places = onnx.numpy_helper.to_array(self.weight.indices)
        found[places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), self.shape)] = values
        return found.reshape(self.shape)


def weighted_layers(graph: onnx.GraphProto) -> Iterator[Weighted]:
    """Yield the layers of a graph and of the bodies in it, in the order of its nodes."""
    yield from _layers(graph, _Scope(), "")


@dataclass
class _Scope:
    """What names stand for, outer graphs included: stored tensors, and nodes that hand them on."""

    stored: dict[str, Stored] = field(default_factory=dict)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)

    def inner(self, graph: onnx.GraphProto) -> "_Scope":
        found = _Scope(dict(self.stored), dict(self.makers))
        found.stored.update((tensor.name, tensor) for tensor in graph.initializer)
        found.stored.update((tensor.values.name, tensor) for tensor in graph.sparse_initializer)
        for node in graph.node:
            value = constant_value(node)
            if value is not None:
                found.stored[node.output[0]] = value
            elif node.op_type in _ON_THE_WAY:
                found.makers.update((name, node) for name in node.output)
        return found

    def weight(self, name: str) -> tuple[str, Stored] | None:
        """Return the largest stored tensor that `name` is handed on from, or is; None when it is computed."""
        tensor = self.stored.get(name)
        if tensor is not None:
            return name, tensor
        node = self.makers.get(name)
        if node is None:
            return None
        found = [self.weight(given) for given in node.input if given]
        if not found or found[0] is None or (node.op_type in ("Mul", "Div") and None in found):
            return None
        return max((one for one in found if one is not None), key=lambda one: (is_weight(one[1]), prod(one[1].dims)))


def constant_value(node: onnx.NodeProto) -> Stored | None:
    """Return the tensor of a Constant node, sparse or not."""
    if node.op_type != "Constant" or node.domain not in STANDARD:
        return None
    found: list[Stored] = [a.t for a in node.attribute if a.name == "value"]
    found += [a.sparse_tensor for a in node.attribute if a.name == "sparse_value"]
    return found[0] if found else None


def is_weight(tensor: Stored) -> bool:
    """Whether a stored tensor may be a weight: whole numbers of 32 bits and more are sizes or indices."""
    kind = tensor.data_type if isinstance(tensor, onnx.TensorProto) else tensor.values.data_type
    return len(tensor.dims) > 1 and kind not in _TYPES_WITHOUT_WEIGHTS


def _layers(graph: onnx.GraphProto, outer: _Scope, body: str) -> Iterator[Weighted]:
    scope = outer.inner(graph)
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _layers(inner, scope, body or f"{node.op_type} {node.name or node.output[0]!r}")
        if node.domain in STANDARD and node.op_type not in LAYERS:
            continue
        found = [one for name in node.input if name and (one := scope.weight(name)) is not None]
        weights = [(name, tensor) for name, tensor in found if is_weight(tensor)]
        if weights:
            name, tensor = max(weights, key=lambda one: prod(one[1].dims))
            yield Weighted(node, name, tensor, body)


def stored_tensors(graph: onnx.GraphProto) -> Iterator[Stored]:
    """Yield every stored tensor of a graph and of the bodies in it: initializers, sparse ones, and Constant nodes."""
    yield from graph.initializer
    yield from graph.sparse_initializer
    for node in graph.node:
        value = constant_value(node)
        if value is not None:
            yield value
        for inner in subgraphs(node):
            yield from stored_tensors(inner)
