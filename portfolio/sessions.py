"""Sessions to measure with: opened alike, fed with random inputs that fit the model."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_shift.errors import OnnxShiftError
from onnx_shift.ort import CPU, ORT_ERRORS
from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.session import Provider

Feed = dict[str, NDArray[Any]]

_NUMPY_OF_ORT = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class SessionError(OnnxShiftError):
    """onnxruntime does not load a model, or its inputs leave open what to feed it."""


def session_options(threads: int) -> Any:
    """Return options to measure with: all optimisations, `threads` for one inference, one node at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def open_session(model: Path | bytes, providers: Sequence[Provider], threads: int) -> Any:
    """Return an onnxruntime session with all optimisations on, or raise SessionError naming the file."""
    content = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(content, session_options(threads), providers=list(providers))
    except ORT_ERRORS as error:
        label = "a model" if isinstance(model, bytes) else str(model)
        raise SessionError(f"{label}: onnxruntime does not load it ({error})") from error


def open_compiled(
    model: ModelProto, threads: int, input_shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[Any, ModelProto] | None:
    """Return a session as a switcher serves with on the CPU, layers with scattered zeros on our kernels where that is
    faster for one image, and the graph that it runs; None where no layer is.
    """
    from onnx_shift.runtime import kernels

    if not kernels.available():
        return None
    try:
        choice = kernels.compile_model(model, shapes=input_shapes, make_options=lambda: session_options(threads))
    except KernelsError:  # what cannot be measured runs as it is
        return None
    if not choice.changed:
        return None
    options = session_options(threads)
    kernels.register(options)
    session = onnxruntime.InferenceSession(choice.model.SerializeToString(), options, providers=[CPU])
    return session, choice.model


def fixed_batch(session: Any) -> int | None:
    """Return the batch size that `session` insists on, or None where the first axis of its inputs is free."""
    for value in session.get_inputs():
        if value.shape and isinstance(value.shape[0], int) and value.shape[0] > 0:
            return value.shape[0]
    return None


def random_inputs(session: Any, batch: int, seed: int, input_shapes: Mapping[str, Sequence[int]] | None = None) -> Feed:
    """Return normal random numbers for every input of `session`; a free first axis becomes `batch`.

    Other free axes are taken from `input_shapes` (input name to a whole shape, its first axis overridden by
    `batch` where it is free). Raises SessionError naming the input where one is left open.
    """
    generator = np.random.default_rng(seed)
    return {
        value.name: _random(value, _shape(value, batch, (input_shapes or {}).get(value.name)), generator)
        for value in session.get_inputs()
    }


def _shape(value: Any, batch: int, wanted: Sequence[int] | None) -> tuple[int, ...]:
    declared = list(value.shape)
    if wanted is not None and len(wanted) != len(declared):
        raise SessionError(f"input {value.name}: has {len(declared)} axes, the given shape {len(wanted)}")
    shape = []
    for index, axis in enumerate(declared):
        if isinstance(axis, int) and axis > 0:
            shape.append(axis)
        elif index == 0:
            shape.append(batch)
        elif wanted is not None:
            shape.append(wanted[index])
        else:
            text = ",".join(str(axis) for axis in declared)
            raise SessionError(f"input {value.name}: axis {index} of ({text}) is free, so state its shape")
    return tuple(shape)


def _random(value: Any, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    if value.type not in _NUMPY_OF_ORT:
        raise SessionError(f"input {value.name}: no random data can be made for {value.type}")
    kind = np.dtype(_NUMPY_OF_ORT[value.type])
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    return generator.integers(0, 2, math.prod(shape)).reshape(shape).astype(kind)
