"""Rules for layers with a state: LSTM, GRU and RNN, and the convolution that keeps its last inputs.

Shapes: X (steps, batch, inputs), or (batch, steps, inputs) with layout 1; W (directions, gates · hidden, inputs);
R (directions, gates · hidden, hidden); B (directions, 2 · gates · hidden), of which the first half belongs to W; states
(directions, batch, hidden); outputs with the hidden units on their last axis.

A unit whose first state is zero stays zero where its newest value is: an LSTM's cell is f · c + i · new and its output
o · tanh(c), a GRU's (1 - z) · new + z · h, whatever the other gates say.
"""

from dataclasses import dataclass

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.op import Channels, Mask, Op
from onnx_shift.onnx_pruner.rewriter import Rewriter
from onnx_shift.onnx_pruner.rules.linear import nonzero_kernels

STATES = "a state that is computed, or weights that are"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUT, WEIGHT, AGAIN, BIAS, FIRST, FIRST_CELL, PEEPHOLES = 0, 1, 2, 3, 5, 6, 7


def recurrent(op: Op) -> Effect:
    """Inputs whose columns are zero are not read; constant ones move into the bias of the gates. Hidden units go that
    stay zero, or that neither a reader nor a unit that stays reads.
    """
    inputs, units = _inputs(op), _units(op)
    pins = {i: STATES for i in op.inputs if i and op.channels(i) is not None and not (units and i in units.states)}
    reads: dict[int, Mask] = {}
    if isinstance(inputs, str):
        pins |= {INPUT: inputs}
    elif inputs is not None:
        pins, reads = {INPUT: "columns of weights other than zero", **pins}, {INPUT: inputs}
    if units is None:
        outputs: tuple[Channels | None, ...] = (None,) * len(op.output_names)
    else:
        ranks = [len(op.output_shape(o) or ()) for o in range(len(op.output_names))]
        value = np.zeros(len(units.zero))
        outputs = tuple(Channels.of(rank - 1, units.zero, value) if rank else None for rank in ranks)
    known = next((o for o, facts in enumerate(outputs) if facts is not None and op.output_names[o]), None)
    ties = [Tie.same(i, len(units.zero), known) for i in units.states] if units and known is not None else []

    def rewrite(r: Rewriter) -> None:
        keep = np.ones(_hidden(op), np.bool_) if known is None else r.keep_out(known)
        keep_in = r.keep_in(INPUT) if reads else None
        _rewrite(op, r, keep, keep_in)

    feeds = units.feeds if units and known is not None else None
    return Effect(outputs, tuple(ties), pins=pins, reads=reads, feeds=feeds, rewrite=rewrite)


def _hidden(op: Op) -> int:
    return int(op.attr("hidden_size", 0))


def _inputs(op: Op) -> Mask | str | None:
    """Which channels of the input are read; why all of them are; None where it has no channels."""
    channels, weight, bias = op.channels(INPUT), op.constant(WEIGHT), op.constant(BIAS)
    if channels is None:
        return None
    if weight is None or (bias is None and op.has(BIAS)) or channels.axis != 2 or weight.shape[2] != channels.count:
        return "steps or samples for channels, or weights that are computed"
    if any(op.constants.is_widened(op.name(i)) for i in (WEIGHT, BIAS) if op.has(i)):
        return "weights stored in a narrower type"
    return nonzero_kernels(weight.transpose(2, 0, 1)).any(axis=1) & ~channels.constant


@dataclass(frozen=True, eq=False)
class _Units:
    """Hidden units: which stay zero, which read which, and the inputs that hold first states with channels."""

    zero: Mask
    feeds: Mask
    states: tuple[int, ...]


def _units(op: Op) -> _Units | None:
    """What is known of the hidden units; None where they cannot be told apart, as weights or states are computed."""
    hidden, gates = _hidden(op), GATES[op.type]
    constant = [i for i in (WEIGHT, AGAIN, BIAS, FIRST, FIRST_CELL, PEEPHOLES) if op.has(i)]
    states = [i for i in (FIRST, FIRST_CELL) if op.has(i) and op.constant(i) is None]
    weight, again = op.constant(WEIGHT), op.constant(AGAIN)
    if weight is None or again is None or any(op.constant(i) is None for i in constant if i not in states):
        return None
    if any(op.constants.is_widened(op.name(i)) for i in constant if i not in states):
        return None
    parts = [op.channels(i) for i in states]
    if any(part is None or part.axis != 2 or part.count != hidden for part in parts) or op.attr("layout", 0):
        return None
    if again.shape[1:] != (gates * hidden, hidden):
        return None
    sides = len(again)
    reading = (again != 0).reshape(sides, gates, hidden, hidden)
    feeds = reading.any(axis=(0, 1))
    zero = _zero_units(op, reading)
    for i in (FIRST, FIRST_CELL):
        state, channels = op.constant(i), op.channels(i)
        if i in states and channels is not None:
            zero &= channels.constant & (channels.value == 0)
        elif state is not None:
            zero &= (state == 0).all(axis=1)
    while True:  # a unit that reads one that does not stay zero does not either
        fed = (reading[:, _NEW[op.type]] & ~zero[:, None, :]).any(axis=2)
        if not (zero & fed).any():
            break
        zero &= ~fed
    every = np.asarray(zero.all(axis=0))
    return _Units(every, feeds & ~every, tuple(states))


#: The gate of what is new, which alone decides whether a unit that is zero stays so.
_NEW = {"LSTM": 3, "GRU": 2, "RNN": 0}
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


def _zero_units(op: Op, reading: Mask) -> Mask:
    """Units (directions, hidden) to which neither inputs nor bias add anything, whatever units add to each other."""
    sides, gates, hidden, _ = reading.shape
    names = [str(name) for name in op.attr("activations", ())] or [*_ACTIVATIONS[op.type]] * sides
    relu = op.type == "RNN" and names == ["Relu"] * sides
    if names != [*_ACTIVATIONS[op.type]] * sides and not relu:
        return np.zeros((sides, hidden), np.bool_)
    weight, bias, channels = op.constant(WEIGHT), op.constant(BIAS), op.channels(INPUT)
    assert weight is not None
    read = (weight != 0).reshape(sides, gates, hidden, -1)[:, _NEW[op.type]]
    if channels is not None and channels.axis == 2 and channels.count == read.shape[2]:
        read = read & ~(channels.constant & (channels.value == 0))
    zero = ~read.any(axis=2)
    if bias is not None:
        own, other = (bias.reshape(sides, 2, gates, hidden)[:, k, _NEW[op.type]] for k in (0, 1))
        apart = op.type == "GRU" and op.attr("linear_before_reset", 0)  # a gate lies between the two
        total = own + other
        zero &= (own == 0) & (other == 0) if apart else total <= 0 if relu else total == 0
    return np.asarray(zero)


def _rewrite(op: Op, r: Rewriter, keep: Mask, keep_in: Mask | None) -> None:
    """Cut units, and columns of inputs; constants that go move into the bias."""
    hidden, gates = len(keep), GATES[op.type]
    weight, again, bias, channels = op.constant(WEIGHT), op.constant(AGAIN), op.constant(BIAS), op.channels(INPUT)
    assert weight is not None and again is not None
    sides = len(weight)
    if keep_in is not None and channels is not None and not keep_in.all():
        gone = ~keep_in & (channels.value != 0)
        if gone.any():
            added = weight[:, :, gone].astype(np.float64) @ channels.value[gone]
            both = np.concatenate([added, np.zeros_like(added)], axis=1)
            bias = (both if bias is None else bias + both).astype(weight.dtype)
        weight = weight[:, :, keep_in]
    by_unit = weight.reshape(sides, gates, hidden, -1)[:, :, keep]
    r.set_input(WEIGHT, np.ascontiguousarray(by_unit.reshape(sides, -1, weight.shape[2])))
    if bias is not None:
        r.set_input(BIAS, np.ascontiguousarray(bias.reshape(sides, 2 * gates, hidden)[:, :, keep].reshape(sides, -1)))
    if keep.all():
        return
    both_axes = again.reshape(sides, gates, hidden, hidden)[:, :, keep][:, :, :, keep]
    r.set_input(AGAIN, np.ascontiguousarray(both_axes.reshape(sides, -1, int(keep.sum()))))
    for i in (FIRST, FIRST_CELL):
        if (state := op.constant(i)) is not None:
            r.set_input(i, np.ascontiguousarray(state[:, :, keep]))
    if (peepholes := op.constant(PEEPHOLES)) is not None:
        r.set_input(PEEPHOLES, np.ascontiguousarray(peepholes.reshape(sides, 3, hidden)[:, :, keep].reshape(sides, -1)))
    r.node.attrs["hidden_size"] = int(keep.sum())


def causal_convolution(op: Op) -> Effect:
    """CausalConvWithState: each channel alone, behind what the state holds of earlier inputs, or zeros."""
    channels, weight, bias = op.channels(0), op.constant(1), op.constant(2)
    state = op.channels(3)
    known = weight is not None and (bias is not None or not op.has(2)) and (state is not None or not op.has(3))
    if channels is None or channels.axis != 1 or not known or weight is None or (state and state.axis != 1):
        return pin_all(op, "a convolution whose weights are computed, or whose state is an input")
    zero = channels.constant & (channels.value == 0)
    ties = [Tie.same(0, channels.count, o) for o in range(len(op.output_names))]
    if state is not None:
        zero &= state.constant & (state.value == 0)
        ties += [Tie.same(3, channels.count, o) for o in range(len(op.output_names))]
    value = np.zeros(channels.count) if bias is None else bias.astype(np.float64)
    if op.attr("activation", "none") != "none":
        value = value / (1 + np.exp(-value))
    silent = zero | (weight.reshape(channels.count, -1) == 0).all(axis=1)
    outputs = (Channels.of(1, silent, value), Channels.of(1, zero, np.zeros(channels.count)))
    operands = tuple(Operand(i, 0) for i in (1, 2) if op.has(i))
    return Effect(outputs[: len(op.output_names)], tuple(ties), operands=operands)
