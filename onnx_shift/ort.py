"""What every part needs to know of onnxruntime: the name of its CPU provider, and what it raises."""

from onnxruntime.capi import onnxruntime_pybind11_state

from onnx_shift.errors import OnnxShiftError

CPU = "CPUExecutionProvider"

# onnxruntime's exceptions share no base but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(onnxruntime_pybind11_state).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
# What a run may raise besides: a provider's refusal, inputs of another type.
RUN_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, RuntimeError, ValueError, TypeError)
# What building a session may raise: a missing operator, a provider's refusal, no memory.
BUILD_ERRORS: tuple[type[Exception], ...] = (
    *ORT_ERRORS,
    OnnxShiftError,
    RuntimeError,
    ValueError,
    MemoryError,
    OSError,
)
