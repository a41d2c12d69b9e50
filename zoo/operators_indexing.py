"""Generators of operators that pick elements by indices, and their kin."""

import numpy as np
from onnx import TensorProto

from zoo.operators_values import as_number
from zoo.random_graphs import Growing, Tensor


def gather_elements(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    g.free_batch = g.free_size = False
    axis = g.pick([1, x.rank - 1])
    shape = list(x.shape)
    shape[axis] = g.between(1, x.shape[axis])
    indices = g.rng.integers(0, x.shape[axis], shape)
    if axis == 1:  # few of the channels
        indices = indices // 2
    return g.add("GatherElements", [x, g.constant(indices.astype(np.int64))], shape, axis=axis)


def gather_nd(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    n, c, h, *rest = x.shape
    kind = g.between(0, 2)
    if kind == 0:  # channels in front
        g.free_batch = False
        order = [1, 0, *range(2, x.rank)]
        x = g.add("Transpose", [x], (c, n, h, *rest), perm=order)
        picked = g.rng.integers(0, c, g.between(1, c))
        y = g.add("GatherND", [x, g.constant(picked[:, None].astype(np.int64))], (len(picked), n, h, *rest))
        return g.add("Transpose", [y], (n, len(picked), h, *rest), perm=order)
    if kind == 1:  # one channel
        g.free_batch = False
        indices = np.array([[k % n, g.between(0, c - 1)] for k in range(3)], np.int64)
        return g.add("GatherND", [x, g.constant(indices)], (3, h, *rest))
    g.free_batch = g.free_size = False
    samples = np.array([[0], [n - 1], [0]], np.int64)
    return g.add("GatherND", [x, g.constant(samples)], (3, c, h, *rest))


def compress(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    axis = g.pick([1, 1, x.rank - 1])
    condition = g.rng.random(x.shape[axis]) < 0.6
    condition[g.between(0, len(condition) - 1)] = True
    shape = list(x.shape)
    shape[axis] = int(condition.sum())
    g.free_size = g.free_size and axis == 1
    return g.add("Compress", [x, g.constant(condition)], shape, axis=axis)


def reverse_sequence(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    g.free_batch = g.free_size = False
    x = g.add("Transpose", [x], (x.shape[2], x.shape[0], x.shape[1], *x.shape[3:]), perm=[2, 0, 1, *range(3, x.rank)])
    lengths = g.constant(g.rng.integers(1, x.shape[0] + 1, x.shape[1]).astype(np.int64))
    y = g.add("ReverseSequence", [x, lengths], x.shape)
    return g.add(
        "Transpose", [y], (y.shape[1], y.shape[2], y.shape[0], *y.shape[3:]), perm=[1, 2, 0, *range(3, x.rank)]
    )


def tensor_scatter(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    g.free_batch = g.free_size = False
    length = g.between(1, x.shape[2])
    bounds = [g.ints(0), g.ints(length), g.ints(2)]
    update = g.add("Slice", [x, *bounds], (*x.shape[:2], length, *x.shape[3:]))
    past = (
        x
        if g.chance(0.5)
        else g.floats(g.rng.standard_normal(x.shape) * (g.rng.random((x.shape[1], *[1] * (x.rank - 2))) < 0.5))
    )
    return g.add("TensorScatter", [past, update, g.ints(*[0] * x.shape[0])], x.shape, axis=2)


def triangle(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    return g.add("Trilu", [x, g.constant(np.array(g.between(-1, 1)))], x.shape, upper=g.between(0, 1))


def crop_and_pad(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    g.free_batch = g.free_size = False
    shape = [*x.shape[:2], *(max(1, size + g.between(-1, 2)) for size in x.shape[2:])]
    if g.chance(0.5):
        return g.add("CenterCropPad", [x, g.ints(*shape[2:])], shape, axes=list(range(2, x.rank)))
    return g.add("CenterCropPad", [x, g.ints(*shape)], shape)


def shifted(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    whole = g.add("Clip", [x, g.floats(0.0), g.floats(6.0)], x.shape)
    whole = g.add("Cast", [whole], x.shape, TensorProto.UINT32, to=TensorProto.UINT32)
    amount = g.constant(g.rng.integers(0, 3, (x.shape[1], *[1] * (x.rank - 2))).astype(np.uint32))
    y = g.add("BitShift", [whole, amount], x.shape, TensorProto.UINT32, direction=g.pick(["LEFT", "RIGHT"]))
    return as_number(g, y)


def bits(g: Growing) -> Tensor:
    x = g.take()
    y = g.add("BitCast", [x], x.shape, TensorProto.INT32, to=TensorProto.INT32)
    return g.add("BitCast", [y], x.shape, to=g.kind)
