"""train -> export: sparse portfolios in PyTorch; every level is exported as ONNX."""

from onnx_shift.exporter.recipe import PRESETS, Recipe, override, preset
from onnx_shift.exporter.rounds import Level, Progress, Run, train

__all__ = ["PRESETS", "Level", "Progress", "Recipe", "Run", "override", "preset", "train"]
