"""The refusals of the runtime, one class per thing a caller may want to tell apart."""

from onnx_shift.errors import OnnxShiftError


class PortfolioError(OnnxShiftError):
    """A portfolio file that cannot be read, or whose content does not match its manifest."""


class ProviderError(OnnxShiftError):
    """An execution provider that was asked for by name and is not there."""


class SwitchError(OnnxShiftError):
    """A variant that could not be made ready; the variant that served before still serves."""


class ClosedError(OnnxShiftError):
    """A switcher that was closed, or that belongs to the parent of a forked process."""


class RunError(OnnxShiftError, ValueError):
    """A feed that onnxruntime refused: a wrong name, type or shape."""


class KernelsError(OnnxShiftError):
    """Sparse kernels that were asked for and are not there: not built here, or refused by this onnxruntime."""
