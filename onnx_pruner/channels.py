"""The vocabulary of the analysis: what is known of a tensor's channels, and what an operator does to them.

A tensor has at most one channel axis. A rule (see `rules`) looks at one operator and returns an `Effect` made
of these parts:

- `Tie`: output channel `target[k]` is computed from input channel `source[k]`; both are cut together or not at all;
- `Linear`: inputs are multiplied by constant weights; inputs and outputs are cut independently;
- `Operand`: a constant input holds one entry per channel, and is sliced with them;
- `pins`: the operator needs all channels of an input, and why.

A rule never edits; `Effect.rewrite` says how the node itself changes once channels are cut, and only `apply` runs it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_shift.onnx_pruner.graph import Array, Dimension, Network, Shape
from onnx_shift.onnx_pruner.vectors import Entry

if TYPE_CHECKING:
    from onnx_shift.onnx_pruner.constants import Constants
    from onnx_shift.onnx_pruner.rewriter import Rewriter

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
class Tie:
    """Channel `target[k]` of output `output` is computed from channel `source[k]` of input `input`."""

    input: int
    source: Index
    target: Index
    output: int = 0

    @staticmethod
    def same(index: int, count: int, output: int = 0) -> "Tie":
        every = np.arange(count)
        return Tie(index, every, every, output)


@dataclass(frozen=True, eq=False)
class Linear:
    """The node multiplies input channels by constant weights and adds a bias.

    `kernel[g, o, i]` says whether group g has a non-zero weight from its input i to its output o. `weight` is the
    index of the weight input; `input_first` whether inputs come before outputs on its first two axes. `padded`:
    a constant input channel other than zero is not constant at the border, so it cannot move into the bias.
    `scale` and `shift` per output come from a BatchNormalization that was folded in.
    """

    input: int
    weight: int
    bias: int | None
    kernel: Mask
    input_first: bool
    padded: bool
    plain_weight: bool = True  # may be rewritten: a quantised one is only sliced
    plain_bias: bool = True  # likewise
    scale: Values | None = None
    shift: Values | None = None
    gain: float = 1.0  # Gemm's alpha
    bias_gain: float = 1.0  # Gemm's beta

    @property
    def folds(self) -> bool:
        """Whether a constant input may move into the bias."""
        return self.plain_bias and not self.padded

    @property
    def merges(self) -> bool:
        """Whether another constant input can stand for one that cannot move into the bias."""
        return not self.folds and self.groups == 1 and self.plain_weight

    @property
    def groups(self) -> int:
        return int(self.kernel.shape[0])


@dataclass(frozen=True, eq=False)
class Operand:
    """Constant input `index` holds an entry per channel of output `output`, from channel `start` on, along `axis`.

    `array`, where given, takes the place of the input: a whole branch that turned out constant.
    """

    index: int
    axis: int
    output: int = 0
    array: Array | None = None
    start: int = 0


@dataclass(frozen=True, eq=False)
class Effect:
    """What an operator does to channels; see the module's description."""

    outputs: tuple[Channels | None, ...] = ()
    ties: tuple[Tie, ...] = ()
    linear: Linear | None = None
    operands: tuple[Operand, ...] = ()
    pins: Mapping[int, str] = field(default_factory=dict)
    held: tuple[Mask, str] | None = None  # channels of output 0 that must stay, and why
    joins: bool = False  # does without an input that has no channels left
    rewrite: "Callable[[Rewriter], None] | None" = None


Rule = Callable[["Op"], Effect]


@dataclass(frozen=True, eq=False)
class Op:
    """One node as a rule sees it: attributes, shapes, constant inputs, and the channels of its other inputs."""

    node: gs.Node
    input_names: tuple[str, ...]  # as they were: rewriting the node changes nothing here
    output_names: tuple[str, ...]
    network: Network
    constants: "Constants"
    known: Mapping[str, Channels | None]
    batch_norm: tuple[Values, Values] | None = None  # scale and shift folded into this node
    sever: bool = True  # whether a constant branch may be replaced by its value

    @staticmethod
    def of(
        node: gs.Node,
        network: Network,
        constants: "Constants",
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


def pin_all(op: Op, reason: str) -> Effect:
    """The operator needs every channel of every input, and its outputs have no channels that could be cut."""
    outputs: tuple[Channels | None, ...] = (None,) * len(op.output_names)
    return Effect(outputs, pins={i: reason for i in op.inputs if op.channels(i) is not None})
