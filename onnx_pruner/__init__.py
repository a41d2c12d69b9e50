"""analyse -> plan -> apply -> verify: exact removal, on ONNX alone."""

from onnx_shift.onnx_pruner.graph.reading import PruneError
from onnx_shift.onnx_pruner.prune import PruneResult, fold_batch_norm, prune
from onnx_shift.onnx_pruner.report import Kept, LayerChange, PruneReport

__all__ = ["Kept", "LayerChange", "PruneError", "PruneReport", "PruneResult", "fold_batch_norm", "prune"]
