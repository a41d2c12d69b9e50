"""What a rule answers: what an operator does to the channels of its tensors.

A rule (see `rules`) looks at one operator and returns an `Effect` made of these parts:

- `Tie`: output channel `target[k]` is computed from input channel `source[k]`; both are cut together or not at all;
- `Linear`: inputs are multiplied by constant weights; inputs and outputs are cut independently;
- `Operand`: a constant input holds one entry per channel, and is sliced with them;
- `pins`: the operator needs all channels of an input, and why; or only those that `reads` names.

A rule never edits; `Effect.rewrite` says how the node itself changes once channels are cut, and only `apply` runs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from onnx_shift.onnx_pruner.graph.network import Array
from onnx_shift.onnx_pruner.op import Channels, Index, Mask, Op, Values
from onnx_shift.onnx_pruner.rewriter import Rewriter


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
    layout: tuple[int, ...] = ()  # the order of the weight's axes that puts inputs and outputs first, if they are not
    trailing: int = 0  # axes behind that of the outputs, which a bias added to them must spread over
    gain: float = 1.0  # Gemm's alpha
    bias_gain: float = 1.0  # Gemm's beta
    step: Values | None = None  # of a quantised bias, per output
    whole: Mask | None = None  # constant inputs that add a whole number of steps to every output

    @property
    def folds(self) -> Mask:
        """Which inputs, if they are constant, may move into the bias."""
        if self.whole is not None and not self.padded:
            return self.whole
        inputs = self.groups * self.kernel.shape[2]
        return np.broadcast_to(np.asarray(self.plain_bias and not self.padded), inputs)

    @property
    def merges(self) -> bool:
        """Whether another constant input can stand for one that cannot move into the bias."""
        return (self.padded or not self.plain_bias) and self.groups == 1 and self.plain_weight

    @property
    def groups(self) -> int:
        return int(self.kernel.shape[0])

    def view(self, weight: Array) -> Array:
        """A view of the weight with inputs and outputs on its first two axes."""
        return weight.transpose(self.layout) if self.layout else weight


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
    reads: Mapping[int, Mask] = field(default_factory=dict)
    held: tuple[Mask, str] | None = None  # channels of output 0 that must stay, and why
    feeds: Mask | None = None  # channel k of all outputs is one unit of a state; unit i reads unit j where feeds[i, j]
    together: Index | None = None  # for each channel of output 0 one that stays or goes with it
    joins: bool = False  # does without an input that has no channels left
    rewrite: Callable[[Rewriter], None] | None = None


Rule = Callable[[Op], Effect]


def pin_all(op: Op, reason: str) -> Effect:
    """The operator needs every channel of every input, and its outputs have no channels that could be cut."""
    outputs: tuple[Channels | None, ...] = (None,) * len(op.output_names)
    return Effect(outputs, pins={i: reason for i in op.inputs if op.channels(i) is not None})
