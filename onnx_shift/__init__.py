"""onnx-shift: a portfolio of small, fast ONNX models from one sparse network, switched in milliseconds.

The public names are loaded on first use, so that `import onnx_shift.runtime` stays as light as the device needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.version import __version__

if TYPE_CHECKING:
    from onnx_shift.onnx_pruner import prune
    from onnx_shift.runtime import ModelSwitcher, Portfolio

__all__ = ["ModelSwitcher", "OnnxShiftError", "Portfolio", "__version__", "prune"]

_HOME = {
    "ModelSwitcher": "onnx_shift.runtime",
    "Portfolio": "onnx_shift.runtime",
    "prune": "onnx_shift.onnx_pruner",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'onnx_shift' has no attribute {name!r}")
