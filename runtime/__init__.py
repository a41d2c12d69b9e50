"""load -> switch: what runs on the device, on numpy and onnxruntime alone."""

from onnx_shift.runtime.errors import ClosedError, PortfolioError, ProviderError, RunError, SwitchError
from onnx_shift.runtime.policy import Load, Policy
from onnx_shift.runtime.portfolio import Portfolio, Variant
from onnx_shift.runtime.switcher import ModelSwitcher, SwitchRecord

__all__ = [
    "ClosedError",
    "Load",
    "ModelSwitcher",
    "Policy",
    "Portfolio",
    "PortfolioError",
    "ProviderError",
    "RunError",
    "SwitchError",
    "SwitchRecord",
    "Variant",
]
