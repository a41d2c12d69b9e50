"""Rules for layers with a state: LSTM, GRU and RNN, and the convolution that keeps its last inputs.

Shapes: X (steps, batch, inputs), or (batch, steps, inputs) with layout 1; W (directions, gates · hidden, inputs);
B (directions, 2 · gates · hidden), of which the first half belongs to W.
"""

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.op import Channels, Op
from onnx_shift.onnx_pruner.rewriter import Rewriter
from onnx_shift.onnx_pruner.rules.linear import nonzero_kernels

STATES = "hidden states stay as they are"


def recurrent(op: Op) -> Effect:
    """Inputs whose columns are zero are not read; constant ones move into the bias of the gates."""
    outputs = (None,) * len(op.output_names)
    channels, weight, bias = op.channels(0), op.constant(1), op.constant(3)
    pins = {i: STATES for i in op.inputs if i and op.channels(i) is not None}
    if channels is None:
        return Effect(outputs, pins=pins)
    plain = weight is not None and (bias is not None or not op.has(3))
    if not plain or weight is None or channels.axis != 2 or weight.shape[2] != channels.count:
        return pin_all(op, "steps or samples for channels, or weights that are computed")
    if any(op.constants.is_widened(op.name(i)) for i in (1, 3) if op.has(i)):
        return pin_all(op, "weights stored in a narrower type")
    read = nonzero_kernels(weight.transpose(2, 0, 1)).any(axis=1) & ~channels.constant

    def rewrite(r: Rewriter) -> None:
        keep = r.keep_in(0)
        gone = ~keep & (channels.value != 0)
        r.set_input(1, np.ascontiguousarray(weight[:, :, keep]))
        if gone.any():
            added = weight[:, :, gone].astype(np.float64) @ channels.value[gone]
            both = np.concatenate([added, np.zeros_like(added)], axis=1)
            r.set_input(3, (both if bias is None else bias + both).astype(weight.dtype))

    return Effect(outputs, pins={0: "columns of weights other than zero", **pins}, reads={0: read}, rewrite=rewrite)


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
