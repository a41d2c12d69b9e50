"""Rules for operators that multiply channels by constant weights, and for normalisation of each channel alone.

Shapes: Conv W (O, I/g, k…), ConvTranspose W (I, O/g, k…), Gemm B (I, O) or (O, I) with transB, MatMul B (I, O).
"""

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Linear, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.graph.network import Array, PruneError
from onnx_shift.onnx_pruner.op import Channels, Mask, Op, Values

CACHED_WEIGHTS = 1 << 17
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


def _linear(op: Op, linear: Linear, axis: int) -> Effect:
    """Effect of a Linear whose output channels lie on `axis`: an output is constant when no varying input
    reaches it.
    """
    weight, bias = op.constant(linear.weight), None if linear.bias is None else op.constant(linear.bias)
    assert weight is not None
    groups, _, inputs = linear.kernel.shape
    channels = op.channels(linear.input) or Channels.varying(1, groups * inputs)
    if channels.count != groups * inputs:
        node = op.node.name or op.output
        raise PruneError(f"{op.type} {node!r} reads {channels.count} channels, its weights are for {groups * inputs}")
    blocking = ~channels.constant | (channels.value != 0 if not linear.folds else False)
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
    effect = _linear(op, linear, 1)
    channels = op.channels(0)
    if groups == 1 or channels is None or kernel.shape[2] > 1:
        return effect
    every = np.arange(groups * kernel.shape[1])  # depthwise: W (C*m, 1, k…)
    return Effect(effect.outputs, (Tie(0, every // kernel.shape[1], every),), linear)


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
    linear = Linear(0, 1, 2, kernel, not op.attr("transB", 0), False, *_plain(op, 1, 2), scale, shift, alpha,
                    op.attr("beta", 1.0))  # fmt: skip
    return _linear(op, linear, 1)


def matmul(op: Op) -> Effect:
    """MatMul of channels on the contracted axis with a constant matrix, on either side; other channels pass through."""
    left, right = (op.constants.is_constant(op.name(i)) for i in (0, 1))
    data, weight = (1, 0) if left else (0, 1)
    rank, channels = op.rank(data), op.channels(data)
    if left == right or rank is None or rank < 2 or len(op.shape(weight) or ()) != 2:
        return _product(op)
    contracted = rank - (2 if left else 1)
    if channels is not None and channels.axis != contracted:
        if channels.axis >= rank - 2 and left:
            return pin_all(op, "channels on the other axis of a matrix product")
        kept = channels.constant & (channels.value == 0)
        return Effect((Channels.of(channels.axis, kept, channels.value),), (Tie.same(data, channels.count),))
    kernel = _kernel(op, weight, 1, not left)
    if kernel is None:
        return pin_all(op, "weights that are not a plain matrix")
    scale, shift = op.batch_norm or (None, None)
    linear = Linear(data, weight, None, kernel, not left, False, *_plain(op, weight), scale, shift)
    return _linear(op, linear, contracted)


def _product(op: Op) -> Effect:
    """A product without a plain matrix: rows of the left operand pass through, or columns of the right one."""
    ranks = [op.rank(i) or 0 for i in (0, 1)]
    free = [(c.count, i, c) for i in (0, 1) if (c := op.channels(i)) and c.axis == ranks[i] - 2 + i]
    if not free or min(ranks) < 2:
        return pin_all(op, "a product of two activations")
    count, data, channels = max(free, key=lambda one: one[0])
    zero = channels.constant & (channels.value == 0)
    out = Channels.of(max(ranks) - 2 + data, zero, channels.value)
    pins = {1 - data: "a product of two activations"} if op.channels(1 - data) is not None else {}
    return Effect((out,), (Tie.same(data, count),), pins=pins)


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
