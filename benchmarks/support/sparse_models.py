"""The networks of the sparse-kernel benchmark: random weights of which a share is zero, BatchNorm folded."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pool
_MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class _Writer:
    """Collects nodes and weights; `zeros` of each convolution's weights but the first's are zero, and the first filters
    of each, a share `empty`.
    """

    def __init__(self, zeros: float, seed: int, empty: float = 0.0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._zeros, self._empty = zeros, empty
        self._random = np.random.default_rng(seed)

    def add(self, operator: str, inputs: Sequence[str], **attributes: object) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def tensor(self, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(array.astype(np.float32), f"weight_{len(self.tensors)}"))
        return self.tensors[-1].name

    def convolution(
        self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, dense: bool = False
    ) -> str:
        shape = (outputs, inputs // groups, kernel, kernel)
        weights = self._random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        if not dense:
            weights *= self._random.random(shape) >= self._zeros
            weights /= np.sqrt(max(1 - self._zeros, 1e-3))
            weights[: int(outputs * self._empty)] = 0
        bias = self._random.standard_normal(outputs) * 0.01
        return self.add(
            "Conv",
            [x, self.tensor(weights), self.tensor(bias)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def classifier(self, x: str, channels: int, classes: int) -> str:
        x = self.add("Flatten", [self.add("GlobalAveragePool", [x])])
        weights = self._random.standard_normal((classes, channels)) / np.sqrt(channels)
        return self.add("Gemm", [x, self.tensor(weights), self.tensor(np.zeros(classes))], transB=1)

    def model(self, output: str, size: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, size, size])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", None])],
            self.tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def vgg16(zeros: float, seed: int = 0, width: float = 1.0, empty: float = 0.0) -> onnx.ModelProto:
    """VGG-16 for 32x32 images, 10 classes."""
    writer, x, channels = _Writer(zeros, seed, empty), "input", 3
    for outputs in _VGG16:
        if not outputs:
            x = writer.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
            continue
        outputs = int(outputs * width)
        x = writer.add("Relu", [writer.convolution(x, channels, outputs, 3, dense=channels == 3)])
        channels = outputs
    return writer.model(writer.classifier(x, channels, 10), 32)


def resnet20(zeros: float, seed: int = 0, empty: float = 0.0) -> onnx.ModelProto:
    """ResNet-20 for 32x32 images, 10 classes, its shortcuts 1x1 convolutions."""
    writer = _Writer(zeros, seed, empty)
    x = writer.add("Relu", [writer.convolution("input", 3, 16, 3, dense=True)])
    channels = 16
    for width in (16, 32, 64):
        for index in range(3):
            stride = 2 if index == 0 and width > channels else 1
            y = writer.add("Relu", [writer.convolution(x, channels, width, 3, stride)])
            y = writer.convolution(y, width, width, 3)
            if channels != width:
                x = writer.convolution(x, channels, width, 1, stride)
            x = writer.add("Relu", [writer.add("Add", [y, x])])
            channels = width
    return writer.model(writer.classifier(x, channels, 10), 32)


def resnet50(zeros: float, seed: int = 0) -> onnx.ModelProto:
    """ResNet-50 for 224x224 images, 1,000 classes; the stride is in the 3x3 convolution."""
    writer = _Writer(zeros, seed)
    x = writer.add("Relu", [writer.convolution("input", 3, 64, 7, 2, dense=True)])
    x = writer.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for width, count, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            stride = first_stride if index == 0 else 1
            y = writer.add("Relu", [writer.convolution(x, channels, width, 1)])
            y = writer.add("Relu", [writer.convolution(y, width, width, 3, stride)])
            y = writer.convolution(y, width, 4 * width, 1)
            if index == 0:
                x = writer.convolution(x, channels, 4 * width, 1, stride)
            x = writer.add("Relu", [writer.add("Add", [y, x])])
            channels = 4 * width
    return writer.model(writer.classifier(x, channels, 1000), 224)


def mobilenet(zeros: float, seed: int = 0) -> onnx.ModelProto:
    """MobileNetV1 for 224x224 images, 1,000 classes; only its 1x1 convolutions are sparse."""
    writer = _Writer(zeros, seed)
    x = writer.add("Relu", [writer.convolution("input", 3, 32, 3, 2, dense=True)])
    channels = 32
    for outputs, stride in _MOBILENET:
        x = writer.add("Relu", [writer.convolution(x, channels, channels, 3, stride, groups=channels, dense=True)])
        x = writer.add("Relu", [writer.convolution(x, channels, outputs, 1)])
        channels = outputs
    return writer.model(writer.classifier(x, channels, 1000), 224)
