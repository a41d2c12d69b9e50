"""The shared library of the kernels, and letting sessions use it."""

from pathlib import Path

import onnxruntime as ort

from onnx_shift.ort import ORT_ERRORS
from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.kernels.build import SOURCES, library_name


def library() -> Path | None:
    """The shared library of the kernels, for `RegisterCustomOps` from any language; None where it was not built."""
    path = SOURCES / library_name()
    return path if path.is_file() else None


def register(session_options: ort.SessionOptions) -> None:
    """Let a session made from `session_options` run our operators. Once for each options object.

    Raises KernelsError where the library was not built, or where this onnxruntime is too old for it.
    """
    path = library()
    if path is None:
        raise KernelsError("the sparse kernels were not built: there was no C compiler when onnx-shift was installed")
    try:
        session_options.register_custom_ops_library(str(path))
    except (*ORT_ERRORS, RuntimeError) as error:
        raise KernelsError(f"onnxruntime {ort.__version__} does not take the sparse kernels ({error})") from error


def missing() -> str | None:
    """Why the kernels cannot be used here; None where they can."""
    try:
        register(ort.SessionOptions())
    except KernelsError as error:
        return str(error)
    return None


def available() -> bool:
    """Whether the library was built and this onnxruntime takes it."""
    return missing() is None
