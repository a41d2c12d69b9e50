"""Rules for operators that work on each element: activations, arithmetic with broadcasting, casts, quantisation.

The channel axis of all operands is aligned from the right, as ONNX broadcasts. An operand that spans the channel
axis is tied to the output; one of size 1 there only feeds every channel.
"""

import math
from collections.abc import Callable

import numpy as np
import onnx

from onnx_shift.onnx_pruner.effect import Effect, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.graph.constants import run_node
from onnx_shift.onnx_pruner.graph.contrib import CONTRIB
from onnx_shift.onnx_pruner.graph.network import Array
from onnx_shift.onnx_pruner.op import Channels, Mask, Op, Values

DIRECT: dict[str, Callable[..., Array]] = {
    "Relu": lambda x: np.maximum(x, 0),
    "Identity": lambda x: x,
    "Dropout": lambda x, *_: x,
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Sum": lambda *xs: np.sum(xs, axis=0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}  # the reference operators know the rest


def _gelu(op: Op, x: Array, bias: Array | float = 0.0) -> Array:
    """onnxruntime's own Gelu in its four spellings."""
    x = x + bias
    if op.type == "QuickGelu":
        return np.asarray(x / (1 + np.exp(-op.attr("alpha", 1.702) * x)))
    inner = x * np.sqrt(0.5)
    if op.type == "FastGelu":
        return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf, [np.float64])(inner)))


CANCELS = 1e-5  # of the larger operand
HALFWAY = 1e-3  # of a step of quantisation


def numpy_type(op: Op, name: str) -> np.dtype | None:
    """The element type of a tensor, or None when it is unknown."""
    data_type = op.network.types.get(name)
    return None if not data_type else np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))


def evaluate(op: Op, operands: list[Values | None], where: Mask) -> tuple[Mask, Values]:
    """Run the operator on the per-channel values of its operands at the channels of `where`.

    Returns which channels are constant in the output, and their values (0 elsewhere). Computed in the tensors'
    own types, so that rounding and integer division happen as in a run of the model.
    """
    nothing = np.zeros(len(where), np.bool_), np.zeros(len(where))
    if not where.any():
        return nothing
    arrays: list[Array] = []
    for i, values in enumerate(operands):
        if values is None:
            continue
        dtype = numpy_type(op, op.name(i))
        if dtype is None:
            return nothing
        with np.errstate(all="ignore"):
            arrays.append(values[where].astype(dtype))
    with np.errstate(all="ignore"):
        if op.node.domain == CONTRIB:
            result: Array | None = _gelu(op, *arrays)
        elif op.type in DIRECT:
            result = DIRECT[op.type](*arrays)
        else:
            names = [op.name(i) for i, values in enumerate(operands) if values is not None]
            found = run_node(op.node, dict(zip(names, arrays, strict=True)), op.opset)
            result = None if found is None else found[0]
    if result is None or result.shape != arrays[0].shape:
        return nothing
    values = np.zeros(len(where))
    values[where] = result.astype(np.float64)
    return where & np.isfinite(values), values


def per_channel(array: Array, axis: int, count: int) -> tuple[Mask, Values]:
    """Which channels of a constant operand (axis counted from the right) hold one value throughout, and that value."""
    index = array.ndim + axis
    if not array.size:
        return np.zeros(count, np.bool_), np.zeros(count)
    if index < 0 or array.shape[index] == 1:
        flat = np.broadcast_to(array.reshape(1, -1), (count, array.size))
    else:
        flat = np.moveaxis(array, index, 0).reshape(count, -1)
    first = flat[:, 0]
    same = np.ones(count, np.bool_) if flat.shape[1] == 1 else (flat == first[:, None]).all(axis=1)
    return same, np.where(same, first, 0).astype(np.float64)


def elementwise(op: Op) -> Effect:
    """Output channel c is computed from channel c of every operand; operands broadcast as numpy's do."""
    shape, carriers = op.output_shape(), [i for i in op.inputs if op.channels(i) is not None]
    if not carriers:
        return Effect((None,) * len(op.output_names))
    wide = [i for i in carriers if _channels(op, i).count > 1] or carriers
    axes = {_channels(op, i).axis - (op.rank(i) or 0) for i in wide}
    if shape is None or len(axes) != 1 or any(op.rank(i) is None for i in op.inputs if op.has(i)):
        return pin_all(op, "operands whose channels lie on different axes, or of unknown shape")
    axis = axes.pop()
    count = shape[axis]
    if not isinstance(count, int):
        return pin_all(op, "unknown number of channels")
    severed = _constant_branches(op, carriers, axis, count)
    ties, operands, pins = [], [], {}
    facts: list[tuple[Mask, Values] | None] = []
    for i in op.inputs:
        channels, rank = op.channels(i), op.rank(i) or 0
        if not op.has(i):
            facts.append(None)
        elif channels is not None and channels.axis - rank == axis and channels.count in (1, count):
            facts.append((np.resize(channels.constant, count), np.resize(channels.value, count)))
            if i in severed:
                dtype = numpy_type(op, op.name(i))
                branch = channels.value.astype(dtype).reshape((count,) + (1,) * (-axis - 1))
                operands.append(Operand(i, 0, array=branch))
            elif channels.count == count:
                ties.append(Tie.same(i, count))
            else:
                pins[i] = "one channel that meets all channels of another tensor"
        elif op.constants.is_constant(op.name(i)) and (array := op.constant(i)) is not None:
            facts.append(per_channel(array, axis, count))
            if array.ndim + axis >= 0 and array.shape[array.ndim + axis] == count and count > 1:
                operands.append(Operand(i, array.ndim + axis))
        else:
            facts.append((np.zeros(count, np.bool_), np.zeros(count)))
            if channels is not None:
                pins[i] = "channels on another axis"
            if rank >= -axis and op.size(i, axis) != 1:
                pins |= {j: f"meets {op.name(i)!r}, whose channels cannot be told apart" for j in carriers}
    constant, value = combine(op, facts)
    out = Channels.of(axis + len(shape), constant, value)
    return Effect((out,), ties=tuple(ties), operands=tuple(operands), pins=pins)


def _channels(op: Op, index: int) -> Channels:
    channels = op.channels(index)
    assert channels is not None
    return channels


def _constant_branches(op: Op, carriers: list[int], axis: int, count: int) -> set[int]:
    """Operands constant in every channel that an initializer can stand for: another operand gives the full shape."""
    shape = op.output_shape()
    here = [i for i in carriers if (c := _channels(op, i)).count == count and c.axis - (op.rank(i) or 0) == axis]
    flat = {
        i for i in here
        if _channels(op, i).constant.all() and op.is_only_reader(i) and numpy_type(op, op.name(i)) is not None
    }  # fmt: skip
    full = [i for i in here if i not in flat and op.shape(i) == shape and None not in (shape or (None,))]
    return flat if full and op.sever and op.type != "SwiGLU" else set()  # which alone does not broadcast


def combine(op: Op, facts: list[tuple[Mask, Values] | None]) -> tuple[Mask, Values]:
    """Which channels of the output are constant: those of constant operands, and whatever is multiplied by 0."""
    present = [fact for fact in facts if fact is not None]
    where = np.logical_and.reduce([mask for mask, _ in present])
    constant, value = evaluate(op, [None if fact is None else fact[1] for fact in facts], where)
    if op.type in ("Add", "Sub", "Sum"):  # what is left of numbers that cancel out is how they were rounded
        largest = np.max([np.abs(values) for _, values in present], axis=0)
        constant &= (np.abs(value) > CANCELS * largest) | (largest == 0)
    if op.type in ("Mul", "And"):
        for mask, values in present:
            zero = mask & (values == 0)
            constant, value = constant | zero, np.where(zero, 0.0, value)
    return constant, value


def dropout(op: Op) -> Effect:
    """Dropout at inference copies; with a mask that is read, or in training mode, it is left alone."""
    training = op.constant(2) if op.has(2) else np.asarray(False)
    mask_read = any(len(t.outputs) or t.name in op.network.outputs for t in op.node.outputs[1:] if t.name)
    if training is None or bool(training.any()) or mask_read:
        return pin_all(op, "Dropout in training mode, or whose mask is read")
    channels = op.channels(0)
    if channels is None:
        return Effect((None,))
    return Effect((channels,), ties=(Tie.same(0, channels.count),))


def cast(op: Op) -> Effect:
    """Cast, CastLike and BitCast: as element-wise in the first input alone. The bits of a constant are not known: it
    may be rounded, or a negative zero.
    """
    channels, source, target = op.channels(0), numpy_type(op, op.name(0)), numpy_type(op, op.output)
    pins = {1: "only its type is read"} if op.channels(1) is not None else {}
    if channels is None:
        return Effect((None,), pins=pins)
    constant, value = channels.constant, channels.value
    if op.type == "Cast":
        constant, value = evaluate(op, [value], constant)
    elif op.type == "BitCast" or source is None or target is None:
        constant = np.zeros_like(constant)
    else:
        with np.errstate(all="ignore"):
            value = np.where(constant, value, 0).astype(source).astype(target).astype(np.float64)
    if target is not None and target.kind in "iu":  # runtimes differ in what they make of other numbers
        limits = np.iinfo(target)
        constant = constant & (channels.value >= limits.min) & (channels.value <= limits.max)
    out = Channels.of(channels.axis, constant, value)
    return Effect((out,), ties=(Tie.same(0, channels.count),), pins=pins)


def quantise(op: Op) -> Effect:
    """QuantizeLinear and DequantizeLinear of an activation: scale and zero point per tensor, or per channel."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return Effect((None,))
    scale, zero = op.constant(1), op.constant(2)
    if scale is None or (op.has(2) and zero is None) or op.attr("block_size", 0):
        return pin_all(op, "scales that are computed, or per block")
    axis = op.attr("axis", 1) % rank
    operands: tuple[Operand, ...] = ()
    if scale.size > 1:
        if axis != channels.axis or scale.shape != (channels.count,):
            return pin_all(op, "scales along another axis than the channels")
        operands = tuple(Operand(i, 0) for i in (1, 2) if op.has(i))
    constant, value = _quantised(op, channels, scale, zero)
    out = Channels.of(channels.axis, constant, value)
    return Effect((out,), ties=(Tie.same(0, channels.count),), operands=operands)


def _quantised(op: Op, channels: Channels, scale: Array, zero: Array | None) -> tuple[Mask, Values]:
    """Which constants pass QuantizeLinear or DequantizeLinear, and what they become.

    One that lies halfway between two steps may be rounded either way, and is not taken for constant.
    """
    target = numpy_type(op, op.output)
    whole = numpy_type(op, op.name(0) if op.type == "DequantizeLinear" else op.output)
    if target is None or whole is None or whole.kind not in "iu" or scale.dtype.itemsize < 4:
        return np.zeros(channels.count, np.bool_), np.zeros(channels.count)
    step = scale.reshape(-1).astype(np.float64)
    offset = 0.0 if zero is None else zero.reshape(-1).astype(np.float64)
    if op.type == "DequantizeLinear":
        return channels.constant, ((channels.value - offset) * step).astype(target).astype(np.float64)
    with np.errstate(all="ignore"):
        steps = channels.value / step
    halfway = np.abs(np.abs(steps - np.trunc(steps)) - 0.5) < HALFWAY
    limits = np.iinfo(whole)
    value = np.clip(np.rint(steps) + offset, limits.min, limits.max)
    return channels.constant & np.isfinite(steps) & ~halfway, np.nan_to_num(value)
