"""Convolutions that read or make few of a stream's channels: narrower weights and a Gather, where that pays.

A residual stream keeps a channel for as long as any block needs it. A convolution that does not read it multiplies it
by zeros, and one that adds nothing to it makes zeros: the first may pick what it reads, the second spread what it
makes, one channel of zeros standing for all of them. Whether that pays a target's table knows.
"""

import math
from collections import Counter
from dataclasses import replace

import numpy as np

from onnx_shift.onnx_pruner.analysis import Analysis
from onnx_shift.onnx_pruner.effect import Linear
from onnx_shift.onnx_pruner.layers import is_uniform, part
from onnx_shift.onnx_pruner.op import Index, Mask, Op
from onnx_shift.onnx_pruner.plan import Narrow, Plan, measured_layer, side
from onnx_shift.onnx_pruner.target import MOSTLY_ZERO, Fit, Layer, Table

_MEASURED_TAPS = (1, 9)  # 1x1, and 3x3 or larger
_SAMPLE = 8  # outputs that may tell that nearly all inputs are read


def with_narrow_layers(analysis: Analysis, plan: Plan, fit: Fit) -> Plan:
    """The plan with the convolutions that are to read or make fewer channels than their tensors keep."""
    if fit.table is None or not fit.table.knows_gathers or fit.quantised:
        return plan
    layers = [
        (number, op, effect.linear)
        for number, (op, effect) in enumerate(zip(analysis.ops, analysis.effects, strict=True))
        if effect.linear is not None
    ]
    readers = Counter(op.constants.root(op.name(linear.weight)) for _, op, linear in layers)
    narrow: dict[str, Narrow] = {}
    for number, op, linear in layers:
        plain = op.type == "Conv" and linear.groups == 1 and linear.plain_weight
        alone = readers[op.constants.root(op.name(linear.weight))] == 1
        if not plain or not alone or number in analysis.dead or not plan.keep[op.output].any():
            continue
        layer = measured_layer(op, linear, fit.quantised)
        taps = math.prod(op.constants.shape(op.name(linear.weight))[2:])
        if layer is not None and (taps == _MEASURED_TAPS[0] or taps >= _MEASURED_TAPS[1]):
            found = _narrowed(analysis, plan, fit.table, op, linear, layer)
            narrow |= {op.output: found} if found is not None else {}
    return replace(plan, narrow=narrow)


def _narrowed(analysis: Analysis, plan: Plan, table: Table, op: Op, linear: Linear, layer: Layer) -> Narrow | None:
    keep_out, facts = plan.keep[op.output], analysis.channels[op.output]
    keep_in = plan.keep.get(op.name(linear.input), np.ones(linear.kernel.shape[2], np.bool_))
    zero = keep_out & facts.constant & (facts.value == 0)
    zeros, made, whole = int(zero.sum()), int(keep_out.sum()), int(keep_in.sum())
    count = table.spread(layer, side(op.output_shape()), whole, made, made - max(zeros - 1, 0))
    outputs = keep_out if count == made else _first(keep_out & ~zero, keep_out, count)
    rows = np.nonzero(outputs)[0]
    for some in (rows[:_SAMPLE], rows):  # where it does not pay with what a few outputs read, not all need be looked at
        read = _read(plan, op, linear, some) & keep_in
        count = table.picked(layer, side(op.shape(linear.input)), whole, len(rows), int(read.sum()))
        if count == whole:
            break
    inputs = keep_in if count == whole else _first(read, keep_in, count)
    if inputs.sum() == whole and outputs.sum() == made:
        return None
    if not _runs_dense(op, linear, inputs, keep_out & ~zero):
        return None
    places = np.cumsum(outputs) - 1
    return Narrow(inputs, outputs, np.where(outputs, places, places[np.argmax(zero & outputs)])[keep_out])


def _read(plan: Plan, op: Op, linear: Linear, outputs: Index) -> Mask:
    """The inputs that some of the outputs read, and the one that stands for others."""
    read: Mask = linear.kernel[0][outputs].any(axis=0)
    standing = plan.representative.get(op.name(linear.input))
    if standing is not None:
        read[standing] = True
    return read


def _first(needed: Mask, keep: Mask, count: int) -> Mask:
    """What is needed and the first of the others that stay, `count` in all."""
    others = keep & ~needed
    return np.asarray(needed | (others & (np.cumsum(others) <= count - needed.sum())))


def _runs_dense(op: Op, linear: Linear, inputs: Mask, outputs: Mask) -> bool:
    """Whether a layer computes in float32 and is not mostly zeros among these inputs and outputs: sparse kernels pass
    over zeros without a Gather.
    """
    weight = op.constant(linear.weight)
    if weight is None or weight.dtype != np.float32 or is_uniform(weight) or not outputs.any():
        return False
    left = part(linear, weight, inputs, outputs)
    return bool(np.count_nonzero(left) > (1 - MOSTLY_ZERO) * left.size)
