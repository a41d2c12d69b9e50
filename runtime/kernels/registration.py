"""The shared library of the kernels, and letting sessions use it."""

import os
from functools import cache
from pathlib import Path

import onnxruntime as ort

from onnx_shift.ort import RUN_ERRORS
from onnx_shift.runtime.errors import KernelsError
from onnx_shift.runtime.kernels.build import SOURCES, library_name

LEVEL = "ONNX_SHIFT_KERNELS"  # names the instructions to use: avx512, avx2, baseline; or none, for no kernels


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
    except RUN_ERRORS as error:
        raise KernelsError(f"onnxruntime {ort.__version__} does not take the sparse kernels ({error})") from error


def missing() -> str | None:
    """Why the kernels cannot be used here; None where they can. ONNX_SHIFT_KERNELS=none switches them off."""
    if os.environ.get(LEVEL) == "none":
        return f"switched off by {LEVEL}"
    try:
        register(ort.SessionOptions())
    except KernelsError as error:
        return str(error)
    return None


def available() -> bool:
    """Whether the library was built, this onnxruntime takes it, and it is not switched off."""
    return missing() is None


def identity() -> str:
    """What tells these kernels from others: library and instructions asked for; empty where they are missing."""
    path = library()
    if path is None or missing():
        return ""
    return f"{_sha256(path)} {os.environ.get(LEVEL, '')}"


@cache
def _sha256(path: Path) -> str:
    import hashlib  # brings OpenSSL, a tenth of what importing the runtime may cost

    return hashlib.sha256(path.read_bytes()).hexdigest()
