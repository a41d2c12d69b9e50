"""onnx-shift: a portfolio of small, fast ONNX models from one sparse network, switched in milliseconds.

The public names are loaded on first use, so that `import onnx_shift.runtime` stays as light as the device needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnx_shift.errors import OnnxShiftError
from onnx_shift.version import __version__

if TYPE_CHECKING:  # from where they are defined, so that type checkers see functions, not modules of the same name
    from onnx_shift.onnx_pruner.prune import PruneResult, fold_batch_norm, prune
    from onnx_shift.onnx_pruner.report import PruneReport
    from onnx_shift.onnx_pruner.verification.compare import Verification
    from onnx_shift.onnx_pruner.verification.compare import compare as verify
    from onnx_shift.portfolio.pack import pack
    from onnx_shift.portfolio.profile import Profile
    from onnx_shift.portfolio.profiling import Settings, profile
    from onnx_shift.portfolio.select import Selection, select
    from onnx_shift.runtime.portfolio import Portfolio
    from onnx_shift.runtime.switcher import ModelSwitcher

__all__ = [
    "ModelSwitcher",
    "OnnxShiftError",
    "Portfolio",
    "Profile",
    "PruneReport",
    "PruneResult",
    "Selection",
    "Settings",
    "Verification",
    "__version__",
    "fold_batch_norm",
    "pack",
    "profile",
    "prune",
    "select",
    "verify",
]

# public name -> where it is defined, below onnx_shift
_HOMES = {
    "ModelSwitcher": "runtime.switcher:ModelSwitcher",
    "Portfolio": "runtime.portfolio:Portfolio",
    "Profile": "portfolio.profile:Profile",
    "PruneReport": "onnx_pruner.report:PruneReport",
    "PruneResult": "onnx_pruner.prune:PruneResult",
    "Selection": "portfolio.select:Selection",
    "Settings": "portfolio.profiling:Settings",
    "Verification": "onnx_pruner.verification.compare:Verification",
    "fold_batch_norm": "onnx_pruner.prune:fold_batch_norm",
    "pack": "portfolio.pack:pack",
    "profile": "portfolio.profiling:profile",
    "prune": "onnx_pruner.prune:prune",
    "select": "portfolio.select:select",
    "verify": "onnx_pruner.verification.compare:compare",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnx_shift' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(import_module(f"onnx_shift.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
