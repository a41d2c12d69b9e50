"""Rules for operators that pick elements by indices: Gather and its kin, Compress, ReverseSequence, TensorScatter.

Constant indices along the channels pick channels; along other axes channels pass.
"""

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Operand, pin_all
from onnx_shift.onnx_pruner.op import Index, Op
from onnx_shift.onnx_pruner.rewriter import Rewriter
from onnx_shift.onnx_pruner.rules.moving import ZERO_ONLY, alongside, carry, pick


def only(op: Op, read: Index, index: int, rewritten: "object") -> Effect:
    """Some channels are read, without making channels of the output: `rewritten` tells, once others are cut, where."""
    channels = op.channels(0)
    assert channels is not None
    needed = np.zeros(channels.count, np.bool_)
    needed[read.reshape(-1)] = True

    def rewrite(r: Rewriter) -> None:
        r.set_input(index, rewritten(r.positions(0)))  # type: ignore[operator]

    return Effect((None,) * len(op.output_names), pins={0: "channels that indices pick"}, reads={0: needed},
                  rewrite=rewrite)  # fmt: skip


def gather(op: Op) -> Effect:
    """Gather along the channels with constant indices picks them; along another axis it keeps them all."""
    channels, rank, indices = op.channels(0), op.rank(0), op.constant(1)
    pins = {1: "indices"} if op.channels(1) is not None else {}
    if channels is None or rank is None:
        return Effect((None,), pins=pins)
    axis, added = op.attr("axis", 0) % rank, op.rank(1)
    if axis != channels.axis:
        if added is None:
            return pin_all(op, "indices of unknown shape")
        effect = carry(op, channels.axis + (added - 1 if axis < channels.axis else 0))
        return Effect(effect.outputs, effect.ties, pins=pins)
    if indices is None or not indices.size:
        return pin_all(op, "gathering channels at computed indices")
    source = np.arange(channels.count)[indices]
    if indices.ndim != 1:
        return only(op, source, 1, lambda positions: positions[source].astype(indices.dtype))

    def rewrite(r: Rewriter) -> None:
        r.set_input(1, r.positions(0)[source[r.keep_out(0)]].astype(indices.dtype))

    return pick(op, channels, source, axis, rewrite)


def gather_elements(op: Op) -> Effect:
    """GatherElements along another axis than the channels', by constant indices that hold an entry for each of them."""
    channels, rank, indices = op.channels(0), op.rank(0), op.constant(1)
    if channels is None or rank is None:
        return pin_all(op, "indices")
    if indices is None:
        return pin_all(op, "gathering elements at computed indices")
    if op.attr("axis", 0) % rank != channels.axis:
        if indices.shape[channels.axis] != channels.count:
            return pin_all(op, "indices for some of the channels")
        effect = carry(op)
        return Effect(effect.outputs, effect.ties, operands=(Operand(1, channels.axis),))
    source = np.arange(channels.count)[indices]
    return only(op, source, 1, lambda positions: positions[source].astype(indices.dtype))


def gather_nd(op: Op) -> Effect:
    """GatherND: channels on an axis that constant indices pick from, or on one that they leave alone."""
    channels, rank, shape = op.channels(0), op.rank(0), op.shape(1)
    batch, indices = op.attr("batch_dims", 0), op.constant(1)
    if channels is None or rank is None or shape is None or not isinstance(shape[-1], int):
        return pin_all(op, "indices of unknown shape")
    first, behind = channels.axis - batch, channels.axis - batch - shape[-1]
    if behind >= 0:
        effect = carry(op, len(shape) - 1 + behind)
        pins = {1: "indices"} if op.channels(1) is not None else {}
        return Effect(effect.outputs, effect.ties, pins=pins)
    if first < 0 or indices is None or not indices.size:
        return pin_all(op, "gathering channels at computed indices")
    source = np.arange(channels.count)[indices[..., first]]
    if indices.shape[1:] == (1,):

        def rewrite(r: Rewriter) -> None:
            r.set_input(1, r.positions(0)[source[r.keep_out(0)]].astype(indices.dtype)[:, None])

        return pick(op, channels, source, 0, rewrite)

    def moved(positions: Index) -> Index:
        new = indices.copy()
        new[..., first] = positions[source]
        return new

    return only(op, source, 1, moved)


def compress(op: Op) -> Effect:
    """Compress by a constant condition picks channels, or passes them along another axis."""
    channels, rank, condition = op.channels(0), op.rank(0), op.constant(1)
    if channels is None or rank is None:
        return pin_all(op, "a condition")
    if "axis" in op.node.attrs and op.attr("axis") % rank != channels.axis and op.channels(1) is None:
        return carry(op)
    if condition is None or "axis" not in op.node.attrs or not condition.any():
        return pin_all(op, "a computed condition, or on all elements")
    source = np.nonzero(condition)[0]

    def rewrite(r: Rewriter) -> None:
        chosen = np.zeros(r.kept_in(0), np.bool_)
        chosen[r.positions(0)[source[r.keep_out(0)]]] = True
        r.set_input(1, chosen)

    return pick(op, channels, source, channels.axis, rewrite)


def reverse_sequence(op: Op) -> Effect:
    """ReverseSequence turns the order along one axis, by another."""
    channels = op.channels(0)
    if channels is not None and channels.axis in (op.attr("batch_axis", 1), op.attr("time_axis", 0)):
        return pin_all(op, "ReverseSequence along the channels")
    effect = carry(op)
    pins = {1: "lengths"} if op.channels(1) is not None else {}
    return Effect(effect.outputs, effect.ties, pins=pins)


def tensor_scatter(op: Op) -> Effect:
    """TensorScatter writes into a cache along one axis, at places per sample; along others channels pass."""
    rank = op.rank(0) or op.rank(1)
    carriers = [c for i in (0, 1) if (c := op.channels(i)) is not None]
    if not carriers or rank is None:
        return pin_all(op, "unknown shape")
    if any(c.axis in (0, op.attr("axis", -2) % rank) for c in carriers) or len({c.axis for c in carriers}) > 1:
        return pin_all(op, "TensorScatter along the channels")
    return alongside(op, range(2), carriers[0])


def triangle(op: Op) -> Effect:
    """Trilu writes zeros into the last two axes."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,))
    if channels.axis >= rank - 2:
        return pin_all(op, "Trilu along the channels")
    return carry(op, lets=ZERO_ONLY)


def crop_and_pad(op: Op) -> Effect:
    """CenterCropPad of other axes than the channels'; what it pads is zero."""
    channels, rank, shape = op.channels(0), op.rank(0), op.output_shape()
    if channels is None or rank is None:
        return Effect((None,))
    axes = [axis % rank for axis in op.attr("axes", range(rank))]
    if channels.axis in axes and (shape is None or shape[channels.axis] != channels.count):
        return pin_all(op, "CenterCropPad along the channels")
    effect = carry(op, lets=ZERO_ONLY)

    def rewrite(r: Rewriter) -> None:
        if channels.axis in axes:
            r.patch_vector(1, axes.index(channels.axis), r.kept(0))

    return Effect(effect.outputs, effect.ties, rewrite=rewrite)
