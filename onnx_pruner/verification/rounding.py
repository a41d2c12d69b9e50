"""The original, computed in other ways that differ by rounding alone: what it varies between them no tolerance forbids.

One way is onnxruntime's own optimisation. The others move every weight, and every number that is fed, up or down in
its last place: a result rounded differently is the exact result of such neighbours (backward error analysis).
"""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import onnx
from onnx import TensorProto

from onnx_shift.onnx_pruner.engines.engine import CannotRunError
from onnx_shift.onnx_pruner.verification.difference import is_float, rounding_unit
from onnx_shift.onnx_pruner.verification.engines import (
    Feeds,
    Infer,
    Source,
    Value,
    complete,
    copied,
    opened,
)

NEIGHBOURS = 3  # how many times weights are moved
_MOVED = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def other_ways(runtime: str, original: Source, folder: str) -> Iterator[Infer]:
    """Yield runs of the original that differ by rounding; one model is open at a time."""
    for number in range(1 + NEIGHBOURS):
        with suppress(CannotRunError):
            yield _other_way(runtime, original, folder, number)


def _other_way(runtime: str, original: Source, folder: str, number: int) -> Infer:
    if number == 0:
        return opened("onnxruntime", original, folder, optimise=runtime == "onnxruntime")
    run = opened(runtime, _neighbour(original, number), folder)
    return lambda feeds: run(_moved_feeds(feeds, number))


def _neighbour(source: Source, seed: int) -> Source:
    """Return the model with its weights moved in the last place; vectors stay, for sizes and thresholds are such."""
    rng = np.random.default_rng(seed)
    model = copied(complete(source))
    constants = [
        a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.HasField("t")
    ]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type in _MOVED and len(tensor.dims) > 1:
            tensor.CopyFrom(onnx.numpy_helper.from_array(_moved(onnx.numpy_helper.to_array(tensor), rng), tensor.name))
    return source.changed(model)


def _moved_feeds(feeds: Feeds, seed: int) -> Feeds:
    rng = np.random.default_rng(seed)
    return {name: _moved_value(value, rng) for name, value in feeds.items()}


def _moved_value(value: Value, rng: np.random.Generator) -> Value:
    if isinstance(value, np.ndarray) and value.ndim > 1 and is_float(value) and value.itemsize > 1:
        return _moved(value, rng)
    return value


def _moved(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    unit = rounding_unit(values)
    wide = values.astype(np.float64) if values.dtype.itemsize > 2 else values.astype(np.float32)
    signs = rng.integers(0, 2, values.shape, dtype=np.int8) * 2 - 1
    return np.asarray(wide * (1 + unit * signs), values.dtype)
