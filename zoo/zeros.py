"""Put zeros into a network the ways that training and pruning do, leaving biases alone."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Operators whose output channels are their inputs' channels: what a residual stream passes through.
SAME_CHANNELS = {
    "Add", "AveragePool", "BatchNormalization", "Clip", "Dropout", "Elu", "GlobalAveragePool",
    "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LeakyRelu", "MaxPool", "Mul", "PRelu",
    "Relu", "Resize", "Sigmoid", "Sub", "Sum", "Tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A weight with its output and input channel axes (input -1: none, as in grouped convolutions)."""

    weight: str
    source: str
    target: str
    out_axis: int
    in_axis: int
    depthwise: bool


def tensors(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Every weight by name, initializers and Constant nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found |= {name: a.t for name in node.output for a in node.attribute if a.name == "value"}
    return found


def parameters(model: onnx.ModelProto) -> int:
    """Count the elements of floating-point and 8-bit weights."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8)
    return sum(int(np.prod(t.dims)) for t in tensors(model).values() if t.data_type in kinds)


def layers(model: onnx.ModelProto) -> Iterator[Layer]:
    weights = tensors(model)
    made = {node.output[0]: node for node in model.graph.node if node.output}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.input) < 2:
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        name, flipped = node.input[1], False
        while name in made and made[name].op_type in ("Identity", "Transpose", "DequantizeLinear", "Div"):
            flipped ^= made[name].op_type == "Transpose"
            name = made[name].input[0]
        if name not in weights or len(weights[name].dims) < 2:
            continue
        group = attributes.get("group", 1)
        out_first = node.op_type == "Conv" or (node.op_type == "Gemm" and bool(attributes.get("transB")))
        out_axis = int(out_first == flipped)
        depthwise = group > 1 and weights[name].dims[0] == group
        yield Layer(
            name, node.input[0], node.output[0],
            0 if group > 1 and node.op_type == "Conv" else out_axis,
            -1 if group > 1 else 1 - out_axis, depthwise,
        )  # fmt: skip


def clear(tensor: TensorProto, axis: int, index: np.ndarray) -> None:
    """Set slices of a weight to zero; every other one to -0.0, as a mask times a negative weight does."""
    array = numpy_helper.to_array(tensor).copy()
    np.moveaxis(array, axis, 0)[index] = 0
    if array.dtype.kind == "f":
        np.moveaxis(array, axis, 0)[index[::2]] *= -1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def inject(model: onnx.ModelProto, seed: int, *, filters: float = 0.3, readers: float = 0.2) -> onnx.ModelProto:
    """Return a copy with a share of every layer's output filters and input slices set to zero."""
    model, rng = _copy(model), np.random.default_rng(seed)
    weights = tensors(model)
    seen = set()
    for layer in layers(model):
        if layer.weight in seen:
            continue
        seen.add(layer.weight)
        for axis, share in ((layer.out_axis, filters), (layer.in_axis, readers)):
            size = weights[layer.weight].dims[axis] if axis >= 0 else 1
            if size > 1:
                clear(weights[layer.weight], axis, np.flatnonzero(rng.random(size) < share)[: size // 2])
    return model


def inject_aligned(model: onnx.ModelProto, seed: int, share: float = 0.5) -> onnx.ModelProto:
    """Return a copy in which all layers that write or read one stream have zeros at the same channels of it.

    Of the chosen channels, half lose the filters that write them, half the slices that read them.
    """
    model, rng = _copy(model), np.random.default_rng(seed)
    weights, found = tensors(model), list(layers(model))
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in model.graph.node:
        if node.op_type in SAME_CHANNELS:
            for name in node.input:
                if name and name not in weights:
                    parent[root(name)] = root(node.output[0])
    for layer in found:
        if layer.depthwise:
            parent[root(layer.source)] = root(layer.target)
    writers, readers = defaultdict(list), defaultdict(list)
    for layer in found:
        writers[root(layer.target)].append(layer)
        if layer.in_axis >= 0:
            readers[root(layer.source)].append(layer)
    for stream, written in writers.items():
        size = weights[written[0].weight].dims[written[0].out_axis]
        if size < 4:
            continue
        chosen = rng.permutation(size)[: int(size * share)]
        for part, touched, axis in (
            (chosen[::2], written, "out_axis"),
            (chosen[1::2], readers[stream], "in_axis"),
        ):
            for layer in touched:
                if weights[layer.weight].dims[getattr(layer, axis)] == size:
                    clear(weights[layer.weight], getattr(layer, axis), part)
    return model


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
