"""Rules for attention as one operator: heads go as wholes, those whose values are zero or that nothing reads.

Shapes: (batch, heads, tokens, size), or (batch, tokens, heads · size) with the number of heads as an attribute.
"""

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.op import Channels, Mask, Op
from onnx_shift.onnx_pruner.rewriter import Rewriter

PACKED = 3  # rank of a tensor whose heads lie beside each other on the last axis


def _tied_heads(index: int, heads: tuple[int, int], counts: tuple[int, int]) -> Tie:
    """Every channel of a head of an input with every channel of the heads of the output that are made of it."""
    sizes = [count // number for count, number in zip(counts, heads, strict=True)]
    shared = heads[1] // heads[0]
    target = np.repeat(np.arange(counts[1]), sizes[0])
    source = target // sizes[1] // shared * sizes[0] + np.tile(np.arange(sizes[0]), counts[1])
    return Tie(index, source, target)


def _zero(channels: Channels, heads: int) -> Mask:
    """Which heads are zero throughout."""
    zero = channels.constant & (channels.value == 0)
    return np.asarray(zero.reshape(heads, -1).all(axis=1))


def attention(op: Op) -> Effect:
    """Attention over queries, keys and values; several heads of queries may share one of keys and values."""
    parts = [op.channels(i) for i in range(3)]
    rank = op.rank(0) or 0
    axis = 2 if rank == PACKED else 1
    if any(part is None or part.axis != axis for part in parts) or any(op.has(i) for i in (4, 5, 6)):
        return pin_all(op, "attention over earlier keys, or of tensors whose heads cannot be told apart")
    if any(tensor.name for tensor in op.node.outputs[1:]):
        return pin_all(op, "attention of which more than the result is read")
    counts = [part.count for part in parts if part is not None]
    heads = [counts[0], counts[1], counts[2]]
    if rank == PACKED:
        heads = [op.attr("q_num_heads", 0), op.attr("kv_num_heads", 0), op.attr("kv_num_heads", 0)]
    if 0 in heads or heads[0] % heads[1] or any(c % h for c, h in zip(counts, heads, strict=True)):
        return pin_all(op, "attention of unequal heads")
    values = parts[2]
    assert values is not None
    count = counts[2] // heads[2] * heads[0]
    ties = [_tied_heads(i, (heads[i], heads[0]), (counts[i], count)) for i in range(3)]
    zero = np.repeat(_zero(values, heads[2]), count // heads[2])
    operands: tuple[Operand, ...] = ()
    size = op.size(3, -3)  # a mask may tell heads apart
    if op.has(3) and (op.rank(3) or 0) > 2 and size != 1:
        if rank == PACKED or size != heads[0] or op.constant(3) is None:
            return pin_all(op, "attention with a mask of its own for each head")
        operands = (Operand(3, (op.rank(3) or 0) - 3),)

    def rewrite(r: Rewriter) -> None:
        if rank == PACKED:
            r.node.attrs["q_num_heads"] = r.kept_in(0) * heads[0] // counts[0]
            r.node.attrs["kv_num_heads"] = r.kept_in(1) * heads[1] // counts[1]

    pins = {3: "a mask"} if op.channels(3) is not None else {}
    return Effect((Channels.of(axis, zero, np.zeros(count)),), tuple(ties), operands=operands, pins=pins,
                  rewrite=rewrite)  # fmt: skip


def rotary_embedding(op: Op) -> Effect:
    """RotaryEmbedding turns pairs of channels within each head."""
    channels, rank = op.channels(0), op.rank(0)
    if channels is None or rank is None:
        return pin_all(op, "an embedding of positions")
    heads = op.attr("num_heads", 0) if rank == PACKED else channels.count
    if channels.axis != (2 if rank == PACKED else 1) or not heads or channels.count % heads:
        return pin_all(op, "RotaryEmbedding along the channels")
    tie = _tied_heads(0, (heads, heads), (channels.count, channels.count))
    zero = np.repeat(_zero(channels, heads), channels.count // heads)

    def rewrite(r: Rewriter) -> None:
        if rank == PACKED:
            r.node.attrs["num_heads"] = r.kept(0) * heads // channels.count

    pins = {i: "an embedding of positions" for i in op.inputs if i and op.channels(i) is not None}
    return Effect((Channels.of(channels.axis, zero, channels.value),), (tie,), pins=pins, rewrite=rewrite)
