"""Tiny textual graphs for the pruner's tests: build, prune, compare in onnxruntime without optimisation, count."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnx_shift.onnx_pruner import PruneError, PruneReport, prune

Array = NDArray[np.generic]


Floats = NDArray[np.float32]


def weight(*shape: int, dead: tuple[int, ...] = (), unread: tuple[int, ...] = (), seed: int = 0) -> Floats:
    """Random weights with zero filters `dead` (first axis) and zero input slices `unread` (second axis)."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    values[list(dead)] = -0.0
    if unread:
        values[:, list(unread)] = 0
    return values


def bias(count: int, **values: float) -> Floats:
    """Small positive biases; `_3=-1` sets entry 3."""
    found = np.linspace(0.1, 0.5, count, dtype=np.float32)
    for key, value in values.items():
        found[int(key[1:])] = value
    return found


def ints(*values: int) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


@dataclass(frozen=True)
class Pruned:
    """A pruned model with what it was made from; `shape(name)` is that of a weight by its node's output name."""

    source: onnx.ModelProto
    model: onnx.ModelProto
    report: PruneReport

    def weight(self, output: str, index: int = 1) -> tuple[int, ...]:
        node = next(n for n in self.model.graph.node if output in n.output)
        tensor = next(t for t in self.model.graph.initializer if t.name == node.input[index])
        return tuple(tensor.dims)

    def operators(self) -> list[str]:
        return [node.op_type for node in self.model.graph.node]


def build(text: str, weights: Mapping[str, Array], opset: int, ir_version: int = 10) -> onnx.ModelProto:
    """A checked model from textual form and arrays."""
    model = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Outputs in onnxruntime, optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def random_feeds(model: onnx.ModelProto, batch: int, free: int = 8, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    feeds: dict[str, Array] = {}
    for info in model.graph.input:
        if info.name in weights:
            continue
        dims = info.type.tensor_type.shape.dim
        shape = [d.dim_value if d.HasField("dim_value") else (batch if k == 0 else free) for k, d in enumerate(dims)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[info.name] = values.astype(dtype)
    return feeds


@pytest.fixture
def exact() -> Callable[..., Pruned]:
    """Prune a textual graph, check that outputs stay equal for two batch sizes and that the input was not touched."""

    def check(
        text: str,
        weights: Mapping[str, Array],
        *,
        opset: int = 17,
        align: int = 1,
        ir_version: int = 10,
        tolerance: float = 2e-5,
    ) -> Pruned:
        model = build(text, weights, opset, ir_version)
        before = model.SerializeToString()
        result = prune(model, align=align, verify=False)
        assert model.SerializeToString() == before, "the argument was edited"
        onnx.checker.check_model(result.model, full_check=True)
        for batch in (1, 3):
            for seed in (0, 1):
                feeds = random_feeds(model, batch, seed=seed)
                for want, got in zip(run(model, feeds), run(result.model, feeds), strict=True):
                    assert want.dtype == got.dtype
                    assert want.shape == got.shape
                    scale = float(np.abs(want.astype(np.float64)).max(initial=0)) or 1.0
                    np.testing.assert_allclose(
                        got.astype(np.float64), want.astype(np.float64), rtol=0, atol=tolerance * scale
                    )
        return Pruned(model, result.model, result.report)

    return check


Exact = Callable[..., Any]


ADDS_NOTHING = """
    a = Conv(x, w1)
    t = Transpose<perm=[0,2,3,1]>(a)
    l = LayerNormalization(t, scale)
    m = MatMul(l, nothing)
    r = Add(t, m)"""


ITS_WEIGHTS = {
    "w1": weight(8, 3, 1, 1, dead=(2, 5)), "scale": weight(8),
    "nothing": weight(8, 8, dead=tuple(range(8))), "w2": weight(8, 4, seed=1),
}  # fmt: skip


def refusal(source: Path | onnx.ModelProto) -> str:
    with pytest.raises(PruneError) as caught:
        prune(source)
    text = str(caught.value)
    assert "\n" not in text
    assert "defect" not in text
    return text
