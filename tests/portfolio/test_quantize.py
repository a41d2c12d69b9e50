"""Quantised models: what an empty filter adds stays, a loss is refused, float and int8 share a portfolio."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnx_shift.portfolio.pack import pack
from onnx_shift.portfolio.profiling import profile
from onnx_shift.portfolio.quantize import QuantiseError, quantize
from onnx_shift.runtime import LatencyObjective, ModelSwitcher, Portfolio
from tests.portfolio.models import QUICK, save

IMAGES = np.random.default_rng(0).standard_normal((64, 2, 6, 6)).astype(np.float32)


def _model(path: Path, filters: int = 4, empty: int = 1) -> Path:
    """A convolution whose first `empty` filters have no weights, but a bias of 0.0149; then classes."""
    generator = np.random.default_rng(1)
    weights = {
        "w": generator.standard_normal((filters, 2, 3, 3)).astype(np.float32),
        "b": np.full(filters, 0.0149, np.float32),
        "v": generator.standard_normal((filters * 16, 7)).astype(np.float32),
    }
    weights["w"][:empty] = 0
    return save(path, "c = Conv(input, w, b)\n f = Flatten(c)\n logits = MatMul(f, v)", weights)


def _labels(path: Path) -> NDArray[np.int64]:
    scores: NDArray[np.float32] = onnxruntime.InferenceSession(path).run(None, {"input": IMAGES})[0]
    return scores.argmax(axis=1)


def test_the_bias_of_an_empty_filter_stays(tmp_path: Path) -> None:
    path = _model(tmp_path / "a.onnx")
    batches = [(IMAGES, _labels(path))]
    found = quantize(path, batches, batches, align=4, max_drop=0.1)
    assert found.mended_filters == 1  # pruning keeps it: three filters are no multiple of four
    graph = found.model.graph
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    given = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    bias = next(node for node in graph.node if node.output[0] == convolution.input[2])
    kept = given[bias.input[0]] * given[bias.input[1]]
    assert np.allclose(kept, 0.0149, rtol=0.05)
    assert quantize(path, batches, batches, align=1, max_drop=0.1).mended_filters == 0


def test_the_check_states_accuracy_and_agreement_and_refuses_a_loss(tmp_path: Path) -> None:
    path = _model(tmp_path / "a.onnx")
    batches = [(IMAGES, _labels(path))]
    found = quantize(path, batches, batches, max_drop=0.1)
    assert (found.check.accuracy_float, found.check.images) == (1.0, 64)
    assert found.check.agreement == found.check.accuracy_int8 > 0.9
    assert 0 < found.check.largest_difference < 0.05
    narrow = [(IMAGES * 1e-3, _labels(path))]  # calibrated on images unlike those it is checked on
    with pytest.raises(QuantiseError, match=r"a.onnx: quantised, its accuracy falls from 100.00% to \d"):
        quantize(path, narrow, batches)
    onnx.save(found.model, tmp_path / "int8.onnx")
    with pytest.raises(QuantiseError, match=r"int8.onnx: is quantised already"):
        quantize(tmp_path / "int8.onnx", batches, batches)


def test_float_and_int8_share_a_portfolio_a_profile_and_a_policy(tmp_path: Path) -> None:
    path = _model(tmp_path / "net.onnx")
    batches = [(IMAGES, _labels(path))]
    small = tmp_path / "net.int8.onnx"
    onnx.save(quantize(path, batches, batches, max_drop=0.1).model, small)
    measured = profile([path, small], data=lambda: batches, dense=path, settings=QUICK)
    pack([path, small], tmp_path / "p.zip", profile=measured, keep_all=True)
    portfolio = Portfolio.open(tmp_path / "p.zip")
    assert [variant.name for variant in portfolio.variants] == ["net.int8", "net"]
    assert json.dumps(portfolio["net"].metadata["accuracy"]) == "1.0"
    with ModelSwitcher(portfolio, policy=LatencyObjective(p95_ms=1000), start="net", cache=False) as model:
        exact = model.run(None, {"input": IMAGES})[0]
        model.switch("net.int8")
        scores = model.run(None, {"input": IMAGES})[0]
    assert 0 < np.abs(scores - exact).max() < 0.05 * np.abs(exact).max()
