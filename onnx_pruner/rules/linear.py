"""Rules for operators that multiply channels by constant weights, and for normalisation of each channel alone.

Shapes: Conv W (O, I/g, k…), ConvTranspose W (I, O/g, k…), Gemm B (I, O) or (O, I) with transB, MatMul B (I, O).
"""

from dataclasses import replace

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Linear, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.graph.network import Array
from onnx_shift.onnx_pruner.graph.reading import PruneError
from onnx_shift.onnx_pruner.op import Channels, Mask, Op, Values

CACHED_WEIGHTS = 1 << 17
REMAINDER, ROUNDING = 1e-3, 1e-6  # what is left of a step of a quantised bias, and of a sum of many
MOST_STEPS = 1 << 30
SMALL_KERNEL = 4  # a place to read from takes as much memory as two float32


def by_group(weight: Array, groups: int, input_first: bool) -> Array:
    """A view (groups, outputs per group, inputs per group, …) of a weight."""
    view = weight.reshape((groups, weight.shape[0] // groups, *weight.shape[1:]))
    return view.swapaxes(1, 2) if input_first else view


def kernels(weight: Array, outputs: Array, inputs: Array, input_first: bool) -> Array:
    """A copy of the kernels from some inputs to some outputs of a weight without groups, (outputs, inputs, …)."""
    first, second = (inputs, outputs) if input_first else (outputs, inputs)
    if len(second) == weight.shape[1]:
        found = weight.take(first, axis=0)
    elif len(first) == len(weight):
        found = weight.take(second, axis=1)
    elif weight[0, 0].size < SMALL_KERNEL:
        found = weight.take(first, axis=0).take(second, axis=1)
    else:  # one pass for both axes
        flat = weight.reshape(weight.shape[0] * weight.shape[1], *weight.shape[2:])
        found = flat.take(first[:, None] * weight.shape[1] + second, axis=0)
    return found.swapaxes(0, 1) if input_first else found


def nonzero_kernels(weight: Array) -> Mask:
    """Which kernels, the first two axes, hold a non-zero weight (-0.0 is zero, NaN is not).

    A few rows at a time, so that they stay in the cache; truth values are read as words, several at once.
    """
    flat = weight.reshape(*weight.shape[:2], -1)
    if 0 in flat.shape or all(stride == 0 for stride in weight.strides):
        return np.broadcast_to(np.asarray(bool(flat.size and flat.flat[0] != 0)), flat.shape[:2])
    count, size = flat.shape[1:]
    if size == 1:
        return np.asarray(flat[:, :, 0] != 0)
    word = max(width for width in (1, 2, 4, 8) if width <= size)
    found = np.zeros(flat.shape[:2], np.bool_)
    step = max(1, CACHED_WEIGHTS // (count * size))
    for start in range(0, len(flat), step):
        nonzero = np.ascontiguousarray(flat[start : start + step] != 0)
        for offset in (*range(0, size - word, word), size - word):
            words = np.ndarray((len(nonzero), count), f"u{word}", nonzero, offset, (count * size, size))
            found[start : start + step] |= words != 0
    return found


def linear_effect(op: Op, linear: Linear, axis: int) -> Effect:
    """Effect of a Linear whose output channels lie on `axis`: an output is constant when no varying input
    reaches it.
    """
    weight, bias = op.constant(linear.weight), None if linear.bias is None else op.constant(linear.bias)
    assert weight is not None
    weight = linear.view(weight)
    groups, _, inputs = linear.kernel.shape
    channels = op.channels(linear.input) or Channels.varying(1, groups * inputs)
    if channels.count != groups * inputs:
        node = op.node.name or op.output
        raise PruneError(f"{op.type} {node!r} reads {channels.count} channels, its weights are for {groups * inputs}")
    linear = with_whole_steps(op, linear, channels)
    blocking = ~channels.constant | ((channels.value != 0) & ~linear.folds)
    kernel = linear.kernel if blocking.all() else linear.kernel & blocking.reshape(groups, 1, inputs)
    reached = kernel.any(axis=2).reshape(-1)
    value = bias_vector(linear, bias)
    where = np.nonzero(~reached)[0]
    held = ~blocking & (channels.value != 0)
    if len(where) and held.any():
        value = value.copy()
        value[where] += folded(linear, weight, where, held, channels.value)
    out = Channels.of(axis, ~reached, value)
    return Effect((out,), linear=linear)


def with_whole_steps(op: Op, linear: Linear, channels: Channels) -> Linear:
    """The layer with quantised weights that takes into its quantised bias the constants that add whole steps to it."""
    step = None if linear.plain_bias or linear.padded or linear.bias is None else _bias_step(op, linear)
    columns = np.nonzero(channels.constant & (channels.value != 0))[0]
    weight = op.constant(linear.weight)
    if step is None or weight is None or not len(columns) or linear.gain != 1 or linear.bias_gain != 1:
        return linear
    view = by_group(weight, linear.groups, linear.input_first).astype(np.float64)
    taps = view.reshape(*view.shape[:3], -1).sum(axis=3)
    added = taps * np.where(channels.constant, channels.value, 0).reshape(linear.groups, 1, -1)
    steps = added / step.reshape(linear.groups, -1, 1)
    fits = np.abs(steps - np.rint(steps)) <= REMAINDER + ROUNDING * np.abs(steps)
    small = np.abs(steps).sum(axis=2).max() < MOST_STEPS
    return replace(linear, step=step, whole=fits.all(axis=1).reshape(-1) & small)


def _bias_step(op: Op, linear: Linear) -> Values | None:
    """How much a step of the bias in int32 is per output; where there is none, of one made of the steps of input and
    weight, as runtimes ask for it.
    """
    assert linear.bias is not None
    count = linear.kernel.shape[0] * linear.kernel.shape[1]
    if op.has(linear.bias):
        bias, node = op.constant(linear.bias), op.constants.quantised(op.name(linear.bias))
        if node is None or bias is None or bias.size != count:
            return None
        stored, scale = (op.constants.get(tensor.name) for tensor in node.inputs[:2])
        whole = stored is not None and stored.dtype == np.int32
    else:
        weight, source = (
            op.constants.quantised(op.name(linear.weight)),
            op.constants.producers.get(op.name(linear.input)),
        )
        if weight is None or source is None or source.op != "DequantizeLinear":
            return None
        scales = [op.constants.get(node.inputs[1].name) for node in (weight, source)]
        if scales[0] is None or scales[1] is None or scales[1].size != 1 or (scales[0].size > 1 and op.opset < 13):
            return None
        whole = scales[0].size == 1 or weight.attrs.get("axis", 1) == int(linear.input_first)
        scale = scales[0] * scales[1].reshape(-1)
    if not whole or scale is None or scale.size not in (1, count):
        return None
    return np.broadcast_to(scale.reshape(-1).astype(np.float64), count)


def folded(linear: Linear, weight: Array, outputs: Array, held: Mask, value: Values) -> Values:
    """What constant inputs `held` (of the given values) add to the given outputs."""
    view = by_group(weight, linear.groups, linear.input_first)
    group, row = outputs // view.shape[1], outputs % view.shape[1]
    if linear.groups == 1:
        columns = np.nonzero(held)[0]
        taps = kernels(weight, row, columns, linear.input_first).astype(np.float64)
        total = taps.reshape(len(row), len(columns), -1).sum(axis=2) @ value[columns]
    else:
        taps = view[group, row].astype(np.float64)
        taps = taps.reshape(len(row), view.shape[2], -1).sum(axis=2)
        total = (taps * np.where(held, value, 0.0).reshape(linear.groups, -1)[group]).sum(axis=1)
    scale = linear.gain if linear.scale is None else linear.gain * linear.scale[outputs]
    return np.asarray(total * scale, np.float64)


def bias_vector(linear: Linear, bias: Array | None) -> Values:
    """The bias per output in float64, a folded BatchNormalization included."""
    count = linear.kernel.shape[0] * linear.kernel.shape[1]
    value = np.zeros(count)
    if bias is not None and bias.size in (1, count):
        value += bias.reshape(-1).astype(np.float64) * linear.bias_gain
    if linear.scale is not None and linear.shift is not None:
        value = value * linear.scale + linear.shift
    return value


def _kernel(op: Op, index: int, groups: int, input_first: bool) -> Mask | None:
    weight = op.constant(index)
    if weight is None or weight.ndim < 2 or 0 in weight.shape or weight.shape[0] % groups:
        return None
    mask = nonzero_kernels(weight)
    mask = by_group(mask, groups, input_first)
    if op.batch_norm is not None and not op.batch_norm[0].all():
        mask = mask & (op.batch_norm[0] != 0).reshape(groups, -1, 1)
    return mask


def _plain(op: Op, weight: int, bias: int | None = None) -> tuple[bool, bool]:
    """Whether weight and bias may be rewritten: what is stored in a narrower type is only sliced."""
    quantised = op.constants.is_widened(op.name(weight))
    if bias is None or not op.has(bias):
        return not quantised, not quantised
    return not quantised, not op.constants.is_widened(op.name(bias))


def _is_padded(op: Op) -> bool:
    auto = op.attr("auto_pad", "NOTSET")
    return auto.startswith("SAME") or (auto == "NOTSET" and any(op.attr("pads", ())))


def convolution(op: Op) -> Effect:
    """Conv and ConvTranspose in 1 to 3 dimensions, with groups; depthwise ones tie inputs to outputs."""
    groups, transposed = op.attr("group", 1), op.type == "ConvTranspose"
    kernel = _kernel(op, 1, groups, transposed)
    if kernel is None or (op.channels(0) is not None and op.channels(0).axis != 1):  # type: ignore[union-attr]
        return pin_all(op, "weights that are computed from the input")
    if op.has(2) and op.constant(2) is None:
        return pin_all(op, "a bias that is computed from the input")
    scale, shift = op.batch_norm or (None, None)
    linear = Linear(0, 1, 2, kernel, transposed, transposed or _is_padded(op), *_plain(op, 1, 2), scale, shift)
    effect = linear_effect(op, linear, 1)
    channels = op.channels(0)
    if groups == 1 or channels is None or kernel.shape[2] > 1:
        return effect
    every = np.arange(groups * kernel.shape[1])  # depthwise: W (C*m, 1, k…)
    return Effect(effect.outputs, (Tie(0, every // kernel.shape[1], every),), linear)


def deformable_convolution(op: Op) -> Effect:
    """DeformConv: as a padded Conv, at positions that other inputs tell; what lies outside is zero."""
    groups, channels = op.attr("group", 1), op.channels(0)
    kernel = _kernel(op, 1, groups, False)
    if kernel is None or (op.has(3) and op.constant(3) is None) or (channels is not None and channels.axis != 1):
        return pin_all(op, "weights that are computed from the input")
    if op.attr("offset_group", 1) > 1:
        return pin_all(op, "offsets of their own for some of the channels")
    linear = Linear(0, 1, 3, kernel, False, True, *_plain(op, 1, 3))
    effect = linear_effect(op, linear, 1)
    pins = {i: "positions to sample at" for i in (2, 4) if op.has(i) and op.channels(i) is not None}
    every = np.arange(groups * kernel.shape[1])
    depthwise = groups > 1 and channels is not None and kernel.shape[2] == 1
    ties = (Tie(0, every // kernel.shape[1], every),) if depthwise else ()
    return Effect(effect.outputs, ties, linear, pins=pins)


def gemm(op: Op) -> Effect:
    """Gemm Y = alpha·A·B + beta·C with constant B, and C constant with an entry per output or one for all."""
    kernel = _kernel(op, 1, 1, not op.attr("transB", 0))
    bias = op.constant(2)
    plain = bias is None or (bias.size in (1, kernel.shape[1]) and (bias.ndim == 0 or bias.shape[-1] == bias.size)) \
        if kernel is not None else False  # fmt: skip
    channels = op.channels(0)
    if kernel is None or not plain or (op.has(2) and bias is None) or op.attr("transA", 0):
        return pin_all(op, "a matrix product whose weights or bias are computed, or with a transposed input")
    if channels is not None and channels.axis != 1:
        return pin_all(op, "channels on the rows of a matrix product")
    alpha = op.attr("alpha", 1.0)
    if alpha == 0:
        kernel = np.zeros_like(kernel)
    scale, shift = op.batch_norm or (None, None)
    linear = Linear(0, 1, 2, kernel, not op.attr("transB", 0), False, *_plain(op, 1, 2), scale, shift,
                    gain=alpha, bias_gain=op.attr("beta", 1.0))  # fmt: skip
    return linear_effect(op, linear, 1)


def matmul(op: Op) -> Effect:
    """MatMul of channels on the contracted axis with a constant matrix, on either side; other channels pass through.

    FusedMatMul, onnxruntime's own, may transpose an operand before, and scales the product.
    """
    left, right = (op.constants.is_constant(op.name(i)) for i in (0, 1))
    data, weight = (1, 0) if left else (0, 1)
    rank, channels = op.rank(data), op.channels(data)
    if op.attr("transBatchA", 0) or op.attr("transBatchB", 0):
        return pin_all(op, "a matrix product that also turns the axes before the last two")
    if left == right or rank is None or rank < 2 or len(op.shape(weight) or ()) != 2:
        return _product(op)
    turned = [bool(op.attr(name, 0)) for name in ("transA", "transB")]
    contracted = rank - (2 if left != turned[data] else 1)
    outputs = rank - (2 if left else 1)
    if channels is not None and channels.axis != contracted:
        kept = channels.constant & (channels.value == 0)
        axis = channels.axis if channels.axis < rank - 2 else 2 * rank - 3 - outputs
        return Effect((Channels.of(axis, kept, channels.value),), (Tie.same(data, channels.count),))
    input_first = left == turned[weight]
    kernel = _kernel(op, weight, 1, input_first)
    if kernel is None:
        return pin_all(op, "weights that are not a plain matrix")
    gain = op.attr("alpha", 1.0)
    scale, shift = op.batch_norm or (None, None)
    linear = Linear(data, weight, None, kernel & (gain != 0), input_first, False, *_plain(op, weight), scale, shift,
                    trailing=int(left), gain=gain)  # fmt: skip
    return linear_effect(op, linear, outputs)


def _product(op: Op) -> Effect:
    """A product without a plain matrix: what lies on an axis before the last two, heads of attention say, meets its
    like; rows of the left operand pass through, or columns of the right one.
    """
    ranks = [op.rank(i) or 0 for i in (0, 1)]
    if (alike := _side_by_side(op, ranks)) is not None:
        return alike
    rows = [rank - 2 + i - (2 * i - 1) * bool(op.attr(name, 0))
            for i, (rank, name) in enumerate(zip(ranks, ("transA", "transB"), strict=True))]  # fmt: skip
    free = [(c.count, i, c) for i in (0, 1) if (c := op.channels(i)) and c.axis == rows[i]]
    if not free or min(ranks) < 2:
        return pin_all(op, "a product of two activations")
    count, data, channels = max(free, key=lambda one: one[0])
    zero = channels.constant & (channels.value == 0)
    out = Channels.of(max(ranks) - 2 + data, zero, channels.value)
    pins = {1 - data: "a product of two activations"} if op.channels(1 - data) is not None else {}
    return Effect((out,), (Tie.same(data, count),), pins=pins)


def _side_by_side(op: Op, ranks: list[int]) -> Effect | None:
    """A product of each channel for itself: both operands hold it on one axis before the last two, or one of them and
    the other is constant or has one entry there.
    """
    carriers = {i: channels for i in (0, 1) if (channels := op.channels(i)) is not None}
    places = {(channels.axis - ranks[i], channels.count) for i, channels in carriers.items()}
    if len(places) != 1 or min(ranks) < 2:
        return None
    axis, count = places.pop()
    if axis >= -2:
        return None
    operands, zero = [], np.zeros(count, np.bool_)
    for i in (0, 1):
        size = op.size(i, axis) if ranks[i] >= -axis else 1
        if i in carriers:
            zero |= carriers[i].constant & (carriers[i].value == 0)
        elif size == count and op.constants.is_constant(op.name(i)):
            operands.append(Operand(i, ranks[i] + axis))
        elif size != 1:
            return None
    out = Channels.of(max(ranks) + axis, zero, np.zeros(count))
    return Effect((out,), tuple(Tie.same(i, count) for i in carriers), operands=tuple(operands))


def batch_normalization(op: Op) -> Effect:
    """A BatchNormalization that stayed: y = x·scale + shift per channel, with the four parameters sliced."""
    channels = op.channels(0)
    affine = batch_norm_affine(op)
    if channels is None:
        return Effect((None,) * len(op.output_names))
    if affine is None or channels.axis != 1 or len(affine[0]) != channels.count:
        return pin_all(op, "a BatchNormalization with computed parameters, or in training mode")
    scale, shift = affine
    out = Channels.of(1, channels.constant | (scale == 0), channels.value * scale + shift)
    return Effect((out,), (Tie.same(0, channels.count),), operands=tuple(Operand(i, 0) for i in range(1, 5)))


def batch_norm_affine(op: Op) -> tuple[Values, Values] | None:
    """(scale, shift) of a BatchNormalization at inference; None when it is none, or its parameters are computed."""
    if op.attr("training_mode", 0) or not op.attr("spatial", 1) or any(t.name for t in op.node.outputs[1:]):
        return None
    arrays = [op.constant(i) for i in range(1, 5)]
    if any(array is None or array.ndim != 1 for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + op.attr("epsilon", 1e-5))
    return scale, beta - mean * scale


def instance_normalization(op: Op) -> Effect:
    """InstanceNormalization works on each channel alone; a zero channel becomes its bias. Another constant becomes that
    plus what its mean was rounded by, divided by the root of epsilon.
    """
    channels, scale, bias = op.channels(0), op.constant(1), op.constant(2)
    if channels is None:
        return Effect((None,))
    if channels.axis != 1 or scale is None or bias is None or len(scale) != channels.count:
        return pin_all(op, "an InstanceNormalization with computed parameters")
    constant = (channels.constant & (channels.value == 0)) | (scale == 0)
    out = Channels.of(1, constant, bias.astype(np.float64))
    return Effect((out,), (Tie.same(0, channels.count),), operands=(Operand(1, 0), Operand(2, 0)))
