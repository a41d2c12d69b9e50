"""Attention: heads that are zero or unread go as wholes, in the spellings that exporters write."""

from typing import Any

import numpy as np
import pytest

from tests.onnx_pruner.conftest import Exact, Floats, bias, ints, weight

HEADS, SIZE, WIDTH = 4, 3, 6

BY_MATMUL = """g (float[B,S,6] x) => (float[B,S,6] y) {
    q0 = MatMul(x, wq) q1 = Add(bq, q0) q2 = Reshape(q1, split) q = Transpose<perm=[0,2,1,3]>(q2)
    k0 = MatMul(x, wk) k1 = Add(bk, k0) k2 = Reshape(k1, split) k = Transpose<perm=[0,2,3,1]>(k2)
    v0 = MatMul(x, wv) v1 = Add(bv, v0) v2 = Reshape(v1, split) v = Transpose<perm=[0,2,1,3]>(v2)
    s = MatMul(q, k) d = Div(s, root) p = Softmax<axis=-1>(d)
    o = MatMul(p, v) t = Transpose<perm=[0,2,1,3]>(o) m = Reshape(t, merge) y = MatMul(m, wo)
}"""
MASKED = BY_MATMUL.replace("p = Softmax<axis=-1>(d)", "a = Add(d, mask) p = Softmax<axis=-1>(a)")
SCALED_BEFORE = BY_MATMUL.replace("s = MatMul(q, k) d = Div(s, root)", "qs = Div(q, root) d = MatMul(qs, k)")


def heads(axis: int, zero: tuple[int, ...], seed: int) -> Floats:
    """A matrix between width and heads; the given heads, which lie on `axis`, are zero."""
    matrix = weight(WIDTH, HEADS * SIZE, seed=seed)
    matrix.reshape(WIDTH, HEADS, SIZE)[:, list(zero)] = 0
    return matrix if axis else matrix.T.copy()


def weights(zero: tuple[int, ...], unread: tuple[int, ...], blank: float = 0.0) -> dict[str, Any]:
    of_values = bias(HEADS * SIZE)
    of_values.reshape(HEADS, SIZE)[list(zero)] = blank
    return {
        "wq": heads(1, (), 1), "wk": heads(1, (), 2), "wv": heads(1, zero, 3), "wo": heads(0, unread, 4),
        "bq": bias(HEADS * SIZE), "bk": bias(HEADS * SIZE), "bv": of_values, "split": ints(0, 0, HEADS, SIZE),
        "merge": ints(0, 0, HEADS * SIZE), "root": np.float32(SIZE**0.5), "mask": np.zeros((1, 1, 8, 8), np.float32),
    }  # fmt: skip


@pytest.mark.parametrize("text", [BY_MATMUL, MASKED, SCALED_BEFORE], ids=["plain", "masked", "scaled before"])
@pytest.mark.parametrize(("zero", "unread", "left"), [((1,), (), 3), ((), (0, 3), 2), ((1,), (2,), 2)])
def test_by_matrix_products(exact: Exact, text: str, zero: tuple[int, ...], unread: tuple[int, ...], left: int) -> None:
    given = weights(zero, unread)
    if "mask" not in text:
        del given["mask"]
    pruned = exact(text.replace("B,S", "B,8"), given)
    assert [pruned.weight(name) for name in ("q0", "k0", "v0")] == [(WIDTH, left * SIZE)] * 3
    assert pruned.weight("y") == (left * SIZE, WIDTH)


#: How queries, keys and values are told apart in what one matrix makes of the tokens, (B, S, 3 · heads · size).
TOGETHER = {
    "one transpose": """r = Reshape(a, five) t = Transpose<perm=[2,0,3,1,4]>(r)
        q = Gather<axis=0>(t, zero) k0 = Gather<axis=0>(t, one) v = Gather<axis=0>(t, two)
        k = Transpose<perm=[0,1,3,2]>(k0)""",
    "split and squeezed": """r = Reshape(a, five) t = Transpose<perm=[2,0,3,1,4]>(r)
        q1, k1, v1 = Split<axis=0, num_outputs=3>(t) q = Squeeze(q1, zero_) k0 = Squeeze(k1, zero_)
        v = Squeeze(v1, zero_) k = Transpose<perm=[0,1,3,2]>(k0)""",
    "split first": """q1, k1, v1 = Split<axis=2, num_outputs=3>(a)
        q2 = Reshape(q1, four) q = Transpose<perm=[0,2,1,3]>(q2)
        k2 = Reshape(k1, four) k = Transpose<perm=[0,2,3,1]>(k2)
        v2 = Reshape(v1, four) v = Transpose<perm=[0,2,1,3]>(v2)""",
    "heads first": """r = Reshape(a, heads_first) t = Transpose<perm=[0,2,1,3,4]>(r)
        q = Gather<axis=3>(t, zero) k0 = Gather<axis=3>(t, one) v = Gather<axis=3>(t, two)
        k = Transpose<perm=[0,1,3,2]>(k0)""",
    "sliced": """r = Reshape(a, five) t = Transpose<perm=[0,2,3,1,4]>(r)
        q1 = Slice(t, zero_, one_, one_) q = Squeeze(q1, one_) k1 = Slice(t, one_, two_, one_) k0 = Squeeze(k1, one_)
        v1 = Slice(t, two_, three_, one_) v = Squeeze(v1, one_) k = Transpose<perm=[0,1,3,2]>(k0)""",
}
NUMBERS = {
    "zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "zero_": ints(0), "one_": ints(1), "two_": ints(2),
    "three_": ints(3), "five": ints(0, 0, 3, HEADS, SIZE), "four": ints(0, 0, HEADS, SIZE),
    "heads_first": ints(0, 0, HEADS, 3, SIZE),
}  # fmt: skip


@pytest.mark.parametrize("batch", ["B", "2"])
@pytest.mark.parametrize("form", TOGETHER)
def test_by_one_matrix_for_all(exact: Exact, form: str, batch: str) -> None:
    """Head 1 is zero in its values, head 3 unread."""
    body = TOGETHER[form]
    text = f"""g (float[B,S,6] x) => (float[B,S,6] y) {{
        m = MatMul(x, w) a = Add(m, b) {body}
        s = MatMul(q, k) d = Div(s, root) p = Softmax<axis=-1>(d)
        o = MatMul(p, v) u = Transpose<perm=[0,2,1,3]>(o) j = Reshape(u, merge) y = MatMul(j, wo)
    }}""".replace("[B,", f"[{batch},")
    given = weights((1,), (3,))
    parts = [given.pop(name).reshape(WIDTH, HEADS, 1, SIZE) for name in ("wq", "wk", "wv")]
    biases = [given.pop(name).reshape(HEADS, 1, SIZE) for name in ("bq", "bk", "bv")]
    order = (lambda a: a) if form == "heads first" else (lambda a: np.moveaxis(a, -2, -3))
    given |= {
        "w": order(np.concatenate(parts, 2)).reshape(WIDTH, -1), "b": order(np.concatenate(biases, 1)).reshape(-1),
        **NUMBERS,
    }  # fmt: skip
    given = {name: array for name, array in given.items() if any(f"{name}{end}" in text for end in ",)")}
    pruned = exact(text, given, opset=18)
    assert pruned.weight("m") == (WIDTH, 3 * 2 * SIZE)
    assert pruned.weight("y") == (2 * SIZE, WIDTH)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize("rotary", [False, True])
def test_by_the_operator(exact: Exact, packed: bool, shared: int, rotary: bool) -> None:
    """Two of four heads go: 1, whose values are zero, and 3, which is unread; with `shared`, all queries of it."""
    parts = ["q", "k", "v"]
    lines = [f"{part}0 = MatMul(x, w{part})" for part in parts]
    counts = {"q": HEADS * shared, "k": HEADS, "v": HEADS}
    for part in parts:
        last = f"{part}0"
        if not packed:
            lines += [f"{part}1 = Reshape({last}, s{part})", f"{part}2 = Transpose<perm=[0,2,1,3]>({part}1)"]
            last = f"{part}2"
        if rotary and part != "v":
            attributes = f"<num_heads={counts[part]}>" if packed else ""
            lines.append(f"{part}3 = RotaryEmbedding{attributes}({last}, cosine, sine)")
            last = f"{part}3"
        lines.append(f"{part} = Identity({last})")
    heads_of = f"<q_num_heads={counts['q']}, kv_num_heads={counts['k']}>" if packed else ""
    lines.append(f"o = Attention{heads_of}(q, k, v)")
    lines.append("m = Identity(o)" if packed else "t = Transpose<perm=[0,2,1,3]>(o) m = Reshape(t, merge)")
    text = f"g (float[2,5,6] x) => (float[2,5,6] y) {{ {' '.join(lines)} y = MatMul(m, wo) }}"
    size = 4

    def matrix(count: int, blank: tuple[int, ...], seed: int) -> Floats:
        found = weight(WIDTH, count * size, seed=seed)
        found.reshape(WIDTH, count, size)[:, list(blank)] = 0
        return found

    unread = tuple(range(3 * shared, 4 * shared))
    angles = np.random.default_rng(0).uniform(0, 3, (2, 5, size // 2)).astype(np.float32)
    given = {
        "wq": matrix(counts["q"], (), 1), "wk": matrix(HEADS, (), 2), "wv": matrix(HEADS, (1,), 3),
        "wo": matrix(counts["q"], unread, 4).T.copy(), "sq": ints(0, 0, counts["q"], size),
        "sk": ints(0, 0, HEADS, size), "sv": ints(0, 0, HEADS, size), "merge": ints(0, 0, -1),
        "cosine": np.cos(angles), "sine": np.sin(angles),
    }  # fmt: skip
    given = {name: array for name, array in given.items() if any(f"{name}{end}" in text for end in ",)")}
    pruned = exact(text, given, opset=23)
    assert [pruned.weight(f"{part}0")[1] for part in parts] == [2 * shared * size, 2 * size, 2 * size]
    assert pruned.weight("y")[0] == 2 * shared * size
