"""Checkpoints of other trainers: OpenLTH's weights and mask, or any state dict of a model of the registry."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onnx_shift.exporter.checkpoint import CheckpointError, load_checkpoint
from onnx_shift.exporter.export import EXPORTED, ExportError, export_checkpoint, export_onnx
from onnx_shift.exporter.masks import Mask, apply_mask
from onnx_shift.models.registry import MODELS, build

_WRAPPERS = ("module.", "model.", "_orig_mod.")  # DataParallel, OpenLTH's ImageNet models, torch.compile


def export_any(
    path: Path, output: Path, *, model: str | None, mask: Path | None, shape: tuple[int, int, int] | None
) -> str:
    """Write the checkpoint `path` to `output` as ONNX; returns one line about what it was taken for.

    A checkpoint of this trainer knows all about itself. For a state dict (OpenLTH's `model_ep160_it0.pth`,
    say) the model is found by comparing names and shapes unless given; the mask is `mask`, or the one inside,
    or `mask.pth` beside it; `shape` is the images' (default 3x32x32, or 3x224x224 for networks with ImageNet's stem).
    """
    content = load_checkpoint(path)
    if "recipe" in content and "class_names" in content:
        export_checkpoint(load_checkpoint(path, EXPORTED), output)
        return f"round {content['round']} of a {content['recipe']['preset']} run"
    state, inside = state_dict(path, content)
    network, name = _network(path, state, model)
    beside = path.parent / "mask.pth"
    if mask is None and not inside and beside.exists():
        mask = beside
    masked = ", no mask"
    if mask is not None or inside:
        zeros = _apply(network, inside if mask is None else load_checkpoint(mask), mask or path)
        masked = f", {zeros:,} weights zero by {mask or path}"
    if shape is None:
        shape = (3, 32, 32) if "cifar" in name or name.startswith("vgg") else (3, 224, 224)
    prunable = sum(parameter.numel() for parameter in network.parameters() if parameter.dim() > 1)
    kept = sum(int((parameter != 0).sum()) for parameter in network.parameters() if parameter.dim() > 1)
    metadata = {"ratio": f"{prunable / max(1, kept):.6g}", "model": name}
    try:
        export_onnx(network, output, shape=shape, metadata=metadata)
    except ExportError as error:
        raise ExportError(f"{path}: {error}; --shape gives the shape of its images") from error
    return f"{name}{masked}"


def state_dict(path: Path, content: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors by their plain names, whatever they are wrapped in; apart, the masks that OpenLTH's
    PrunedModel keeps as buffers: mask_layers___0___conv___weight.
    """
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content.get(key), dict):
            content = content[key]
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{path}: holds no weights")
    stripped = True
    while stripped:
        stripped = False
        for prefix in _WRAPPERS:
            wrapped = [key.startswith(prefix) for key in state if not key.startswith("mask_")]
            if wrapped and all(wrapped):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                stripped = True
    masks = {
        key.removeprefix("mask_").replace("___", "."): value for key, value in state.items() if key.startswith("mask_")
    }
    return {key: value for key, value in state.items() if not key.startswith("mask_")}, masks


def _network(path: Path, state: dict[str, Tensor], model: str | None) -> tuple[nn.Module, str]:
    weights = [value for value in state.values() if value.dim() >= 2]
    if not weights:
        raise CheckpointError(f"{path}: holds no convolution or linear weights")
    classes, channels = weights[-1].shape[0], weights[0].shape[1]
    for name in [model] if model is not None else MODELS:
        for width in _widths(weights[0].shape[0]):
            with torch.device("meta"):  # a wrong guess may be of any size
                own = build(name, num_classes=classes, in_channels=channels, width=width).state_dict()
            if own.keys() == state.keys() and all(own[key].shape == state[key].shape for key in own):
                network = build(name, num_classes=classes, in_channels=channels, width=width)
                network.load_state_dict(state)
                return network, name
    if model is not None:
        raise CheckpointError(f"{path}: its weights do not fit --model {model}")
    raise CheckpointError(f"{path}: its weights fit none of the known models; name one with --model")


def _widths(first_channels: int) -> Iterator[float]:
    """Width multipliers under which a first layer of 64, 16 or 32 channels has `first_channels`."""
    yield 1.0
    yield from (first_channels / usual for usual in (64, 16, 32) if first_channels != usual)


def _apply(network: nn.Module, masks: dict[str, Any], path: Path) -> int:
    """Set the weights that the masks of the file `path` remove to zero; returns how many are."""
    own = dict(network.named_parameters())
    mask: Mask = {}
    for name, kept in masks.items():
        plain = next((name.removeprefix(p) for p in ("", *_WRAPPERS) if name.removeprefix(p) in own), None)
        if plain is None or not isinstance(kept, Tensor) or kept.shape != own[plain].shape:
            raise CheckpointError(f"{path}: {name} is no mask of a weight of the model")
        mask[plain] = kept.to(torch.bool)
    apply_mask(network, mask)
    return sum(int((~kept).sum()) for kept in mask.values())


def parse_shape(text: str | None) -> tuple[int, int, int] | None:
    """Read "3,32,32". Raises CheckpointError when it is not three positive numbers."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise CheckpointError(f"--shape {text}: give channels, height and width, such as 3,32,32")
    channels, height, width = (int(part) for part in parts)
    return channels, height, width
