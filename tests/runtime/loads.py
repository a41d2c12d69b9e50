"""Variants and loads for policies."""

from onnx_shift.runtime.load import Load
from onnx_shift.runtime.portfolio import Variant

VARIANTS = tuple(Variant(name, size, size, 0, "") for name, size in (("small", 100), ("medium", 200), ("large", 400)))


def load(
    time_s: float,
    *,
    arrived: int = 0,
    waiting: int = 0,
    active: int = 1,
    busy_s: float = 0.05,
    completed: int = 5,
) -> Load:
    return Load(time_s, 0.05, arrived, completed, waiting, busy_s, (), VARIANTS[active], VARIANTS)
