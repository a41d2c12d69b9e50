"""Generators that join, cut and move channels, and of operators along an axis."""

from typing import Any

import numpy as np
from onnx import TensorProto

from zoo.operators_values import as_number, bounded
from zoo.random_graphs import Growing, Tensor, attribute_or_input

# --- joining, cutting, moving


def concat(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    axis = g.pick([1, 1, 1, x.rank - 1, -1, 0])
    at = axis % x.rank
    fits = [
        t for t in g.tensors
        if t.kind == x.kind and t.rank == x.rank and np.delete(t.shape, at).tolist() == np.delete(x.shape, at).tolist()
    ]  # fmt: skip
    parts: list[Any] = [x, *(g.pick(fits) for _ in range(g.between(0, 2)))]
    sizes = [part.shape[at] for part in parts]
    if g.chance(0.2) and not any(isinstance(size, str) for size in x.shape) and x.rank == 2 and at == 1:
        parts, sizes = [*parts, g.floats(g.rng.standard_normal((x.shape[0], 2)))], [*sizes, 2]
        g.free_batch = False
    if at == 0:
        g.free_batch = False
    order = g.rng.permutation(len(parts))
    shape = list(x.shape)
    shape[at] = sum(sizes)
    return g.add("Concat", [parts[k] for k in order], shape, axis=axis)


def split(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2 and t.shape[1] >= 2)
    first = g.between(1, x.shape[1] - 1)
    sizes = [first, x.shape[1] - first]
    if sizes[1] > 1 and g.chance(0.4):
        sizes = [first, 1, sizes[1] - 1]
    inputs, attributes = attribute_or_input(g, 13, "split", sizes)
    parts = g.add_all(
        "Split",
        [x, *inputs],
        [(x.shape[0], size, *x.shape[2:]) for size in sizes],
        axis=g.pick([1, 1 - x.rank]),
        **attributes,
    )
    if g.chance(0.4):  # one part leads nowhere
        g.used.add(parts[0].name)
    return parts[-1]


def slice_(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2 and t.shape[1] >= 2)
    c = x.shape[1]
    start, step = g.between(0, c - 1), 1
    end = g.between(start + 1, c)
    if g.opset >= 10:
        step = g.pick([1, 1, 2, 3, -1, -2])
        if step < 0:
            start, end = end - 1, start - 1 - (c + 1) * (start == 0)
        picked = len(range(c)[start : end if end >= 0 else (None if end < -c else end) : step]) if step > 0 else len(
            range(start, max(end, -1), step)
        )  # fmt: skip
        high = np.iinfo(np.int64).max if step > 0 and end == c and g.chance(0.5) else end
        inputs = [g.ints(start), g.ints(high), g.ints(g.pick([1, 1 - x.rank])), g.ints(step)]
        return g.add("Slice", [x, *inputs], (x.shape[0], picked, *x.shape[2:]))
    return g.add("Slice", [x], (x.shape[0], end - start, *x.shape[2:]), starts=[start], ends=[end], axes=[1])


def gather(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    c = x.shape[1]
    if g.chance(0.2):
        return g.add("Gather", [x, g.constant(np.array(g.between(0, c - 1)))], (x.shape[0], *x.shape[2:]), axis=1)
    count = g.between(1, c + 2)
    low = -c if g.opset >= 11 else 0
    return g.add("Gather", [x, g.ints(*g.rng.integers(low, c, count))], (x.shape[0], count, *x.shape[2:]), axis=1)


def pad(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    mode = g.pick(["constant", "constant", "reflect", "edge"])
    amounts = np.zeros((2, x.rank), int)
    for axis in range(1 if mode == "constant" else 2, x.rank):
        most = 2 if mode != "reflect" else min(2, x.shape[axis] - 1)
        amounts[:, axis] = g.rng.integers(0, most + 1, 2)
    if mode == "constant" and g.chance(0.15) and min(x.shape[2:]) > 2:
        amounts[0, 2] = -1
    shape = np.array(x.shape) + amounts.sum(0)
    value = g.pick([0.0, 0.0, 1.5])
    if g.opset < 11:
        return g.add("Pad", [x], shape, mode=mode, pads=amounts.ravel().tolist(), value=value)
    constant = [g.floats(value)] if mode == "constant" and (value or g.chance(0.5)) else []
    return g.add("Pad", [x, g.ints(*amounts.ravel()), *constant], shape, mode=mode)


def reshape(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    n, c, *space = x.shape
    kind = g.between(0, 3)
    g.free_size = False
    if kind == 0:  # all into one
        return g.add(
            "Reshape",
            [x, g.pick([g.ints(0, -1), g.ints(-1, int(np.prod(x.shape[1:])))])],
            (n, int(np.prod(x.shape[1:]))),
        )
    if kind == 1:  # positions into one
        return g.add("Reshape", [x, g.ints(0, 0, -1)], (n, c, int(np.prod(space))))
    if kind == 2:  # channels apart and together again
        d = g.pick([d for d in range(1, c + 1) if c % d == 0])
        y = g.add("Reshape", [x, g.ints(0, d, c // d, *space)], (n, d, c // d, *space))
        if g.chance(0.5):
            y = g.add("Relu", [y], y.shape)
        return g.add("Reshape", [y, g.ints(0, c, *space)], x.shape)
    flat = g.add("Reshape", [x, g.ints(0, -1)], (n, int(np.prod(x.shape[1:]))))
    flat = g.add("Mul", [flat, g.floats(g.vector(flat.shape[1], 0.2))], flat.shape)
    return g.add("Reshape", [flat, g.ints(0, c, *space)], x.shape)


def computed_reshape(g: Growing) -> Tensor:
    """Return x flattened, or with its positions in one axis, by arithmetic on its own shape."""
    x = g.take(lambda t: t.rank >= 3)
    g.free_size = False
    shape = g.add("Shape", [x], (x.rank,), TensorProto.INT64)
    batch = g.add("Gather", [shape, g.ints(0)], (1,), TensorProto.INT64, axis=0)
    if g.chance(0.5):
        target = g.add("Concat", [batch, g.ints(-1)], (2,), TensorProto.INT64, axis=0)
        return g.add("Reshape", [x, target], (x.shape[0], int(np.prod(x.shape[1:]))))
    channels = g.add("Gather", [shape, g.ints(1)], (1,), TensorProto.INT64, axis=0)
    target = g.add("Concat", [batch, channels, g.ints(-1)], (3,), TensorProto.INT64, axis=0)
    return g.add("Reshape", [x, target], (*x.shape[:2], int(np.prod(x.shape[2:]))))


def flatten(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    axis = g.pick([1, 1, 2 if x.rank > 2 else 1])
    g.free_size = False
    g.free_batch = g.free_batch and axis == 1
    return g.add("Flatten", [x], (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))), axis=axis)


def squeeze(g: Growing) -> Tensor:
    x = g.image()
    axes, keep = attribute_or_input(g, 18, "axes", [2])
    y = g.add("ReduceMean", [x, *axes], (*x.shape[:2], 1, *x.shape[3:]), keepdims=1, **keep)
    inputs, attributes = attribute_or_input(g, 13, "axes", [2])
    return g.add("Squeeze", [y, *inputs], (*x.shape[:2], *x.shape[3:]), **attributes)


def unsqueeze(g: Growing) -> Tensor:
    x = g.take(lambda t: 2 <= t.rank <= 4)
    at = g.between(0, x.rank)
    inputs, attributes = attribute_or_input(g, 13, "axes", [at])
    y = g.add("Unsqueeze", [x, *inputs], (*x.shape[:at], 1, *x.shape[at:]), **attributes)
    if g.chance(0.5):
        return y
    y = g.add("Sigmoid", [y], y.shape)
    inputs, attributes = attribute_or_input(g, 13, "axes", [at])
    return g.add("Squeeze", [y, *inputs], x.shape, **attributes)


def transpose(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 3)
    perm = [0, *(g.rng.permutation(x.rank - 1) + 1).tolist()] if g.chance(0.8) else g.rng.permutation(x.rank).tolist()
    g.free_batch = g.free_batch and perm[0] == 0
    g.free_size = False
    y = g.add("Transpose", [x], [x.shape[k] for k in perm], perm=perm)
    if g.chance(0.5):
        return y
    z = g.add(g.pick(["Relu", "Sigmoid"]), [y], y.shape)
    z = g.add("Add", [z, g.floats(g.rng.standard_normal(y.shape[-1]))], y.shape)
    return g.add("Transpose", [z], x.shape, perm=np.argsort(perm).tolist())


def expand(g: Growing) -> Tensor:
    x = g.image()
    y = g.add("GlobalMaxPool", [x], (*x.shape[:2], *[1] * (x.rank - 2)))
    if g.chance(0.5):
        return g.add("Expand", [y, g.add("Shape", [x], (x.rank,), TensorProto.INT64)], x.shape)
    shape = (1, g.pick([1, x.shape[1]]), *x.shape[2:])
    g.free_size = False
    return g.add("Expand", [y, g.ints(*shape)], x.shape)


def tile(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2 and np.prod(t.shape) < 4000)
    times = [1, g.between(1, 2), *(g.between(1, 2) for _ in x.shape[2:])]
    return g.add("Tile", [x, g.ints(*times)], np.array(x.shape) * times)


def depth_to_space(g: Growing) -> Tensor:
    x = g.picture(1)
    each = g.between(1, 3)
    x = g.add(
        "Conv",
        [x, g.floats(g.sparse((4 * each, x.shape[1], 1, 1))), g.floats(g.vector(4 * each))],
        (x.shape[0], 4 * each, *x.shape[2:]),
    )
    attributes = {"mode": g.pick(["DCR", "CRD"])} if g.opset >= 11 else {}
    return g.add("DepthToSpace", [x], (x.shape[0], each, x.shape[2] * 2, x.shape[3] * 2), blocksize=2, **attributes)


def space_to_depth(g: Growing) -> Tensor:
    x = g.picture(2)
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    g.free_size = False
    if (h, w) != x.shape[2:]:
        if g.opset < 10:
            x = g.add("Slice", [x], (*x.shape[:2], h, w), starts=[0, 0], ends=[h, w], axes=[2, 3])
        else:
            x = g.add("Slice", [x, g.ints(0, 0), g.ints(h, w), g.ints(2, 3)], (*x.shape[:2], h, w))
    attributes = {"mode": g.pick(["DCR", "CRD"])} if g.opset >= 28 else {}
    return g.add("SpaceToDepth", [x], (x.shape[0], x.shape[1] * 4, h // 2, w // 2), blocksize=2, **attributes)


def channel_shuffle(g: Growing) -> Tensor:
    x = g.picture(1)
    groups, each = g.between(2, 3), g.between(2, 4)
    c = groups * each
    x = g.add(
        "Conv",
        [x, g.floats(g.sparse((c, x.shape[1], 1, 1))), g.floats(g.vector(c))],
        (x.shape[0], c, *x.shape[2:]),
    )
    n, _, h, w = x.shape
    g.free_size = False
    y = g.add("Reshape", [x, g.ints(0, groups, each, h, w)], (n, groups, each, h, w))
    y = g.add("Transpose", [y], (n, each, groups, h, w), perm=[0, 2, 1, 3, 4])
    return g.add("Reshape", [y, g.ints(0, c, h, w)], x.shape)


# --- reductions and operators along an axis


def reduction(g: Growing, op: str) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    if op == "ReduceLogSum":
        x = bounded(g, x, 0.2, 3)
    elif op in ("ReduceProd", "ReduceLogSumExp"):
        x = bounded(g, x, -1.5, 1.5)
    axes = g.pick([[1], [x.rank - 1], [-1], list(range(2, x.rank)) or [1], list(range(1, x.rank))])
    if op == "ReduceProd":
        axes = axes[:1]
    keep = g.between(0, 1)
    at = {axis % x.rank for axis in axes}
    shape = [1 if k in at else size for k, size in enumerate(x.shape) if keep or k not in at]
    inputs, attributes = attribute_or_input(g, 13 if op == "ReduceSum" else 18, "axes", axes)
    if g.opset < 11 and "axes" in attributes:
        attributes["axes"] = sorted(at)
    return g.add(op, [x, *inputs], shape, keepdims=keep, **attributes)


def arg(g: Growing, op: str) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    y = g.add("Add", [x, g.floats(g.rng.standard_normal(x.shape[1:]))], x.shape)  # so that nothing ties
    g.free_size = False
    axis, keep = g.pick([1, x.rank - 1]), g.between(0, 1)
    shape = [1 if k == axis else size for k, size in enumerate(x.shape) if keep or k != axis]
    return as_number(g, g.add(op, [y], shape, TensorProto.INT64, axis=axis, keepdims=keep))


def along_axis(g: Growing, op: str) -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    if op == "Hardmax":
        x = g.add("Add", [x, g.floats(g.rng.standard_normal(x.shape[1:]))], x.shape)
        g.free_size = False
    return g.add(op, [x], x.shape, axis=g.pick([1, x.rank - 1] if g.opset < 11 else [1, -1, x.rank - 1]))


def cumulative(g: Growing, op: str = "CumSum") -> Tensor:
    x = g.take(lambda t: t.rank >= 2)
    axis = g.constant(np.array(g.pick([1, x.rank - 1]), np.int64))
    return g.add(op, [x, axis], x.shape, exclusive=g.between(0, 1), reverse=g.between(0, 1))


def largest(g: Growing) -> Tensor:
    x = g.take(lambda t: t.rank >= 2 and t.shape[1] >= 2)
    axis = g.pick([1, x.rank - 1])
    k = g.between(1, x.shape[axis])
    shape = [k if at == axis else size for at, size in enumerate(x.shape)]
    inputs, attributes = attribute_or_input(g, 10, "k", [k])
    attributes = {"k": k} if attributes else {}
    g.free_size = False
    node = "TopK"
    values = g.add_all(node, [x, *inputs], [shape], axis=axis, **attributes)[0]
    g.nodes[-1].output.append(f"{values.name}_index")
    return values


def shape_as_numbers(g: Growing) -> Tensor:
    """Return x times a number computed from its own shape, or the shape itself."""
    x = g.take(lambda t: t.rank >= 2)
    shape = g.add("Shape", [x], (x.rank,), TensorProto.INT64)
    if g.chance(0.3):
        return g.add("Cast", [shape], (x.rank,), to=g.kind)
    count = g.add("Gather", [shape, g.constant(np.array(1))], (), TensorProto.INT64, axis=0)
    number = g.add("Cast", [count], (), to=g.kind)
    return g.add("Div", [x, number], x.shape)
