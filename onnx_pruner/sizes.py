"""Sizes worked out at run time, once channels are cut: every reader gets the numbers it needs.

A Shape now reports the smaller channel count. Nodes that only move entries (Gather, Slice, Concat …) pass it on. A
reader that needs the old count, or by its rule a new one, gets a vector that holds it as a constant. Readers of other
entries are left alone, so that onnxruntime still recognises the patterns it knows.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_shift.onnx_pruner.graph.network import Network
from onnx_shift.onnx_pruner.graph.vectors import Entry, Inferred, Node, Vector, follow
from onnx_shift.onnx_pruner.op import Channels, Mask
from onnx_shift.onnx_pruner.rewriter import Size, Weights

MOVES = frozenset({"Shape", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Identity", "Cast"})
Entries = dict[int, int]  # of a vector, by position


def settle_sizes(
    network: Network,
    weights: Weights,
    channels: Mapping[str, Channels],
    keep: Mapping[str, Mask],
    asked: Mapping[tuple[int, int], Size],
) -> None:
    """Let every reader of a computed size find its old value, or what is asked: by id of a node and index of its
    input.
    """
    settling = _Settling(network, weights)
    for name, mask in keep.items():
        if name in network.shapes and not mask.all():
            settling.cut(name, channels[name].axis, len(mask), int(mask.sum()))
    for node in list(network.graph.nodes):
        settling.add(node, asked)
    network.graph.nodes[:] = settling.nodes


class _Settling:
    """Follows vectors from node to node, with a symbol in the place of every count that changed."""

    def __init__(self, network: Network, weights: Weights) -> None:
        self.network, self.weights = network, weights
        self.pinned = {*network.outputs, *network.captured}
        self.known = Inferred(dict(network.shapes), dict(network.types), dict(network.vectors))
        self.before: dict[Entry, int] = {}  # channel counts by symbol
        self.now: dict[Entry, int] = {}
        self.joins: dict[str, gs.Node] = {}
        self.changed: dict[tuple[str, tuple[tuple[int, int], ...]], gs.Tensor] = {}
        self.nodes: list[gs.Node] = []

    def cut(self, name: str, axis: int, before: int, now: int) -> None:
        symbol, shape = f"channels of {name}", list(self.network.shapes[name])
        shape[axis] = symbol
        self.known.shapes[name] = tuple(shape)
        self.before[symbol], self.now[symbol] = before, now

    def add(self, node: gs.Node, asked: Mapping[tuple[int, int], Size]) -> None:
        vector = self._moved(node)
        for index, tensor in enumerate(node.inputs):
            size = asked.get((id(node), index))
            if size is None and vector is not None and (index == 0 or node.op == "Concat"):
                continue
            here = self._entries(tensor.name, 0 if size is None else size.length)
            entries = self._old(here)
            if size is not None and here[size.position] not in size.leave:
                entries[size.position] = size.count
            if (changed := self._with(tensor, entries, len(here))) is not tensor:
                node.inputs[index] = changed
        self.nodes.append(node)
        if vector is not None:
            self._remember(node, vector)

    def _remember(self, node: gs.Node, vector: Vector) -> None:
        result, entries = node.outputs[0], self._old(vector.entries)
        if result.name in self.pinned and entries:
            node.outputs[0] = gs.Variable(self.weights.name(f"{result.name}_now"))
        raw = node.outputs[0]
        self.known.vectors[raw.name], self.known.types[raw.name] = vector, self._kind(result.name)
        if node.op == "Concat":
            self.joins[raw.name] = node
        if raw is not result:
            old = self._with(raw, entries, len(vector.entries))
            self._append("Identity", {}, [old], result)

    def _moved(self, node: gs.Node) -> Vector | None:
        """What a node puts out that only moves entries, if it can be told; a vector or one number, as readers take."""
        _, proto, _ = self.network.nodes.get(id(node), (None, None, {}))
        if proto is None or node.op not in MOVES or node.domain not in (None, "", "ai.onnx"):
            return None
        vector = follow(Node(proto, self.known))
        return vector if vector is not None and len(vector.shape) < 2 else None

    def _entries(self, name: str, length: int) -> tuple[Entry, ...]:
        vector = self.known.vectors.get(name)
        return (None,) * length if vector is None else vector.entries

    def _old(self, entries: tuple[Entry, ...]) -> Entries:
        """The entries that changed, as they were."""
        return {k: self.before[entry] for k, entry in enumerate(entries) if entry in self.before}

    def _with(self, tensor: gs.Tensor, entries: Entries, length: int) -> gs.Tensor:
        """A vector with the given entries, and the others of `tensor`."""
        now = [self.now.get(entry, entry) for entry in self._entries(tensor.name, length)]
        entries = {k: value for k, value in entries.items() if now[k] != value}
        if not entries:
            return tensor
        key = tensor.name, tuple(entries.items())
        if key not in self.changed:
            values = [entries.get(k, entry) for k, entry in enumerate(now)]
            if all(isinstance(value, int | float) for value in values):
                vector = self.known.vectors.get(tensor.name)
                self.changed[key] = self._constant(tensor, values[0] if vector and not vector.shape else values)
            elif tensor.name in self.joins:
                self.changed[key] = self._joined(tensor, entries)
            else:
                self.changed[key] = self._overwritten(tensor, entries, len(now))
        return self.changed[key]

    def _kind(self, name: str) -> int:
        return self.known.types.get(name, onnx.TensorProto.INT64)

    def _length(self, name: str) -> int:
        vector = self.known.vectors.get(name)
        return len(vector.entries) if vector is not None else cast(int, self.known.shapes[name][0])

    def _joined(self, tensor: gs.Tensor, entries: Entries) -> gs.Tensor:
        """The parts joined anew, with constants among them."""
        inputs, start = [], 0
        for part in self.joins[tensor.name].inputs:
            length = self._length(part.name)
            inside = {k - start: value for k, value in entries.items() if start <= k < start + length}
            inputs.append(self._with(part, inside, length))
            start += length
        return self._append("Concat", {"axis": 0}, inputs, self._variable(tensor))

    def _overwritten(self, tensor: gs.Tensor, entries: Entries, length: int) -> gs.Tensor:
        others = [0 if k in entries else 1 for k in range(length)]
        new = [entries.get(k, 0) for k in range(length)]
        masked = self._append("Mul", {}, [tensor, self._constant(tensor, others)], self._variable(tensor))
        return self._append("Add", {}, [masked, self._constant(tensor, new)], self._variable(tensor))

    def _variable(self, tensor: gs.Tensor) -> gs.Variable:
        return gs.Variable(self.weights.name(f"{tensor.name}_resized"))

    def _constant(self, tensor: gs.Tensor, values: object) -> gs.Tensor:
        kind = self._kind(tensor.name)
        array = np.asarray(values, onnx.helper.tensor_dtype_to_np_dtype(kind))
        return self.weights.add(f"{tensor.name}_resized", array)

    def _append(self, op: str, attributes: dict[str, int], inputs: list[gs.Tensor], result: gs.Tensor) -> gs.Tensor:
        self.nodes.append(gs.Node(op, self.weights.name(f"{result.name}_node"), attributes, inputs, [result]))
        return result
