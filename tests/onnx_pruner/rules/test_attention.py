"""Attention: heads that are zero or unread go as wholes, in the spellings that exporters write."""

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from tests.onnx_pruner.conftest import Exact, Floats, Pruned, bias, ints, run, weight

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


def of_onnxruntime(text: str, given: dict[str, Any], shape: tuple[int, ...] = (2, 5, WIDTH)) -> Pruned:
    """A graph with operators of onnxruntime's own, pruned; outputs stay equal."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 17, "com.microsoft": 1]>\n{text}')
    given = {name: array for name, array in given.items() if any(f"{name}{end}" in text for end in ",)")}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in given.items())
    result = prune(model, align=1, verify=False)
    fed = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    for want, got in zip(run(model, fed), run(result.model, fed), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * float(np.abs(want).max()))
    return Pruned(model, result.model, result.report)


def attribute(pruned: Pruned, output: str, name: str) -> Any:
    node = next(node for node in pruned.model.graph.node if output in node.output)
    return next(onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name)


SCORES = np.random.default_rng(0).standard_normal((2, HEADS, 5, 5)).astype(np.float32)
PADDED = np.asarray([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], np.int32)


@pytest.mark.parametrize("inputs", ["q, k, v", "q, k, v, b", "q, k, v, b, padded", "q, k, v, b, , scores"])
@pytest.mark.parametrize("attributes", ["", ", unidirectional=1", ", scale=0.3"])
def test_by_multi_head_attention(inputs: str, attributes: str) -> None:
    """Head 1 is zero in its values, its bias included; head 3 unread."""
    given = weights((1,), (3,))
    given |= {"b": np.concatenate([given[name] for name in ("bq", "bk", "bv")]), "scores": SCORES, "padded": PADDED}
    pruned = of_onnxruntime(f"""g (float[2,5,6] x) => (float[2,5,6] y) {{
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
        o = com.microsoft.MultiHeadAttention<num_heads={HEADS}{attributes}>({inputs}) y = MatMul(o, wo)
    }}""", given)  # fmt: skip
    assert [pruned.weight(name) for name in ("q", "k", "v")] == [(WIDTH, 2 * SIZE)] * 3
    assert pruned.weight("y") == (2 * SIZE, WIDTH)
    assert attribute(pruned, "o", "num_heads") == 2
    if "b" in inputs:
        assert pruned.weight("o", 3) == (3 * 2 * SIZE,)
    if "scores" in inputs:
        assert pruned.weight("o", 5) == (2, 2, 5, 5)


@pytest.mark.parametrize("inputs", ["x, w, b", "x, w, b, padded", "x, w, b, , , scores"])
@pytest.mark.parametrize("larger", [1, 2])
def test_by_attention_with_its_weights(inputs: str, larger: int) -> None:
    """As above; `larger` values than queries, and rows of the weights that are zero: token features that are unread."""
    given = weights((1,), (3,))
    values = np.repeat(given["wv"].reshape(WIDTH, HEADS, SIZE), larger, axis=2).reshape(WIDTH, -1)
    of_values = np.repeat(given["bv"].reshape(HEADS, SIZE), larger, axis=1).reshape(-1)
    given["w"] = np.concatenate([given["wq"], given["wk"], values], 1)
    given["w"][2] = 0
    given |= {"b": np.concatenate([given["bq"], given["bk"], of_values]), "scores": SCORES, "padded": PADDED}
    given |= {"wo": np.repeat(given["wo"], larger, axis=0), "wi": weight(WIDTH, WIDTH, seed=7)}
    whole = HEADS * SIZE
    sizes = f", qkv_hidden_sizes=[{whole}, {whole}, {larger * whole}]" if larger > 1 else ""
    pruned = of_onnxruntime(f"""g (float[2,5,6] x) => (float[2,5,6] y) {{
        h = MatMul(x, wi)
        o = com.microsoft.Attention<num_heads={HEADS}{sizes}>({inputs.replace("x,", "h,")}) y = MatMul(o, wo)
    }}""", given)  # fmt: skip
    left = 2 * SIZE * (2 + larger)
    assert pruned.weight("h") == (WIDTH, WIDTH - 1)
    assert (pruned.weight("o"), pruned.weight("o", 2)) == ((WIDTH - 1, left), (left,))
    assert pruned.weight("y") == (2 * SIZE * larger, WIDTH)
    assert attribute(pruned, "o", "num_heads") == 2
    if larger > 1:
        assert attribute(pruned, "o", "qkv_hidden_sizes") == [2 * SIZE, 2 * SIZE, 4 * SIZE]
    assert not pruned.report.left_out


@pytest.mark.parametrize("body, reason", [
    ("MultiHeadAttention<num_heads=4>(q, k, v, , , s)", "attention with a mask of its own for each head"),
    ("MultiHeadAttention<num_heads=5>(q, k, v)", "attention of unequal heads"),
])  # fmt: skip
def test_where_heads_of_onnxruntimes_attention_cannot_be_told_apart_all_stay(body: str, reason: str) -> None:
    text = f"""g (float[2,5,6] x, float[2,4,5,5] s) => (float[2,5,12] y) {{
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) y = com.microsoft.{body}
    }}"""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 17, "com.microsoft": 1]>\n{text}')
    given = weights((1,), ())
    model.graph.initializer.extend(onnx.numpy_helper.from_array(given[name], name) for name in ("wq", "wk", "wv"))
    report = prune(model, align=1, verify=False).report
    assert report.unchanged
    assert report.kept[0].tensor == "v" and reason in report.kept[0].reason
