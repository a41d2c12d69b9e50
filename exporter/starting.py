"""Weights to start from: a checkpoint, ours or anybody's, or an ONNX file with the model's own names."""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from onnx_shift.errors import first_line
from onnx_shift.exporter.checkpoint import CheckpointError, load_checkpoint
from onnx_shift.exporter.openlth import state_dict


def load_weights(model: nn.Module, path: Path) -> None:
    """Give `model` the weights of `path`. Raises CheckpointError naming what is missing or of another shape."""
    state = _of_onnx(path) if path.suffix == ".onnx" else state_dict(path, load_checkpoint(path))[0]
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # which ONNX does not keep
    for name in own.keys() - counters:
        if name not in state:
            raise CheckpointError(f"{path}: holds no {name}: it is of another model, or was folded or pruned")
        if state[name].shape != own[name].shape:
            theirs, ours = (tuple(part.shape) for part in (state[name], own[name]))
            raise CheckpointError(f"{path}: its {name} is {theirs}, the model's {ours}")
    with torch.no_grad():
        model.load_state_dict({name: state.get(name, value) for name, value in own.items()})


def _of_onnx(path: Path) -> dict[str, Tensor]:
    try:
        tensors = onnx.load(path).graph.initializer
        return {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in tensors}
    except Exception as error:  # damage shows as almost anything
        raise CheckpointError(f"{path}: not a usable ONNX file ({first_line(error, kind=True)})") from error
