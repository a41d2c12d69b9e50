"""What selections read is compared; what they decide may flip on near-ties, and is told."""

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.verification.compare import compare
from onnx_shift.onnx_pruner.verification.selection import find_selection, tail
from tests.onnx_pruner.conftest import build, ints

HEAD = """a = Conv<pads=[1,1,1,1]>(x, w1, b1) ar = Relu(a) b = Conv<pads=[1,1,1,1]>(ar, w2, b2) br = Relu(b)
    h = Conv(br, w3, b3)"""
BOXES = """hr = Reshape(h, rows) bx, sc = Split<axis = 1>(hr, parts) scores = Sigmoid(sc)
    bt = Transpose<perm=[0,2,1]>(bx) bs = Sigmoid(bt) boxes = Mul(bs, size)"""
NMS = "y = NonMaxSuppression(boxes, scores, most, iou, threshold)"


def weights(change: float = 0.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)

    def drawn(*shape: int, dead: bool = False) -> np.ndarray:
        values = (rng.standard_normal(shape) * 0.3).astype(np.float32)
        if dead:
            values[rng.permutation(len(values))[:8]] = 0
        return values

    found = {
        "w1": drawn(16, 3, 3, 3, dead=True),
        "b1": drawn(16),
        "w2": drawn(16, 16, 3, 3, dead=True),
        "b2": drawn(16),
    }
    found |= {"w3": drawn(6, 16, 1, 1), "b3": drawn(6) + np.float32(change)}
    found |= {"rows": ints(0, 6, -1), "parts": ints(4, 2), "size": np.float32(128), "most": ints(1000), "k": ints(300)}
    return found | {"iou": np.float32([0.65]), "threshold": np.float32([0.25]), "half": np.float32(0.5)}


def detector(body: str, output: str, change: float = 0.0) -> onnx.ModelProto:
    text = f"g (float[N,3,128,128] x) => ({output}) {{ {HEAD} {body} }}"
    found = weights(change)
    used = {name for name in found if name in text}
    return build(text, {name: found[name] for name in used}, 17)


DECIDED = {
    "nms": (f"{BOXES} {NMS}", "int64[K,3] y"),
    "top": ("f = Flatten(h) s = Sigmoid(f) v, y = TopK(s, k)", "float[N,300] v, int64[N,300] y"),
    "most likely": ("y = ArgMax<axis = 1>(h)", "int64[N,1,128,128] y"),
    "above a threshold": ("s = Sigmoid(h) m = Greater(s, half) n = NonZero(m) p = Transpose(n) y = GatherND(s, p)",
                          "float[M] y"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DECIDED)
def test_a_model_that_selects_is_pruned_and_written(kind: str) -> None:
    result = prune(detector(*DECIDED[kind]), align=1)
    assert result.report.channels_removed == 16
    assert result.report.verified
    assert result.report.largest_difference is not None
    assert result.report.largest_difference < 1e-3


def test_flips_on_near_ties_are_told() -> None:
    note = "output 'y' is decided by NonMaxSuppression: selections flip on near-ties"
    assert any(one.startswith(note) for one in prune(detector(*DECIDED["nms"]), align=1).report.notes)


@pytest.mark.parametrize("kind", DECIDED)
def test_another_function_is_found_by_what_the_selection_reads(kind: str) -> None:
    assert not compare(detector(*DECIDED[kind]), detector(*DECIDED[kind], change=0.02)).equal


def test_a_difference_that_no_selection_shows_is_found_before_it() -> None:
    body, output = "y = ArgMax<axis = 1>(h)", "int64[N,1,128,128] y"
    other = detector(body, output, change=0.02)  # the same for every class
    assert "what ArgMax reads, 'h', differs by" in compare(detector(body, output), other).reason


def test_another_selection_from_the_same_is_found() -> None:
    text = "f = Flatten(h) s = Sigmoid(f) v, y = TopK{}(s, k)"
    output = "float[N,300] v, int64[N,300] y"
    assert not compare(detector(text.format(""), output), detector(text.format("<largest = 0>"), output)).equal


def test_sizes_are_not_decided_by_a_selection() -> None:
    text = """g (float[N,3,H,W] x) => (float[A,B] y, float[N,3,H,W] z) {
        s = Shape(x) n = Cast<to = 1>(s) m = Floor(n) t = Cast<to = 7>(m) f = Reshape(x, t) y = Flatten(f) z = Round(x)
    }"""
    found = find_selection(build(text, {}, 17).graph)
    assert (dict(found.reads), dict(found.decided), found.enters) == ({"x": "Round"}, {"z": "Round"}, ("x",))


def test_the_tail_computes_outputs_from_what_is_given() -> None:
    model = detector(*DECIDED["most likely"])
    found = tail(model, ["y"], {"h": np.zeros((1, 6, 4, 4), np.float32)})
    assert [node.op_type for node in found.graph.node] == ["ArgMax"]
    assert [value.name for value in found.graph.input] == ["h"]
    assert not found.graph.initializer
