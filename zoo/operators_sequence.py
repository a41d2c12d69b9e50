"""Generators of layers over sequences, of attention, and of Einsum."""

from typing import Any

import numpy as np

from zoo.random_graphs import Growing, Tensor

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def tokens(g: Growing) -> Tensor:
    """Return a tensor (N, tokens, features)."""
    x = g.take(lambda t: t.rank >= 3)
    if x.rank > 3 or x.shape[-1] < 2:
        g.free_size = False
        x = g.add("Reshape", [x, g.ints(0, x.shape[1], -1)], (*x.shape[:2], int(np.prod(x.shape[2:]))))
    return x if g.chance(0.3) else g.add("Transpose", [x], (x.shape[0], x.shape[2], x.shape[1]), perm=[0, 2, 1])


def projected(g: Growing, x: Tensor, width: int) -> Tensor:
    return g.add("MatMul", [x, g.floats(g.sparse((x.shape[-1], width), 1, 0))], (*x.shape[:-1], width))


def recurrent(g: Growing, op: str) -> Tensor:
    x = tokens(g)
    n, length, width = x.shape
    x = g.add("Transpose", [x], (length, n, width), perm=[1, 0, 2])
    hidden, gates = g.between(1, 5), GATES[op]
    direction = g.pick(["forward", "reverse", "bidirectional"])
    sides = 2 if direction == "bidirectional" else 1
    weight = np.stack([g.sparse((gates * hidden, width)) for _ in range(sides)])
    weight[:, :, g.rng.random(width) < 0.3] = 0
    again = g.rng.standard_normal((sides, gates * hidden, hidden)) * 0.3
    bias = g.rng.standard_normal((sides, 2 * gates * hidden)) * 0.3
    silent = g.rng.random(hidden) < 0.4  # all gates, or the last one alone: what is new of all three
    gate = slice(None) if g.chance(0.5) else -1
    for array in (weight, again, *bias.reshape(sides, 2, gates * hidden, 1).swapaxes(0, 1)):
        array.reshape(sides, gates, hidden, -1)[:, gate, silent] = 0
    again *= g.rng.random((sides, gates * hidden, hidden)) < g.pick([1, 0.3])
    inputs: list[Any] = [x, g.floats(weight), g.floats(again), g.floats(bias) if g.chance(0.7) else ""]
    if g.chance(0.4):  # a first state, and an LSTM's peepholes
        g.free_batch = False
        first = g.rng.standard_normal((sides, n, hidden)) * (g.rng.random(hidden) < 0.5)
        inputs += ["", *[g.floats(first)] * (2 if op == "LSTM" else 1)]
        inputs += [g.floats(g.rng.standard_normal((sides, 3 * hidden)) * 0.3)] if op == "LSTM" and g.chance(0.5) else []
    attributes: dict[str, Any] = {"linear_before_reset": g.between(0, 1)} if op == "GRU" else {}
    if op == "RNN" and g.chance(0.3):
        attributes["activations"] = [g.pick(["Relu", "Tanh", "Sigmoid"])] * sides
    shapes = [(length, sides, n, hidden), *[(sides, n, hidden)] * (2 if op == "LSTM" else 1)]
    parts = g.add_all(op, inputs, shapes, hidden_size=hidden, direction=direction, **attributes)
    y = parts[0]
    for part in parts[1:]:
        g.used.add(part.name)
        g.tensors.remove(part)
    y = g.add("Transpose", [y], (n, length, sides, hidden), perm=[2, 0, 1, 3])
    y = g.add("Reshape", [y, g.ints(0, length, sides * hidden)], (n, length, sides * hidden))
    return projected(g, y, g.between(2, 6)) if g.chance(0.7) else y


def causal_convolution(g: Growing) -> Tensor:
    x = tokens(g)
    k, c = g.between(1, 3), x.shape[1]
    inputs: list[Any] = [x, g.floats(g.sparse((c, 1, k)))]
    inputs.append(g.floats(g.vector(c)) if g.chance(0.5) else "")
    if g.chance(0.3):
        g.free_batch = False
        inputs.append(g.floats(g.rng.standard_normal((x.shape[0], c, k - 1)) * (g.rng.random((1, c, 1)) < 0.5)))
    parts = g.add_all(
        "CausalConvWithState", inputs, [x.shape, (x.shape[0], c, k - 1)], activation=g.pick(["none", "silu"])
    )
    g.used.add(parts[1].name)
    g.tensors.remove(parts[1])
    return parts[0]


def attention(g: Growing) -> Tensor:
    """Return attention of a sequence to itself; heads may be blank or unread, and shared by several queries."""
    x = tokens(g)
    shared, keys, size = g.pick([1, 1, 2]), g.between(1, 3), g.pick([2, 4])
    q, k, v = (projected(g, x, heads * size) for heads in (keys * shared, keys, keys))
    gate = np.repeat(g.rng.random(keys) < 0.6, size).astype(np.float32)
    v = g.add("Mul", [v, g.floats(gate)], v.shape)
    if g.chance(0.5):
        y = g.add("Attention", [q, k, v], q.shape, q_num_heads=keys * shared, kv_num_heads=keys)
    else:
        parts = [apart(g, one, heads, size) for one, heads in ((q, keys * shared), (k, keys), (v, keys))]
        y = g.add("Attention", parts, parts[0].shape)
        y = g.add("Transpose", [y], (*y.shape[:1], y.shape[2], y.shape[1], size), perm=[0, 2, 1, 3])
        y = g.add("Reshape", [y, g.ints(0, y.shape[1], -1)], (*y.shape[:2], keys * shared * size))
    return projected(g, y, g.between(2, 6))


def apart(g: Growing, x: Tensor, heads: int, size: int) -> Tensor:
    n, length, _ = x.shape
    y = g.add("Reshape", [x, g.ints(0, length, heads, size)], (n, length, heads, size))
    return g.add("Transpose", [y], (n, heads, length, size), perm=[0, 2, 1, 3])


def rotary_embedding(g: Growing) -> Tensor:
    x = tokens(g)
    heads, size = g.between(1, 3), g.pick([2, 4])
    x = projected(g, x, heads * size)
    angles = g.rng.uniform(0, 3, (x.shape[0], x.shape[1], size // 2))
    caches = [g.floats(np.cos(angles)), g.floats(np.sin(angles))]
    g.free_batch = False
    attributes = {"interleaved": g.between(0, 1)}
    if g.chance(0.5):
        return g.add("RotaryEmbedding", [x, *caches], x.shape, num_heads=heads, **attributes)
    y = apart(g, x, heads, size)
    y = g.add("RotaryEmbedding", [y, *caches], y.shape, **attributes)
    y = g.add("Transpose", [y], (y.shape[0], y.shape[2], heads, size), perm=[0, 2, 1, 3])
    return g.add("Reshape", [y, g.ints(0, y.shape[1], -1)], x.shape)


def einsum(g: Growing) -> Tensor:
    """Return a product by labels: a layer, channels carried through, or a product of two activations."""
    x = g.take(lambda t: 2 <= t.rank <= 5)
    labels = "bcdef"[: x.rank]
    at = g.pick([1, x.rank - 1])
    label, size = labels[at], x.shape[at]
    kind = g.between(0, 4)
    if kind == 0:  # a layer, its outputs at the end
        width = g.between(1, 6)
        weight = g.floats(g.sparse((size, width), 1, 0))
        shape = (*np.delete(x.shape, at), width)
        equation = f"{labels},{label}z->{labels.replace(label, '')}z"
        return g.add("Einsum", [x, weight], shape, equation=equation)
    if kind == 1:  # a layer, its outputs in place, the weight in front
        width = g.between(1, 6)
        weight = g.floats(g.sparse((width, size)))
        equation = f"z{label},{labels}->{labels.replace(label, 'z')}"
        return g.add("Einsum", [weight, x], (*x.shape[:at], width, *x.shape[at + 1 :]), equation=equation)
    if kind == 2:  # a number for each
        weight = g.floats(g.vector(size, 0.4))
        return g.add("Einsum", [x, weight], x.shape, equation=f"{labels},{label}->{labels}")
    if kind == 3:  # turned
        order = [0, *g.rng.permutation(range(1, x.rank))]
        equation = f"{labels}->{''.join(labels[k] for k in order)}"
        return g.add("Einsum", [x], [x.shape[k] for k in order], equation=equation)
    other = g.add("Tanh", [x], x.shape)  # itself, summed over all behind the channels
    return g.add("Einsum", [x, other], x.shape[:2], equation=f"{labels},{labels}->bc")
