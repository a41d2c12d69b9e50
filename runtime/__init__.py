"""load -> switch: what runs on the device, on numpy and onnxruntime alone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnx_shift.runtime.errors import ClosedError, PortfolioError, ProviderError, RunError, SwitchError
from onnx_shift.runtime.portfolio import Portfolio, Variant
from onnx_shift.runtime.record import SwitchRecord
from onnx_shift.runtime.switcher import ModelSwitcher

if TYPE_CHECKING:
    from onnx_shift.runtime.load import Load, Policy
    from onnx_shift.runtime.policy import LatencyObjective, MemoryBudget, QueriesPerSecond, Together

__all__ = [
    "ClosedError",
    "LatencyObjective",
    "Load",
    "MemoryBudget",
    "ModelSwitcher",
    "Policy",
    "Portfolio",
    "PortfolioError",
    "ProviderError",
    "QueriesPerSecond",
    "RunError",
    "SwitchError",
    "SwitchRecord",
    "Together",
    "Variant",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # only a switcher with a policy needs the rest: importing the runtime stays quick
        return getattr(import_module("onnx_shift.runtime.policy"), name)
    raise AttributeError(f"module 'onnx_shift.runtime' has no attribute {name!r}")
