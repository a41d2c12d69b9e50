"""A torch network to ONNX: dynamic batch, BatchNorm kept, zeros written as +0.0, outputs compared, metadata
attached.
"""

import copy
import io
import json
import logging
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from onnx_shift.claims import renew_claim
from onnx_shift.errors import OnnxShiftError, first_line
from onnx_shift.exporter.masks import Mask, apply_mask, count_all, count_kept
from onnx_shift.exporter.recipe import from_fields
from onnx_shift.files import write_bytes
from onnx_shift.models.registry import build
from onnx_shift.ort import CPU

OPSET = 17
EXPORTED = ("recipe", "model", "mask", "shape", "class_names", "normalisation")  # what a checkpoint must hold
TOLERANCE = 1e-3  # of the output's scale, between torch and onnxruntime; a wrong export is off by far more


class ExportError(OnnxShiftError):
    """A network that ONNX cannot express, or that computes something else there."""


def export_onnx(
    model: nn.Module, path: Path, *, shape: tuple[int, int, int], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `to_onnx` of the model to `path`, atomically."""
    write_bytes(path, to_onnx(model, shape=shape, metadata=metadata))


def to_onnx(model: nn.Module, *, shape: tuple[int, int, int], metadata: Mapping[str, str] | None = None) -> bytes:
    """`model` (on the CPU) as an ONNX file: input "input" (N, C, H, W) of `shape`, output "logits", any N.

    A model with a method `merged` is exported as what that returns (RepVGG). Metadata keys get the prefix
    "onnx_shift.". Raises ExportError when the model cannot be traced or the ONNX file's outputs differ.
    """
    merge = getattr(model, "merged", None)
    network: nn.Module = merge() if callable(merge) else copy.deepcopy(model)
    network.eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.0)  # -0.0 + 0.0 is +0.0: equal zeros deflate far better
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    proto = _trace(network, example)
    for key, value in (metadata or {}).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = f"onnx_shift.{key}", value
    renew_claim(proto)
    content: bytes = proto.SerializeToString()
    _compare(network, content, shape)
    return content


def _trace(network: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
    """The TorchScript exporter: it keeps BatchNorm, and takes a thirtieth of the other one's time."""
    buffer = io.BytesIO()
    previous = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # it announces its own deprecation on every call
            torch.onnx.export(
                network,
                (example,),
                buffer,  # type: ignore[arg-type]  # the old exporter writes to files as well
                dynamo=False,
                opset_version=OPSET,
                training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fuse BatchNorm
                do_constant_folding=False,
                input_names=["input"],
                output_names=["logits"],
                dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
            )
    except Exception as error:  # of anybody's forward
        raise ExportError(f"the model cannot be exported to ONNX ({first_line(error)})") from error
    finally:
        logging.getLogger("torch.onnx").setLevel(previous)
    proto = onnx.load_from_string(buffer.getvalue())
    proto.producer_name = "onnx-shift"
    return proto


def _compare(network: nn.Module, content: bytes, shape: tuple[int, int, int]) -> None:
    """Raise ExportError unless torch and onnxruntime agree, on another batch size than the traced one."""
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(images).numpy()
    try:
        session = onnxruntime.InferenceSession(content, providers=[CPU])
        (found,) = session.run(["logits"], {"input": images.numpy()})
    except Exception as error:
        raise ExportError(f"onnxruntime does not run the exported model ({first_line(error)})") from error
    if found.shape != expected.shape:
        raise ExportError(
            f"the exported model gives {found.shape} for three images, not {expected.shape}: "
            "its code freezes the batch size"
        )
    scale = float(np.abs(expected).max()) or 1.0
    difference = float(np.abs(found - expected).max()) / scale
    if not difference <= TOLERANCE:
        raise ExportError(f"the exported model's outputs differ from torch's by {difference:.2g} of their scale")


def export_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write the network of a checkpoint of this trainer to the ONNX file `path`, with its metadata.

    Raises ExportError when the recipe in it is not one of this version.
    """
    try:
        recipe = from_fields(checkpoint["recipe"])
    except (TypeError, AttributeError) as error:
        raise ExportError(f"{path}: the checkpoint's recipe is not of this version ({error})") from error
    shape = checkpoint["shape"]
    names = checkpoint["class_names"]
    model = build(recipe.model, num_classes=len(names), in_channels=shape[0], width=recipe.width)
    model.load_state_dict(checkpoint["model"])
    mask: Mask = checkpoint["mask"]
    apply_mask(model, mask)
    ratio = count_all(mask) / max(1, count_kept(mask))
    accuracy = checkpoint.get("accuracy")
    level = checkpoint.get("level")
    metadata = {
        "preset": recipe.preset,
        "method": recipe.method,
        "ratio": f"{ratio:.6g}",
        "level": "" if level is None else str(level),
        "seed": str(recipe.seed),
        "accuracy": "" if accuracy is None else repr(accuracy),
        "recipe_hash": recipe.hash,
        "class_names": json.dumps(names),
        "normalisation": json.dumps(checkpoint["normalisation"]),
    }
    export_onnx(model, path, shape=tuple(shape), metadata={key: value for key, value in metadata.items() if value})
