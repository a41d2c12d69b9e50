"""Rules for operators that move elements: Concat, Split, Slice, Gather, Pad, pooling, resizing.

Each says which output channel comes from which input channel; where the node itself names positions or sizes, a
rewrite updates them.
"""

from collections.abc import Iterable
from typing import cast

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.graph.vectors import python_slice
from onnx_shift.onnx_pruner.op import Channels, Index, Mask, Op, Values
from onnx_shift.onnx_pruner.rewriter import Rewriter
from onnx_shift.onnx_pruner.rules.elementwise import per_channel

UNCHANGED, ZERO_ONLY, NONE = "unchanged", "zero only", "none"  # which constants an operator lets through


def through(channels: Channels, axis: int, count: int, source: Index, target: Index) -> Channels:
    """Output channels on `axis` fed by `source[k]` → `target[k]`: constant where all sources hold one same value."""
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, target, channels.value[source])
    np.maximum.at(high, target, channels.value[source])
    varies = np.zeros(count, np.bool_)
    varies[target[~channels.constant[source]]] = True
    return Channels.of(axis, ~varies & (low == high), low)


def carry(op: Op, axis: int | None = None, lets: str = UNCHANGED) -> Effect:
    """Each output carries the channels of the first input unchanged in number and order, on `axis`."""
    channels = op.channels(0)
    outputs = len(op.output_names)
    if channels is None:
        return Effect((None,) * outputs)
    out = channels.moved(channels.axis if axis is None else axis)
    if lets != UNCHANGED:
        constant = channels.constant & (channels.value == 0) & (lets == ZERO_ONLY)
        out = Channels.of(out.axis, constant, channels.value)
    return Effect((out,) * outputs, tuple(Tie.same(0, channels.count, o) for o in range(outputs)))


# --- pooling and resizing --------------------------------------------------------------------------------------


def pooling(op: Op) -> Effect:
    """Pooling works on each channel alone; a border of zeros that is counted in lets only the constant 0 through."""
    channels = op.channels(0)
    if channels is not None and channels.axis != 1:
        return pin_all(op, "channels on a pooled axis")
    if any(t.name and (len(t.outputs) or t.name in op.network.outputs) for t in op.node.outputs[1:]):
        return pin_all(op, "pooling indices that are read")
    padded = any(op.attr("pads", ())) or op.attr("ceil_mode", 0) or op.attr("auto_pad", "NOTSET").startswith("SAME")
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
    if crop or ratio or not same or (scaled and scales is not None and scales.reshape(-1)[channels.axis] != 1):
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
    return alongside(op, op.inputs, carriers[0])


def alongside(op: Op, inputs: Iterable[int], like: Channels) -> Effect:
    """Operands that share the channels of `like` on its axis, constant ones among them, are put into one."""
    own, count = like.axis, like.count
    ties, operands, pins = [], [], {}
    constant, value = np.ones(count, np.bool_), None
    for i in inputs:
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
                j: f"joins {op.name(i)!r}, whose channels cannot be told apart" for j in op.inputs if op.channels(j)
            }
            fact = np.zeros(count, np.bool_), np.zeros(count)
        constant = constant & fact[0] & (True if value is None else fact[1] == value)
        value = fact[1]
    out = Channels.of(own, constant, np.zeros(count) if value is None else value)
    return Effect((out,), tuple(ties), operands=tuple(operands), pins=pins)


def _join(op: Op, axis: int) -> Effect:
    start, ties, operands, pins = 0, [], [], {}
    facts: list[tuple[Mask, Values]] = []
    held: list[Mask] = []
    for i in op.inputs:
        channels, array = op.channels(i), op.constant(i)
        joined = channels if channels is not None and channels.axis == axis else None
        size = op.size(i, axis) if joined is None else joined.count
        if not isinstance(size, int):
            return pin_all(op, "unknown number of channels")
        if joined is not None:
            every = np.arange(size)
            ties.append(Tie(i, every, start + every))
            facts.append((joined.constant, joined.value))
        elif array is not None:
            operands.append(Operand(i, axis, start=start))
            facts.append(per_channel(array, axis - array.ndim, size))
        else:
            if channels is not None:
                pins[i] = "joined along another axis than its channels"
            facts.append((np.zeros(size, np.bool_), np.zeros(size)))
        held.append(np.full(size, joined is None and array is None))
        start += size
    out = Channels.of(axis, np.concatenate([f[0] for f in facts]), np.concatenate([f[1] for f in facts]))
    reason = "channels joined from a tensor whose channels cannot be told apart"
    return Effect((out,), tuple(ties), operands=tuple(operands), pins=pins, held=(np.concatenate(held), reason),
                  joins=True)  # fmt: skip


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
    source = np.arange(channels.count)[python_slice(starts[position], ends[position], steps[position])]
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

    return pick(op, channels, source, channels.axis, rewrite)


def _set_bounds(r: Rewriter, op: Op, bounds: tuple[list[int], ...], k: int, new: tuple[int, int, int]) -> None:
    starts, ends, steps, axes = (list(values) for values in bounds)
    starts[k], ends[k], steps[k] = new
    if op.opset < 10:
        r.node.attrs.update(starts=starts, ends=ends, axes=axes)
        return
    for index, values in enumerate((starts, ends, axes, steps), start=1):
        r.set_ints(index, None, values)


def pick(op: Op, channels: Channels, source: Index, axis: int, rewrite: "object") -> Effect:
    target = np.arange(len(source))
    out = Channels(axis, channels.constant[source], channels.value[source])
    return Effect((out,), (Tie(0, source, target),), rewrite=rewrite)  # type: ignore[arg-type]


def pad(op: Op) -> Effect:
    """Pad with a constant adds constant channels; along other axes a channel stays constant if it equals the border."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,))
    pads = op.entries(1, "pads")
    axes = op.ints(3) if op.has(3) else list(range(rank))
    fill = op.constant(2) if op.has(2) else np.asarray(op.attr("value", 0.0))
    mode = op.attr("mode", "constant")
    if axes is None:
        return pin_all(op, "padding along computed axes")
    axes = [axis % rank for axis in axes]
    at = axes.index(channels.axis) if channels.axis in axes else None
    if at is not None and (pads is None or len(pads) != 2 * len(axes)):
        return pin_all(op, "computed padding")
    before, after = (0, 0) if at is None or pads is None else (pads[at], pads[at + len(axes)])
    if not isinstance(before, int) or not isinstance(after, int):
        return pin_all(op, "computed padding of the channels")
    sizes = [size for size in pads or () if isinstance(size, int)]
    if before + after and len(sizes) < len(pads or ()):
        return pin_all(op, "padding the channels, and computed padding of others")
    if min(before, after) < 0 or (mode != "constant" and before + after > 0):
        return pin_all(op, f"padding the channels by {mode!r}, or cropping them")
    value = float(np.asarray(fill).reshape(-1)[0]) if fill is not None and np.asarray(fill).size else 0.0
    spatial = pads is None or any(pads[k] != 0 for k in range(len(pads)) if at is None or k not in (at, at + len(axes)))
    constant = channels.constant
    if mode == "constant" and spatial:
        constant = constant & (channels.value == value) & (fill is not None)
    ring = np.ones(before, np.bool_), np.ones(after, np.bool_)
    known = fill is not None
    out = Channels.of(channels.axis, np.concatenate([ring[0] & known, constant, ring[1] & known]),
                      np.concatenate([np.full(before, value), channels.value, np.full(after, value)]))  # fmt: skip

    def rewrite(r: Rewriter) -> None:
        if at is not None and before + after:
            keep, new = r.keep_out(0), list(sizes)
            new[at] = int(keep[:before].sum())
            new[at + len(axes)] = int(keep[len(keep) - after :].sum())
            r.set_ints(1, "pads" if "pads" in op.node.attrs else None, new)

    every = np.arange(channels.count)
    return Effect((out,), (Tie(0, every, before + every),), rewrite=rewrite)
