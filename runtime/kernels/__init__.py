"""Convolutions and matrix products over weights with scattered zeros, as operators of onnxruntime on the CPU.

`register` makes a session take graphs that `compile_model` (or `rewrite`) wrote; `library` is the shared library that holds
the operators, None where it was not built. Only what is not zero is stored and multiplied, in 32-bit floats: outputs differ
from the dense ones by the order of additions alone. 0 · Inf and 0 · NaN, which are NaN, are left out with the zeros.
"""

from pathlib import Path

import onnxruntime as ort

from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.kernels.build import SOURCES, library_name

__all__ = ["available", "library", "register"]


def library() -> Path | None:
    """The shared library of the kernels, for `RegisterCustomOps` from any language; None where it was not built."""
    path = SOURCES / library_name()
    return path if path.is_file() else None


def available() -> bool:
    """Whether the library was built and this onnxruntime takes it."""
    try:
        register(ort.SessionOptions())
    except KernelsError:
        return False
    return True


def register(session_options: ort.SessionOptions) -> None:
    """Let a session made from `session_options` run our operators. Once for each options object.

    Raises KernelsError where the library was not built, or where this onnxruntime is too old for it.
    """
    path = library()
    if path is None:
        raise KernelsError("the sparse kernels were not built here: no C compiler was found when onnx-shift was installed")
    try:
        session_options.register_custom_ops_library(str(path))
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions share no base
        raise KernelsError(f"onnxruntime {ort.__version__} does not take the sparse kernels ({error})") from error
