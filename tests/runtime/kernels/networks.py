"""Random layers and small networks, sparse in all degrees, and running them both ways."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.runtime import kernels
from onnx_shift.runtime.kernels.find import find_layers
from onnx_shift.runtime.kernels.rewrite import rewrite

ACTIVATIONS = (
    "", "Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "Silu", "HardSilu"
)  # fmt: skip


class Writer:
    """Collects the nodes and weights of a graph."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def tensor(self, *shape: int, zeros: float = 0.0) -> str:
        array = self.random.standard_normal(shape) * (self.random.random(shape) >= zeros)
        array /= max(1, np.sqrt(np.count_nonzero(array) / shape[0]))  # so that answers are of the size of inputs
        return self.constant(array.astype(np.float32))

    def constant(self, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(array, f"t{len(self.tensors)}"))
        return self.tensors[-1].name

    def activation(self, name: str, kind: str) -> str:
        if kind in ("Silu", "HardSilu"):
            return self.add("Mul", name, self.add("Sigmoid" if kind == "Silu" else "HardSigmoid", name))
        if kind == "Clip":
            return self.add("Clip", name, self.constant(np.float32(-0.5)), self.constant(np.float32(1)))
        return self.add(kind, name) if kind else name

    def model(self, inputs: dict[str, Sequence[int | str]], output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def random_convolution(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """One convolution with everything that may stand around it, and inputs."""
    random = np.random.default_rng(seed)
    writer = Writer(random)
    dimensions = int(random.choice([1, 2, 2]))
    groups, images = int(random.choice([1, 1, 2, 3])), int(random.choice([1, 1, 2, 3, 4, 8, 16, 17, 40]))
    channels, outputs = groups * int(random.integers(1, 40)), groups * int(random.integers(1, 20))
    kernel, dilations, strides = ([int(random.integers(1, most)) for _ in range(dimensions)] for most in (5, 3, 4))
    pads = [int(random.integers(0, 3)) for _ in range(2 * dimensions)]
    sizes = [
        max(1, (kernel[k] - 1) * dilations[k] + 1 - pads[k] - pads[k + dimensions]) + int(random.integers(0, 20))
        for k in range(dimensions)
    ]
    weights = writer.tensor(outputs, channels // groups, *kernel, zeros=random.choice([0, 0.5, 0.9, 0.98, 1]))
    inputs = ["x", weights] + ([writer.tensor(outputs)] if random.random() < 0.7 else [])
    result = writer.add("Conv", *inputs, strides=strides, dilations=dilations, pads=pads, group=groups)
    feeds = {"x": random.standard_normal((images, channels, *sizes)).astype(np.float32)}
    if random.random() < 0.4:
        result = writer.add("Add", *random.permutation([result, "added"]))
        found = [
            (sizes[k] + pads[k] + pads[k + dimensions] - (kernel[k] - 1) * dilations[k] - 1) // strides[k] + 1
            for k in range(dimensions)
        ]
        feeds["added"] = random.standard_normal((images, outputs, *found)).astype(np.float32)
    result = writer.activation(result, str(random.choice(ACTIVATIONS)))
    return writer.model({name: value.shape for name, value in feeds.items()}, result), feeds


def random_product(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """One Gemm or MatMul, with bias and activation."""
    random = np.random.default_rng(seed)
    writer = Writer(random)
    channels, outputs = (int(random.integers(1, 150)) for _ in range(2))
    zeros = random.choice([0, 0.5, 0.9, 1])
    if random.random() < 0.5:
        shape = [int(random.choice([1, 2, 7, 16, 33])), channels]
        across = int(random.integers(0, 2))
        weights = writer.tensor(*((outputs, channels) if across else (channels, outputs)), zeros=zeros)
        result = writer.add("Gemm", "x", weights, writer.tensor(outputs), transB=across)
    else:
        shape = [*(int(random.integers(1, 6)) for _ in range(random.integers(1, 4))), channels]
        result = writer.add("MatMul", "x", writer.tensor(channels, outputs, zeros=zeros))
        if random.random() < 0.6:
            result = writer.add("Add", writer.tensor(outputs), result)
    result = writer.activation(result, str(random.choice(ACTIVATIONS)))
    return writer.model({"x": shape}, result), {"x": random.standard_normal(shape).astype(np.float32)}


def random_network(seed: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Convolutions, pools, residual Adds and other nodes between them, so that some activations go packed."""
    random = np.random.default_rng(seed)
    writer = Writer(random)
    images, channels, size = (
        int(random.choice([1, 2, 4, 16, 20])),
        int(random.integers(1, 12)),
        int(random.integers(6, 24)),
    )
    feeds = {"x": random.standard_normal((images, channels, size, size)).astype(np.float32)}
    value, before = "x", ""
    for _ in range(int(random.integers(2, 8))):
        kind = random.choice(["conv", "conv", "conv", "residual", "pool", "other"])
        if kind == "pool" and size >= 4:
            ceil_mode, pad = int(random.integers(0, 2)), int(random.integers(0, 2))
            kernel, stride = ((2, 2), (3, 2), (3, 1), (3, 3))[random.integers(0, 4)]
            pads = [pad if kernel == 3 else 0] * 4
            value = writer.add(
                "MaxPool", value, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, ceil_mode=ceil_mode
            )
            room = size + 2 * pads[0] - kernel
            out = (-(-room // stride) if ceil_mode else room // stride) + 1
            size, before = out - (ceil_mode and (out - 1) * stride >= size + pads[0]), ""
        elif kind == "other":
            value = writer.add(str(random.choice(["Softsign", "Neg", "Identity"])), value)
        else:
            residual = kind == "residual" and before != ""
            kernel, stride = (int(random.choice([1, 3, 3])), int(random.choice([1, 1, 2])) if not residual else 1)
            outputs = channels if residual else int(random.integers(1, 24))
            weights = writer.tensor(outputs, channels, kernel, kernel, zeros=random.choice([0.3, 0.9]))
            made = writer.add(
                "Conv", value, weights, writer.tensor(outputs), strides=[stride] * 2, pads=[kernel // 2] * 4
            )
            size, channels = (size - 1) // stride + 1, outputs
            if residual:
                made = writer.add("Add", made, value)
            value = before = writer.activation(made, str(random.choice(["", "Relu", "Silu", "Clip"])))
    return writer.model({"x": feeds["x"].shape}, writer.add("Identity", value)), feeds


def session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    kernels.register(options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def rewritten(model: onnx.ModelProto, batch: int = 1) -> onnx.ModelProto:
    """The model with every layer ours, depthwise and dense ones, too."""
    return rewrite(model, find_layers(model), batch)


def difference(model: onnx.ModelProto, feeds: dict[str, np.ndarray], threads: int = 1) -> float:
    """How far our answer lies from onnxruntime's, as a share of the largest; it has our nodes."""
    ours = rewritten(model, len(feeds["x"]))
    assert any(node.domain == "onnx_shift" for node in ours.graph.node)
    expected, found = (session(network, threads).run(None, feeds)[0] for network in (model, ours))
    assert expected.shape == found.shape
    return float(np.abs(expected - found).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-3))


def three_convolutions(zeros: float, first_zeros: float | None = None) -> onnx.ModelProto:
    writer = Writer(np.random.default_rng(0))
    value = "x"
    for channels in (3, 64, 64):
        share = zeros if first_zeros is None or value != "x" else first_zeros
        weights = writer.tensor(64, channels, 3, 3, zeros=share)
        value = writer.add("Relu", writer.add("Conv", value, weights, pads=[1] * 4))
    return writer.model({"x": ["N", 3, 16, 16]}, value)
