"""Build a network of the zoo with random weights and export it to ONNX."""

import io
import warnings
from collections.abc import Callable
from zlib import crc32

import onnx
import torch
from torch import Tensor, nn


def randomise(module: nn.Module) -> None:
    """Draw weights that keep the signal's scale, biases of both signs, and BatchNorm statistics."""
    for part in module.modules():
        if isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.5)
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(part.running_mean, 0, 0.3)
                nn.init.uniform_(part.running_var, 0.5, 1.5)
        elif isinstance(part, (nn.modules.conv._ConvNd, nn.Linear)):
            fan_in = part.weight[0].numel()
            nn.init.normal_(part.weight, 0, (2 / fan_in) ** 0.5)
            if part.bias is not None:
                nn.init.normal_(part.bias, 0, 0.3)


def export(build: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]], *, opset: int = 17) -> onnx.ModelProto:
    """Return the network in ONNX with a free batch size; every other one keeps its BatchNorm nodes."""
    seed = crc32(build.__name__.encode())
    torch.manual_seed(seed)
    module, inputs = build()
    randomise(module)
    return export_module(module, inputs, fused=seed % 2 == 0, opset=opset)


def export_module(module: nn.Module, inputs: tuple[Tensor, ...], *, fused: bool, opset: int = 17) -> onnx.ModelProto:
    """Export a network as it is; `fused` lets the exporter fold BatchNorm into the convolution before it."""
    names = [f"input{k}" for k in range(len(inputs))]
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        outputs = module.eval()(*inputs)
        torch.onnx.export(
            module,
            inputs,
            file,
            dynamo=False,
            opset_version=opset,
            training=torch.onnx.TrainingMode.EVAL if fused else torch.onnx.TrainingMode.PRESERVE,
            input_names=names,
            output_names=[f"output{k}" for k in range(len(outputs) if isinstance(outputs, tuple) else 1)],
            dynamic_axes={name: {0: "N"} for name in names},
        )
    return onnx.load_from_string(file.getvalue())
