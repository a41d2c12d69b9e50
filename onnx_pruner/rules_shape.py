"""Rules for operators that move elements: Concat, Split, Slice, Gather, Pad, Reshape and its kin, pooling, resizing.

Each says which output channel comes from which input channel; where the node itself names positions or sizes, a
rewrite updates them.
"""

from math import prod
from typing import cast

import numpy as np

from onnx_shift.onnx_pruner.channels import (
    Channels,
    Effect,
    Index,
    Mask,
    Op,
    Operand,
    Tie,
    Values,
    pin_all,
)
from onnx_shift.onnx_pruner.graph import Shape
from onnx_shift.onnx_pruner.rewriter import Rewriter
from onnx_shift.onnx_pruner.rules_elementwise import per_channel

UNCHANGED, ZERO_ONLY, NONE = "unchanged", "zero only", "none"  # which constants an operator lets through


def through(
    channels: Channels, axis: int, count: int, source: Index, target: Index, lets: str = UNCHANGED
) -> Channels:
    """Output channels on `axis` fed by `source[k]` → `target[k]`: constant where all sources hold one same value."""
    if lets == NONE:
        return Channels.varying(axis, count)
    fed = channels.constant[source] & ((channels.value[source] == 0) | (lets == UNCHANGED))
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, target, channels.value[source])
    np.maximum.at(high, target, channels.value[source])
    varies = np.zeros(count, np.bool_)
    varies[target[~fed]] = True
    return Channels.of(axis, ~varies & (low == high), low)


def carry(op: Op, axis: int | None = None, lets: str = UNCHANGED, index: int = 0) -> Effect:
    """Each output carries the channels of input `index` unchanged in number and order, on `axis`."""
    channels = op.channels(index)
    outputs = len(op.output_names)
    if channels is None:
        return Effect((None,) * outputs)
    out = channels.moved(channels.axis if axis is None else axis)
    if lets != UNCHANGED:
        constant = channels.constant & (channels.value == 0) & (lets == ZERO_ONLY)
        out = Channels.of(out.axis, constant, channels.value)
    return Effect((out,) * outputs, tuple(Tie.same(index, channels.count, o) for o in range(outputs)))


# --- pooling and resizing --------------------------------------------------------------------------------------


def pooling(op: Op) -> Effect:
    """Pooling works on each channel alone; a border of zeros that is counted in lets only the constant 0 through."""
    channels = op.channels(0)
    if channels is not None and channels.axis != 1:
        return pin_all(op, "channels on a pooled axis")
    if any(t.name and (len(t.outputs) or t.name in op.network.outputs) for t in op.node.outputs[1:]):
        return pin_all(op, "pooling indices that are read")
    padded = (
        any(op.attr("pads", ()))
        or op.attr("ceil_mode", 0)
        or op.attr("auto_pad", "NOTSET").startswith("SAME")
    )
    counted = op.type == "AveragePool" and op.attr("count_include_pad", 0) and padded
    effect = carry(op, lets=ZERO_ONLY if counted or "Lp" in op.type else UNCHANGED)
    return Effect(effect.outputs, effect.ties[:1])


def resize(op: Op) -> Effect:
    """Resize and Upsample of other axes than the channels'."""
    channels, shape = op.channels(0), op.output_shape()
    if channels is None:
        return Effect((None,))
    crop = op.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    ratio = op.attr("keep_aspect_ratio_policy", "stretch") != "stretch" and "axes" not in op.node.attrs
    scales = None if op.type == "Upsample" and op.opset < 9 else op.constant(1 if op.opset < 11 else 2)
    scaled = scales is not None and scales.size > channels.axis and "axes" not in op.node.attrs
    same = shape is not None and shape[channels.axis] == channels.count
    if (
        crop
        or ratio
        or not same
        or (scaled and scales is not None and scales.reshape(-1)[channels.axis] != 1)
    ):
        return pin_all(op, "resizing along the channels, or cropping")
    axes = op.attr("axes")
    position = channels.axis if axes is None else next(
        (k for k, a in enumerate(axes) if a % len(shape or ()) == channels.axis), None)  # fmt: skip
    effect = carry(op)

    def rewrite(r: Rewriter) -> None:
        if op.has(3) and position is not None:
            r.patch_vector(3, position, r.kept(0))

    return Effect(effect.outputs, effect.ties, rewrite=rewrite)


def sampling(op: Op) -> Effect:
    """GridSample, RoiAlign, MaxRoiPool: positions sampled in each channel alone, with zeros outside."""
    channels = op.channels(0)
    pins = {i: "positions to sample at" for i in op.inputs if i and op.channels(i) is not None}
    if channels is not None and channels.axis != 1:
        return pin_all(op, "channels on a sampled axis")
    effect = carry(op, lets=ZERO_ONLY)
    return Effect(effect.outputs, effect.ties, pins=pins)


# --- joining and taking apart ----------------------------------------------------------------------------------


def concat(op: Op) -> Effect:
    """Concat on the channel axis joins channels; on another axis it ties them."""
    shape = op.output_shape()
    carriers = [c for i in op.inputs if (c := op.channels(i)) is not None]
    if not carriers or shape is None:
        return Effect((None,)) if not carriers else pin_all(op, "unknown shape")
    axis = op.attr("axis", 1) % len(shape)
    if any(c.axis == axis for c in carriers):
        return _join(op, axis)
    if len({(c.axis, c.count) for c in carriers}) != 1:
        return pin_all(op, "operands whose channels lie on different axes")
    own, count = carriers[0].axis, carriers[0].count
    ties, operands, pins = [], [], {}
    constant, value = np.ones(count, np.bool_), None
    for i in op.inputs:
        channels = op.channels(i)
        array = op.constant(i) if channels is None else None
        if channels is not None:
            ties.append(Tie.same(i, count))
            fact = channels.constant, channels.value
        elif array is not None:
            operands.append(Operand(i, own))
            fact = per_channel(array, own - array.ndim, count)
        else:
            pins = {
                j: f"joins {op.name(i)!r}, whose channels cannot be told apart"
                for j in op.inputs
                if op.channels(j)
            }
            fact = np.zeros(count, np.bool_), np.zeros(count)
        constant = constant & fact[0] & (True if value is None else fact[1] == value)
        value = fact[1]
    out = Channels.of(own, constant, np.zeros(count) if value is None else value)
    return Effect((out,), tuple(ties), operands=tuple(operands), pins=pins)


def _join(op: Op, axis: int) -> Effect:
    start, ties, operands, pins = 0, [], [], {}
    facts: list[tuple[Mask, Values]] = []
    for i in op.inputs:
        channels, size, array = op.channels(i), op.size(i, axis), op.constant(i)
        if not isinstance(size, int):
            return pin_all(op, "unknown number of channels")
        if channels is not None and channels.axis == axis:
            every = np.arange(size)
            ties.append(Tie(i, every, start + every))
            facts.append((channels.constant, channels.value))
        elif array is not None:
            operands.append(Operand(i, axis, start=start))
            facts.append(per_channel(array, axis - array.ndim, size))
        else:
            if channels is not None:
                pins[i] = "joined along another axis than its channels"
            pins[-1 - i] = f"from {op.name(i)!r}, whose channels cannot be told apart"
            facts.append((np.zeros(size, np.bool_), np.zeros(size)))
        start += size
    blocks = {start_of: reason for start_of, reason in pins.items() if start_of < 0}
    out = Channels.of(axis, np.concatenate([f[0] for f in facts]), np.concatenate([f[1] for f in facts]))
    whole = _segments(op, axis, [-1 - k for k in blocks])
    return Effect((out,), tuple(ties), operands=tuple(operands), pins={k: v for k, v in pins.items() if k >= 0},
                  held=(whole, "channels joined from a tensor whose channels cannot be told apart"))  # fmt: skip


def _segments(op: Op, axis: int, inputs: list[int]) -> Mask:
    sizes = [cast(int, op.size(i, axis)) for i in op.inputs]
    return np.repeat([i in inputs for i in op.inputs], sizes)


def split(op: Op) -> Effect:
    """Split on the channel axis hands each output its share; on another axis it ties them."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,) * len(op.output_names)) if channels is None else pin_all(op, "unknown shape")
    axis = op.attr("axis", 0) % rank
    if axis != channels.axis:
        return carry(op)
    sizes = [(op.output_shape(o) or (None,) * rank)[axis] for o in range(len(op.output_names))]
    if any(not isinstance(size, int) for size in sizes) or sum(cast(list[int], sizes)) != channels.count:
        return pin_all(op, "unknown sizes of a Split")
    bounds = np.cumsum([0, *cast(list[int], sizes)])
    ties, outputs = [], []
    for o in range(len(sizes)):
        source = np.arange(bounds[o], bounds[o + 1])
        ties.append(Tie(0, source, source - bounds[o], o))
        outputs.append(Channels(axis, channels.constant[source], channels.value[source]))

    def rewrite(r: Rewriter) -> None:
        r.node.attrs.pop("num_outputs", None)
        r.set_ints(1, "split" if op.opset < 13 else None, [r.kept(o) for o in range(len(sizes))])

    return Effect(tuple(outputs), tuple(ties), rewrite=rewrite)


def slice_(op: Op) -> Effect:
    """Slice with constant bounds along the channels picks some; along other axes it keeps them all."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,))
    starts, ends = op.ints(1, "starts"), op.ints(2, "ends")
    axes = op.ints(3, "axes") if op.has(3) or op.attr("axes") is not None else list(range(len(starts or ())))
    steps = op.ints(4) if op.has(4) else [1] * len(starts or ())
    if axes is None:
        return pin_all(op, "slicing along computed axes")
    position = next((k for k, a in enumerate(axes) if a % rank == channels.axis), None)
    if position is None:
        return carry(op)
    if starts is None or ends is None or steps is None:
        return pin_all(op, "slicing the channels at computed bounds")
    source = np.arange(channels.count)[_python_slice(starts[position], ends[position], steps[position])]
    if not len(source):
        return pin_all(op, "an empty slice")
    bounds = starts, ends, steps, axes

    def rewrite(r: Rewriter) -> None:
        picked = r.positions(0)[source[r.keep_out(0)]]
        step = int(picked[1] - picked[0]) if len(picked) > 1 else 1
        first, last = int(picked[0]), int(picked[-1])
        if np.array_equal(picked, first + step * np.arange(len(picked))) and step > 0:
            _set_bounds(r, op, bounds, position, (first, last + 1, step))
        else:
            _set_bounds(r, op, bounds, position, (0, int(np.iinfo(np.int64).max), 1))
            r.gather_output(picked, channels.axis)

    return _pick(op, channels, source, channels.axis, rewrite)


def _python_slice(start: int, end: int, step: int) -> slice:
    return slice(start, None if step < 0 and end < -(1 << 30) else end, step)


def _set_bounds(
    r: Rewriter, op: Op, bounds: tuple[list[int], ...], k: int, new: tuple[int, int, int]
) -> None:
    starts, ends, steps, axes = (list(values) for values in bounds)
    starts[k], ends[k], steps[k] = new
    if op.opset < 10:
        r.node.attrs.update(starts=starts, ends=ends, axes=axes)
        return
    for index, values in enumerate((starts, ends, axes, steps), start=1):
        r.set_ints(index, None, values)


def _pick(op: Op, channels: Channels, source: Index, axis: int, rewrite: "object") -> Effect:
    target = np.arange(len(source))
    out = Channels(axis, channels.constant[source], channels.value[source])
    return Effect((out,), (Tie(0, source, target),), rewrite=rewrite)  # type: ignore[arg-type]


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
    if indices is None or indices.ndim != 1 or not indices.size:
        return pin_all(op, "gathering channels at computed indices, or a single one")
    source = np.arange(channels.count)[indices]

    def rewrite(r: Rewriter) -> None:
        r.set_input(1, r.positions(0)[source[r.keep_out(0)]].astype(indices.dtype))

    return _pick(op, channels, source, axis, rewrite)


def pad(op: Op) -> Effect:
    """Pad with a constant adds constant channels; along other axes a channel stays constant if it equals the border."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,))
    pads = op.ints(1, "pads")
    axes = [a % rank for a in (op.ints(3) or [])] if op.has(3) else list(range(rank))
    fill = op.constant(2) if op.has(2) else np.asarray(op.attr("value", 0.0))
    mode = op.attr("mode", "constant")
    if pads is None or len(pads) != 2 * len(axes) or (op.has(3) and op.ints(3) is None):
        return (
            carry(op, lets=NONE)
            if op.has(3) and channels.axis not in axes
            else pin_all(op, "computed padding")
        )
    at = axes.index(channels.axis) if channels.axis in axes else None
    before, after = (0, 0) if at is None else (pads[at], pads[at + len(axes)])
    if min(before, after) < 0 or (mode != "constant" and before + after > 0):
        return pin_all(op, f"padding the channels by {mode!r}, or cropping them")
    value = float(np.asarray(fill).reshape(-1)[0]) if fill is not None and np.asarray(fill).size else 0.0
    spatial = any(pads[k] for k, _ in enumerate(pads) if at is None or k not in (at, at + len(axes)))
    constant = channels.constant
    if mode == "constant" and spatial:
        constant = constant & (channels.value == value) & (fill is not None)
    ring = np.ones(before, np.bool_), np.ones(after, np.bool_)
    known = fill is not None
    out = Channels.of(channels.axis, np.concatenate([ring[0] & known, constant, ring[1] & known]),
                      np.concatenate([np.full(before, value), channels.value, np.full(after, value)]))  # fmt: skip

    def rewrite(r: Rewriter) -> None:
        if at is not None:
            keep = r.keep_out(0)
            new = list(pads)
            new[at] = int(keep[:before].sum())
            new[at + len(axes)] = int(keep[len(keep) - after :].sum())
            r.set_ints(1, "pads" if "pads" in op.node.attrs else None, new)

    every = np.arange(channels.count)
    return Effect((out,), (Tie(0, every, before + every),), rewrite=rewrite)


# --- reshaping -------------------------------------------------------------------------------------------------


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
    every = np.arange(prod(sizes_in))
    pairs = np.unique(
        (every // inner % channels.count) * sizes_out[chosen] + every // out_inner % sizes_out[chosen]
    )
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
    """DepthToSpace and SpaceToDepth: b·b channels meet in one, or one becomes b·b."""
    channels, block = op.channels(0), op.attr("blocksize") ** 2
    if channels is None:
        return Effect((None,))
    if channels.axis != 1:
        return pin_all(op, "channels on another axis than 1")
    if op.type == "DepthToSpace":
        source, count = np.arange(channels.count), channels.count // block
        target = source // block if op.attr("mode", "DCR") == "CRD" else source % count
    else:
        count = channels.count * block
        target = np.arange(count)
        source = target % channels.count
    return Effect((through(channels, 1, count, source, target),), (Tie(0, source, target),))


def channel_shuffle(op: Op) -> Effect:
    """Our own stand-in for Reshape–Transpose–Reshape that permutes channels (see `fuse`)."""
    channels = op.channels(0)
    if channels is None:
        return Effect((None,))
    source = np.asarray(op.attr("source"))
    if channels.axis != op.attr("axis") or len(source) != channels.count:
        return pin_all(op, "a channel shuffle along another axis")
    return _pick(op, channels, source, channels.axis, None)
