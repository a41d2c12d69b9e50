"""Rules for operators that lay the same elements out anew: Reshape and its kin, Transpose, Expand, DepthToSpace.

A channel may stay whole, join other dimensions, or split; which output channel an input channel ends up in follows
from row-major order.
"""

from math import gcd, prod
from typing import cast

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Tie, pin_all
from onnx_shift.onnx_pruner.graph.vectors import Shape
from onnx_shift.onnx_pruner.op import Op
from onnx_shift.onnx_pruner.rewriter import Rewriter
from onnx_shift.onnx_pruner.rules.moving import carry, pick, through


def _aligned_groups(a: Shape, b: Shape) -> list[tuple[int, int, int, int]]:
    """Runs a[i0:i1], b[j0:j1] of equal product, from the left, as far as the dimensions are known."""
    groups: list[tuple[int, int, int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        i0, j0, x, y = i, j, a[i], b[j]
        i, j = i + 1, j + 1
        while x != y or x is None:
            if not isinstance(x, int) or not isinstance(y, int) or 0 in (x, y):
                return groups
            more, at = (a, i) if x < y else (b, j)
            if at >= len(more) or not isinstance(more[at], int):
                return groups
            if x < y:
                x, i = x * cast(int, a[i]), i + 1
            else:
                y, j = y * cast(int, b[j]), j + 1
        groups.append((i0, i, j0, j))
    return groups


def group_of(a: Shape, b: Shape, axis: int) -> tuple[int, int, int, int] | None:
    """The run of dimensions of `a` that holds `axis`, with the run of `b` that holds the same elements."""
    found = _aligned_groups(a, b)
    mirrored = [(len(a) - i1, len(a) - i0, len(b) - j1, len(b) - j0)
                for i0, i1, j0, j1 in _aligned_groups(a[::-1], b[::-1])]  # fmt: skip
    return next((g for g in (*found, *mirrored) if g[0] <= axis < g[1]), None)


def reshape(op: Op) -> Effect:
    """Reshape and Flatten: channels stay whole, join other dimensions, or split, in row-major order."""
    channels, a, b = op.channels(0), op.shape(0), op.output_shape()
    if channels is None:
        return Effect((None,))
    group = None if a is None or b is None else group_of(a, b, channels.axis)
    if a is None or b is None or group is None:
        return pin_all(op, "a Reshape whose dimensions are unknown, or that mixes channels with them")
    i0, i1, j0, j1 = group
    whole = (i1 - i0, j1 - j0) == (1, 1)  # a size that shape inference does not know may be known here
    a = tuple(channels.count if k == channels.axis else size for k, size in enumerate(a))
    b = tuple(channels.count if whole and k == j0 else size for k, size in enumerate(b))
    sizes_in, sizes_out = cast(list[int], list(a[i0:i1])), cast(list[int], list(b[j0:j1]))
    inner = prod(sizes_in[channels.axis - i0 + 1 :])
    chosen = _chosen_axis(op, sizes_out, j0, channels.count, inner)
    out_inner = prod(sizes_out[chosen + 1 :])
    every = np.arange(0, prod(sizes_in), gcd(inner, out_inner))  # between these nothing changes
    pairs = np.unique((every // inner % channels.count) * sizes_out[chosen] + every // out_inner % sizes_out[chosen])
    source, target = pairs // sizes_out[chosen], pairs % sizes_out[chosen]
    out = through(channels, j0 + chosen, sizes_out[chosen], source, target)

    def rewrite(r: Rewriter) -> None:
        if op.type == "Reshape":
            copies = out.axis == channels.axis and not op.attr("allowzero", 0) and r.kept(0) == r.kept_in(0)
            r.patch_vector(1, out.axis, r.kept(0), leave=(-1, 0) if copies else (-1,))

    return Effect((out,), (Tie(0, source, target),), rewrite=rewrite)


def _chosen_axis(op: Op, sizes: list[int], first: int, count: int, inner: int) -> int:
    """Which of several output dimensions to call the channels: whole if they stay so, else what Transpose
    leads with.
    """
    for k, size in enumerate(sizes):
        if size == count and prod(sizes[k + 1 :]) == inner:
            return k
    readers = op.node.outputs[0].outputs
    if len(readers) == 1 and readers[0].op == "Transpose" and len(readers[0].attrs.get("perm", ())) > 1:
        k = readers[0].attrs["perm"][1] - first
        if 0 <= k < len(sizes) and sizes[k] > 1:
            return int(k)
    return next((k for k, size in enumerate(sizes) if size > 1), 0)


def squeeze(op: Op) -> Effect:
    """Squeeze and Unsqueeze: dimensions of size 1 come and go around the channels."""
    channels, rank, out_shape = op.channels(0), op.rank(0), op.output_shape()
    if channels is None:
        return Effect((None,))
    if rank is None or out_shape is None:
        return pin_all(op, "unknown shape")
    axes = op.ints(1, "axes")
    if axes is None:
        axes = [k for k, size in enumerate(op.shape(0) or ()) if size == 1]
        if op.has(1) or None in (op.shape(0) or ()):
            return pin_all(op, "computed axes")
    outer = rank if op.type == "Squeeze" else len(out_shape)
    axes = sorted(a % outer for a in axes)
    if op.type == "Squeeze":
        if channels.axis in axes:
            return pin_all(op, "a squeezed channel axis")
        return Effect(
            carry(op, channels.axis - sum(a < channels.axis for a in axes)).outputs,
            (Tie.same(0, channels.count),),
            rewrite=lambda r: r.set_ints(
                1, "axes" if op.opset < 13 else None, axes
            ),  # none given: the cut must not add one
        )
    kept = [k for k in range(outer) if k not in axes]
    return carry(op, kept[channels.axis])


def transpose(op: Op) -> Effect:
    """Transpose moves the channel axis."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,))
    perm = op.attr("perm") or list(range(rank))[::-1]
    return carry(op, list(perm).index(channels.axis))


def expand(op: Op) -> Effect:
    """Expand copies channels along other axes, or one channel to many."""
    channels, rank, shape = op.channels(0), op.rank(0), op.output_shape()
    if channels is None:
        return Effect((None,))
    if rank is None or shape is None:
        return pin_all(op, "unknown shape")
    axis = channels.axis + len(shape) - rank
    if shape[axis] != channels.count:
        return pin_all(op, "one channel expanded to many")
    effect = carry(op, axis)

    def rewrite(r: Rewriter) -> None:
        length = op.size(1, 0)
        position = axis - (len(shape) - length) if isinstance(length, int) else axis
        if position >= 0:
            r.patch_vector(1, position, r.kept(0), leave=(1,))

    return Effect(effect.outputs, effect.ties, rewrite=rewrite)


def tile(op: Op) -> Effect:
    """Tile repeats all channels in turn, or along other axes."""
    channels, repeats = op.channels(0), op.ints(1)
    if channels is None:
        return Effect((None,))
    if repeats is None:
        shape = op.output_shape()
        if shape is None or shape[channels.axis] != channels.count:
            return pin_all(op, "computed repeats")
        return carry(op)
    target = np.arange(channels.count * repeats[channels.axis])
    if not len(target):
        return pin_all(op, "no repeats")
    source = target % channels.count
    return Effect((through(channels, channels.axis, len(target), source, target),), (Tie(0, source, target),))


def depth_to_space(op: Op) -> Effect:
    """DepthToSpace and SpaceToDepth: b·b channels meet in one, or one becomes b·b; by `mode` they lie apart (DCR) or
    side by side (CRD).
    """
    channels, block = op.channels(0), op.attr("blocksize") ** 2
    if channels is None:
        return Effect((None,))
    if channels.axis != 1:
        return pin_all(op, "channels on another axis than 1")
    deep, shallow = np.arange(channels.count), channels.count // block
    if op.type == "SpaceToDepth":
        deep, shallow = np.arange(channels.count * block), channels.count
    flat = deep // block if op.attr("mode", "DCR") == "CRD" else deep % shallow
    source, target, count = (deep, flat, shallow) if op.type == "DepthToSpace" else (flat, deep, len(deep))
    return Effect((through(channels, 1, count, source, target),), (Tie(0, source, target),))


def channel_shuffle(op: Op) -> Effect:
    """Our own stand-in for nodes that pick channels in another order (see `fuse` and `layouts`)."""
    channels = op.channels(0)
    if channels is None:
        return Effect((None,))
    source = np.asarray(op.attr("source"))
    if channels.axis != op.attr("axis"):
        return pin_all(op, "a channel shuffle along another axis")
    return pick(op, channels, source, channels.axis, None)
