"""Rules for attention as one operator: heads go as wholes, those whose values are zero or that nothing reads.

Shapes: (batch, heads, tokens, size), or (batch, tokens, heads · size) with the number of heads as an attribute.
"""

import numpy as np

from onnx_shift.onnx_pruner.effect import Effect, Operand, Tie, pin_all
from onnx_shift.onnx_pruner.op import Channels, Mask, Op
from onnx_shift.onnx_pruner.rewriter import Rewriter

EARLIER = "attention over earlier keys, or of tensors whose heads cannot be told apart"
MORE_READ = "attention of which more than the result is read"
UNEQUAL = "attention of unequal heads"
MASK_OF_HEADS = "attention with a mask of its own for each head"
BIAS_OF_SCORES = 5  # an input of onnxruntime's own
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
        return pin_all(op, EARLIER)
    if any(tensor.name for tensor in op.node.outputs[1:]):
        return pin_all(op, MORE_READ)
    counts = [part.count for part in parts if part is not None]
    heads = [counts[0], counts[1], counts[2]]
    if rank == PACKED:
        heads = [op.attr("q_num_heads", 0), op.attr("kv_num_heads", 0), op.attr("kv_num_heads", 0)]
    if 0 in heads or heads[0] % heads[1] or any(c % h for c, h in zip(counts, heads, strict=True)):
        return pin_all(op, UNEQUAL)
    values = parts[2]
    assert values is not None
    count = counts[2] // heads[2] * heads[0]
    ties = [_tied_heads(i, (heads[i], heads[0]), (counts[i], count)) for i in range(3)]
    zero = np.repeat(_zero(values, heads[2]), count // heads[2])
    operands: tuple[Operand, ...] = ()
    size = op.size(3, -3)  # a mask may tell heads apart
    if op.has(3) and (op.rank(3) or 0) > 2 and size != 1:
        if rank == PACKED or size != heads[0] or op.constant(3) is None:
            return pin_all(op, MASK_OF_HEADS)
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


def multi_head_attention(op: Op) -> Effect:
    """onnxruntime's MultiHeadAttention over packed heads: a bias joins those of queries, keys and values."""
    parts = [op.channels(i) for i in range(3)]
    packed = all(part is not None and (part.axis, op.rank(i)) == (2, PACKED) for i, part in enumerate(parts))
    if not packed or any(op.has(i) for i in (6, 7, 8, 9)):
        return pin_all(op, EARLIER)
    heads, bias, counts = op.attr("num_heads", 0), op.constant(3), [part.count for part in parts if part is not None]
    unequal = not heads or any(count % heads for count in counts)
    if unequal or (op.has(3) and (bias is None or len(bias) != sum(counts))):
        return pin_all(op, UNEQUAL)
    if (reason := _why_whole(op)) is not None:
        return pin_all(op, reason)
    added = np.zeros(counts[2]) if bias is None else bias[-counts[2] :].astype(np.float64)
    values = parts[2]
    assert values is not None
    zero = _zero(Channels.of(2, values.constant, values.value + added), heads)

    def rewrite(r: Rewriter) -> None:
        _keep_heads(r, heads)
        if bias is not None:
            r.set_input(3, bias[np.concatenate([r.keep_in(i) for i in range(3)])])

    ties = tuple(_tied_heads(i, (heads, heads), (counts[i], counts[2])) for i in range(3))
    facts = Channels.of(2, np.repeat(zero, counts[2] // heads), np.zeros(counts[2]))
    return Effect((facts,), ties, pins=_other_inputs(op, 4), rewrite=rewrite)


def attention_with_weights(op: Op) -> Effect:
    """onnxruntime's Attention: one matrix makes queries, keys and values of the tokens."""
    weight, bias, heads = op.constant(1), op.constant(2), op.attr("num_heads", 0)
    if weight is None or weight.ndim != 2 or not heads or any(op.has(i) for i in (4, 6)) or op.attr("do_rotary", 0):
        return pin_all(op, EARLIER)
    sizes = op.attr("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3
    if sum(sizes) != weight.shape[1] or any(size % heads for size in sizes) or (op.has(2) and bias is None):
        return pin_all(op, UNEQUAL)
    if (reason := _why_whole(op)) is not None:
        return pin_all(op, reason)
    columns = np.concatenate([np.repeat(np.arange(heads), size // heads) for size in sizes])  # the head of each
    filled = (weight != 0).any(axis=0) | (False if bias is None else bias != 0)
    zero = ~np.isin(np.arange(heads), columns[-sizes[2] :][filled[-sizes[2] :]])

    def rewrite(r: Rewriter) -> None:
        kept = _keep_heads(r, heads)
        rows = r.keep_in(0) if op.channels(0) is not None else np.ones(len(weight), np.bool_)
        r.set_input(1, weight[rows][:, kept[columns]])
        if bias is not None:
            r.set_input(2, bias[kept[columns]])
        if "qkv_hidden_sizes" in r.node.attrs:
            r.node.attrs["qkv_hidden_sizes"] = [size // heads * int(kept.sum()) for size in sizes]

    each = sizes[2] // heads
    facts = Channels.of(2, np.repeat(zero, each), np.zeros(sizes[2]))
    pins = _other_inputs(op, 3)
    reads = {}
    if op.channels(0) is not None:
        pins[0], reads[0] = "weights for queries, keys and values", (weight[:, ~zero[columns]] != 0).any(axis=1)
    together = np.repeat(np.arange(heads) * each, each)
    return Effect((facts,), pins=pins, reads=reads, together=together, rewrite=rewrite)


def _why_whole(op: Op) -> str | None:
    """Why no head can go from an attention of onnxruntime's own."""
    if any(tensor.name for tensor in op.node.outputs[1:]):
        return MORE_READ
    computed = op.has(BIAS_OF_SCORES) and op.size(BIAS_OF_SCORES, 1) != 1 and op.constant(BIAS_OF_SCORES) is None
    return MASK_OF_HEADS if computed else None


def _keep_heads(r: Rewriter, heads: int) -> Mask:
    """Write how many heads stay and what is added to their scores; returns which stay."""
    kept: Mask = r.keep_out(0).reshape(heads, -1)[:, 0]
    r.node.attrs["num_heads"] = int(kept.sum())
    scores = r.op.constant(BIAS_OF_SCORES)
    if scores is not None and scores.shape[1] == heads > 1:
        r.set_input(BIAS_OF_SCORES, scores[:, kept])
    return kept


def _other_inputs(op: Op, first: int) -> dict[int, str]:
    return {i: "a mask" for i in op.inputs[first:] if op.channels(i) is not None}
