"""Compiling a model for this device: its sparse layers run on our kernels where that is faster."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from onnx_shift.ort import CPU, RUN_ERRORS
from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.kernels.choose import Choice, MakeOptions, choose, random_feeds
from onnx_shift.runtime.kernels.registration import register

if TYPE_CHECKING:
    import onnx


def with_tensors(model: bytes, arrays: Mapping[str, np.ndarray[Any, Any]]) -> "onnx.ModelProto":
    """Parse `model`, its initializers that lie outside taken from `arrays`."""
    import onnx

    parsed = onnx.load_model_from_string(model)
    for tensor in parsed.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.CopyFrom(onnx.numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return parsed


def compile_model(
    model: "onnx.ModelProto",
    *,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    feeds: Mapping[str, np.ndarray[Any, Any]] | None = None,
    make_options: MakeOptions = ort.SessionOptions,
) -> Choice:
    """Return `model` with those layers rewritten for the kernels that are faster so on this device, and what was
    measured.

    Measured with `feeds`, or with random inputs of `batch` images or of `shapes`, under the options that
    `make_options` makes. Fold BatchNormalization before. The argument is not changed; the result's model is it where
    nothing would be faster. Raises KernelsError where the kernels are missing or the model cannot be measured.
    """
    import onnx

    register(ort.SessionOptions())
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
        if feeds is None:
            session = ort.InferenceSession(model.SerializeToString(), make_options(), providers=[CPU])
            feeds = random_feeds(session.get_inputs(), batch, shapes or {})
        choice = choose(inferred, make_options, feeds)
    except RUN_ERRORS as error:
        raise KernelsError(f"the model cannot be compiled: {' '.join(str(error).split())}") from error
    return choice if choice.changed else Choice(model, choice.layers, choice.dense_ms, choice.sparse_ms)
