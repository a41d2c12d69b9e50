"""Our answers beside onnxruntime's own, over random layers and networks: 1e-5 of the largest."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.runtime.kernels.networks import (
    difference,
    random_convolution,
    random_network,
    random_product,
    rewritten,
    session,
)

FEW, MANY = 80, 1000
KINDS = {"convolution": random_convolution, "product": random_product, "network": random_network}


def _worst(make: Callable, seeds: range) -> tuple[float, int]:
    """The largest difference, and the seed that gives it."""
    return max((difference(*make(seed), threads=1 + seed % 2), seed) for seed in seeds if _has_layers(make, seed))


def _has_layers(make: Callable, seed: int) -> bool:
    return any(node.op_type in ("Conv", "Gemm", "MatMul") for node in make(seed)[0].graph.node)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_equal(level: str, kind: str) -> None:
    worst, seed = _worst(KINDS[kind], range(FEW))
    assert worst < 1e-5, f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_answers_equal_at_length(level: str, kind: str) -> None:
    worst, seed = _worst(KINDS[kind], range(FEW, FEW + MANY))
    assert worst < 1e-5, f"seed {seed}"


def test_no_images_give_no_answers() -> None:
    model, feeds = random_convolution(3)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    (found,) = session(rewritten(model)).run(None, {"x": feeds["x"][:0]})
    assert found.shape[0] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_reaches_outputs_whose_weights_read_it(level: str, value: float) -> None:
    model, feeds = random_convolution(3)
    assert model.graph.node[0].op_type == "Conv"
    feeds["x"][0, 0] = value
    expected, found = (session(network).run(None, feeds)[0] for network in (model, rewritten(model)))
    finite = np.isfinite(expected)
    assert np.allclose(found[finite], expected[finite], atol=1e-5)
