"""Small models to profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

from onnx_shift.portfolio.profiling import Settings

QUICK = Settings(batches=(1, 4), seconds=0.01, attempts=1, memory=False)


def _parse(signature: str, body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13]> g {signature} {{ {body} }}')


def save(path: Path, body: str, weights: dict[str, NDArray[Any]], batch: str = "N", **metadata: str) -> Path:
    signature = f"(float[{batch},2,6,6] input) => (float[{batch},7] logits)"
    model = _parse(signature, body)
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    for key, value in metadata.items():
        model.metadata_props.add(key=f"onnx_shift.{key}", value=value)
    onnx.save(model, path)
    return path


def _linear(path: Path, classes: Sequence[int] = range(7), batch: str = "N", **metadata: str) -> Path:
    """A model whose scores are the first seven pixels, in the order of `classes`."""
    weights = np.zeros((72, 7), np.float32)
    weights[np.arange(7), list(classes)] = 1
    return save(path, "f = Flatten(input)\n logits = MatMul(f, w)", {"w": weights}, batch, **metadata)


def _convolution(path: Path, channels: int, norm: bool = False, **metadata: str) -> Path:
    generator = np.random.default_rng(channels)

    def random(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape).astype(np.float32)

    weights = {"w": random(channels, 2, 3, 3), "b": random(channels), "v": random(channels * 16, 7)}
    layer = "c = Conv(input, w, b)\n"
    if norm:
        layer += " d = BatchNormalization(c, s, t, m, q)\n"
        weights |= {name: np.abs(random(channels)) + 0.5 for name in "stmq"}
    body = f"{layer} a = Relu({'d' if norm else 'c'})\n f = Flatten(a)\n logits = MatMul(f, v)"
    return save(path, body, weights, **metadata)


def _images(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    pixels = np.random.default_rng(seed).standard_normal((count, 2, 6, 6)).astype(np.float32)
    return pixels, pixels.reshape(count, -1)[:, :7].argmax(axis=1)
