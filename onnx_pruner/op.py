"""What a rule is given: one node with its constant inputs, and what is known of the channels of its other inputs.

A tensor has at most one channel axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.network import Array, Dimension, Network, Shape
from onnx_shift.onnx_pruner.graph.vectors import Entry

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels along `axis` of a tensor: which are constant (at every position, for every input), and
    their value.
    """

    axis: int
    constant: Mask
    value: Values

    @property
    def count(self) -> int:
        return len(self.constant)

    @staticmethod
    def varying(axis: int, count: int) -> "Channels":
        return Channels(axis, np.zeros(count, np.bool_), np.zeros(count))

    @staticmethod
    def of(axis: int, constant: Mask, value: Values) -> "Channels":
        """Channels of the given facts; a value that is not finite is not called constant."""
        constant = constant & np.isfinite(value)
        return Channels(axis, constant, np.where(constant, value, 0.0))

    def moved(self, axis: int) -> "Channels":
        return Channels(axis, self.constant, self.value)


@dataclass(frozen=True, eq=False)
class Op:
    """One node as a rule sees it: attributes, shapes, constant inputs, and the channels of its other inputs."""

    node: gs.Node
    input_names: tuple[str, ...]  # as they were: rewriting the node changes nothing here
    output_names: tuple[str, ...]
    network: Network
    constants: Constants
    known: Mapping[str, Channels | None]
    batch_norm: tuple[Values, Values] | None = None  # scale and shift folded into this node
    sever: bool = True  # whether a constant branch may be replaced by its value

    @staticmethod
    def of(
        node: gs.Node,
        network: Network,
        constants: Constants,
        known: Mapping[str, Channels | None],
        batch_norm: tuple[Values, Values] | None = None,
        sever: bool = True,
    ) -> "Op":
        inputs, outputs = (tuple(t.name for t in tensors) for tensors in (node.inputs, node.outputs))
        return Op(node, inputs, outputs, network, constants, known, batch_norm, sever)

    @property
    def output(self) -> str:
        """The name of the first output."""
        return self.output_names[0] if self.output_names else ""

    @property
    def type(self) -> str:
        return str(self.node.op)

    @property
    def opset(self) -> int:
        return self.network.opset

    @property
    def inputs(self) -> range:
        """Indices of the inputs that are present."""
        return range(len(self.input_names))

    def has(self, index: int) -> bool:
        return index < len(self.input_names) and bool(self.input_names[index])

    def name(self, index: int) -> str:
        return self.input_names[index]

    def shape(self, index: int) -> Shape | None:
        return self.network.shapes.get(self.name(index)) if self.has(index) else None

    def output_shape(self, index: int = 0) -> Shape | None:
        return self.network.shapes.get(self.output_names[index]) if index < len(self.output_names) else None

    def size(self, index: int, axis: int) -> Dimension:
        shape = self.shape(index)
        return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None

    def rank(self, index: int) -> int | None:
        shape = self.shape(index)
        return None if shape is None else len(shape)

    def channels(self, index: int) -> Channels | None:
        return self.known.get(self.name(index)) if self.has(index) else None

    def is_only_reader(self, index: int) -> bool:
        """Whether nothing else depends on an input."""
        name = self.input_names[index]
        pinned = name in self.network.captured or name in self.network.outputs
        return len(self.node.inputs[index].outputs) == 1 and not pinned

    def constant(self, index: int) -> Array | None:
        return self.constants.get(self.name(index)) if self.has(index) else None

    def attr(self, name: str, default: Any = None) -> Any:
        return self.node.attrs.get(name, default)

    def ints(self, index: int, attribute: str | None = None) -> list[int] | None:
        """A list of integers given as an attribute or, in later opsets, as a constant input; None if unknown."""
        if attribute is not None and attribute in self.node.attrs:
            value = self.node.attrs[attribute]
            return [int(v) for v in (value if isinstance(value, Sequence) else [value])]
        array = self.constant(index)
        return None if array is None else [int(v) for v in array.reshape(-1)]

    def entries(self, index: int, attribute: str | None = None) -> list[Entry] | None:
        """The like of `ints` where some entries are worked out at run time: symbols, or None."""
        found = self.ints(index, attribute)
        if found is None and self.has(index) and self.name(index) in self.network.vectors:
            return list(self.network.vectors[self.name(index)].entries)
        return None if found is None else list(found)
