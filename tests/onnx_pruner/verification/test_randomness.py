"""Random operators draw the same numbers in both models, and what still differs from itself is not called equal."""

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.verification import compare as comparing
from onnx_shift.onnx_pruner.verification.compare import VerificationError, compare
from onnx_shift.onnx_pruner.verification.engines import read
from onnx_shift.onnx_pruner.verification.randomness import seeded
from tests.onnx_pruner.conftest import bias, build, weight

LAYERS = "c = Conv(x, w, b) q = Relu(c) h = Conv(q, v, u) s = Sigmoid(h)"
WEIGHTS = {"w": weight(16, 3, 1, 1, dead=(1, 2, 3)), "b": -bias(16), "v": weight(6, 16, 1, 1), "u": bias(6),
           "ratio": np.float32(0.5), "yes": np.bool_(True)}  # fmt: skip
RANDOM = [
    "n = RandomNormalLike(h) y = Add(h, n)",
    "n = RandomUniform<shape = [1,6,8,8]>() y = Mul(h, n)",
    "y = Bernoulli(s)",
    "y = Dropout(h, ratio, yes)",
]


def noisy(body: str, change: float = 0.0) -> onnx.ModelProto:
    text = f"g (float[1,3,8,8] x) => (float[1,6,8,8] y) {{ {LAYERS} {body} }}"
    return build(text, {**WEIGHTS, "u": bias(6) + np.float32(change)}, 17)


@pytest.mark.parametrize("body", RANDOM)
def test_a_random_model_is_pruned_and_equal_with_the_same_seeds(body: str) -> None:
    result = prune(noisy(body), align=1)
    assert result.report.channels_removed == 3
    assert result.report.largest_difference is not None
    assert result.report.largest_difference < 1e-4
    assert not compare(noisy(body), noisy(body, 1.0)).equal


def test_seeds_go_into_bodies_and_differ_by_output() -> None:
    text = """g (float[1,3,8,8] x, bool b) => (float[1,3,8,8] y) {
        y = If (b) <then_branch = t () => (float[1,3,8,8] a) { a = RandomNormalLike(x) },
                    else_branch = e () => (float[1,3,8,8] c) { c = RandomNormalLike(x) }>
    }"""
    source = read(build(text, {}, 17), "net")
    found = seeded(source)
    seeds = [g.g.node[0].attribute[0].f for g in found.graph.node[0].attribute]
    assert found.fresh
    assert seeds[0] != seeds[1]
    plain = read(build("g (float[1] x) => (float[1] y) { y = Dropout(x) }", {}, 17), "net")
    assert seeded(plain) is plain


def test_what_differs_from_itself_is_never_called_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "seeded", lambda source: source)  # as if an operator took no seed
    with pytest.raises(VerificationError, match="every output differs from itself from run to run"):
        compare(noisy(RANDOM[0]), noisy(RANDOM[0]))
    both = "g (float[1,3,8,8] x) => (float[1,6,8,8] y, float[1,6,8,8] h) { " + f"{LAYERS} {RANDOM[0]} }}"
    result = compare(build(both, WEIGHTS, 17), build(both, WEIGHTS, 17))
    assert (result.equal, result.largest_difference) == (True, 0)
    assert result.notes == ("output 'y' differs from itself from run to run and was not compared",)
