"""The portfolios that `switching` is measured with: VGG-16 from full width to a quarter, and ResNet-50."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.portfolio.pack import pack

_PLAN = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)  # 0: max-pool
# Width and share of zeros: 59 MB half zero, then narrower and sparser, as pruned variants are.
VGG_VARIANTS = {
    "vgg-59MB": (1.0, 0.5),
    "vgg-29MB": (0.7, 0.75),
    "vgg-15MB": (0.5, 0.9),
    "vgg-4MB": (0.25, 0.95),
}
# One shape, zeros scattered over all of it: what differs is only what sparse kernels leave out.
SCATTERED_VARIANTS = {f"vgg-{zeros}": (1.0, zeros / 100) for zeros in (80, 90, 95, 98)}
RESNET_VARIANTS = {"resnet50-50": 0.5, "resnet50-90": 0.9}


def vgg_portfolio(folder: Path) -> tuple[Path, list[Path]]:
    """Return the portfolio of four VGG-16 variants and their models, made once in `folder`."""
    return _vggs(folder / "vgg.zip", VGG_VARIANTS)


def scattered_portfolio(folder: Path) -> tuple[Path, list[Path]]:
    """Return the portfolio of one VGG-16 with four shares of scattered zeros and its models, made once in `folder`."""
    return _vggs(folder / "scattered.zip", SCATTERED_VARIANTS)


def _vggs(portfolio: Path, variants: Mapping[str, tuple[float, float]]) -> tuple[Path, list[Path]]:
    paths = [portfolio.with_name(f"{name}.onnx") for name in variants]
    for path, (width, zeros) in zip(paths, variants.values(), strict=True):
        if not path.exists():
            onnx.save(_vgg16(width, zeros), path)
    return _packed(portfolio, paths), paths


def resnet_portfolio(folder: Path) -> tuple[Path, list[Path]]:
    """Return the portfolio of two ResNet-50 variants (224 x 224 images) and their models, made once in `folder`."""
    paths = [folder / f"{name}.onnx" for name in RESNET_VARIANTS]
    for path, zeros in zip(paths, RESNET_VARIANTS.values(), strict=True):
        if not path.exists():
            _export_resnet50(path, zeros)
    return _packed(folder / "resnet50.zip", paths), paths


def _packed(portfolio: Path, paths: list[Path]) -> Path:
    if not portfolio.exists():
        pack(paths, portfolio)
    return portfolio


def _vgg16(width: float, zeros: float) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    nodes, tensors, current, channels = [], [], "input", 3

    def weights(name: str, *shape: int) -> None:
        values = random.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) / 2))
        values[random.random(shape) < zeros] = 0
        tensors.append(numpy_helper.from_array(values, name))

    for index, planned in enumerate(_PLAN):
        if not planned:
            nodes.append(helper.make_node("MaxPool", [current], [f"p{index}"], kernel_shape=[2, 2], strides=[2, 2]))
            current = f"p{index}"
            continue
        outputs = int(planned * width)
        weights(f"w{index}", outputs, channels, 3, 3)
        tensors.append(numpy_helper.from_array(np.zeros(outputs, np.float32), f"b{index}"))
        names = [current, f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", names, [f"c{index}"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        current, channels = f"r{index}", outputs
    weights("classifier", 10, channels)
    nodes += [
        helper.make_node("GlobalAveragePool", [current], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "classifier"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "vgg16",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _export_resnet50(path: Path, zeros: float) -> None:
    import torch

    from onnx_shift.models.registry import build

    torch.manual_seed(0)
    net = build("resnet50", num_classes=1000, in_channels=3).eval()
    with torch.no_grad():
        for values in net.parameters():
            if values.dim() == 4:
                values[torch.rand_like(values) < zeros] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.zeros(1, 3, 224, 224),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )
