"""Convolutions and matrix products over weights with scattered zeros, as operators of onnxruntime on the CPU.

`register` makes a session take graphs that `compile_model` wrote; `library` is the shared library that holds the
operators, for other languages. Only what is not zero is stored and multiplied, in 32-bit floats: outputs differ from
the dense ones by the order of additions alone. 0 · Inf and 0 · NaN, which are NaN, are left out with the zeros.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnx_shift.runtime.kernels.registration import available, identity, library, missing, register

if TYPE_CHECKING:
    from onnx_shift.runtime.kernels.choose import Choice, LayerChoice
    from onnx_shift.runtime.kernels.compile import compile_model

__all__ = ["Choice", "LayerChoice", "available", "compile_model", "identity", "library", "missing", "register"]
_LATE = {"Choice": "choose", "LayerChoice": "choose", "compile_model": "compile"}


def __getattr__(name: str) -> Any:
    if name in _LATE:  # registering, all that a device with a compiled model needs, stays quick
        return getattr(import_module(f"onnx_shift.runtime.kernels.{_LATE[name]}"), name)
    raise AttributeError(f"module 'onnx_shift.runtime.kernels' has no attribute {name!r}")
