"""Finding the layers of a graph that the kernels can compute: convolutions and matrix products with constant weights,
each with the residual Add and the activation that follow it.

Works on the graph as it was exported, before onnxruntime fuses anything; BatchNormalization is best folded before.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]
# As the C sources count them.
ACTIVATIONS = ("", "Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Sigmoid", "Silu", "Tanh")


@dataclass(frozen=True)
class FoundLayer:
    """A convolution or matrix product, and the nodes that one node of ours would replace."""

    name: str  # of the convolution's node, or what it puts out
    node: int  # places in the graph's list of nodes: the convolution,
    covered: tuple[int, ...]  # it and what is fused into it
    input: str
    output: str
    residual: str | None
    weights: Array = field(repr=False)  # [outputs, inputs of a group, kernel rows, kernel columns]
    bias: Array = field(repr=False)
    dimensions: int  # of an image; 0: matrix product
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilations: tuple[int, int] = (1, 1)
    activation: str = ""
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def zeros(self) -> float:
        """The share of the weights that are zero."""
        return 1 - np.count_nonzero(self.weights) / max(1, self.weights.size)

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads but one channel: dense or not, there is little to leave out."""
        return self.groups > 1 and self.weights.shape[1] == 1


class Graph:
    """Who makes and who reads each value of a graph, which are constant, and the shapes that are known."""

    def __init__(self, model: "onnx.ModelProto") -> None:
        import onnx

        graph = model.graph
        self.nodes = list(graph.node)
        self.makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in (*node.input, *captured(node)):
                self.readers.setdefault(name, []).append(index)
        self.outputs = {value.name for value in graph.output}
        given = {value.name for value in graph.input}
        self._constants: dict[str, onnx.TensorProto] = {
            tensor.name: tensor for tensor in graph.initializer if tensor.name not in given
        }
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self._to_array = onnx.numpy_helper.to_array
        self._attribute = onnx.helper.get_attribute_value
        self.shapes = {
            value.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                for dim in value.type.tensor_type.shape.dim
            )
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.HasField("shape")
        }

    def constant(self, name: str) -> Array | None:
        tensor = self._constants.get(name)
        return None if tensor is None else self._to_array(tensor)

    def attributes(self, index: int) -> dict[str, Any]:
        return {attribute.name: self._attribute(attribute) for attribute in self.nodes[index].attribute}

    def only_reader(self, name: str) -> int | None:
        """The node that alone reads `name`, which is nowhere else to be seen."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def same_shape(self, first: str, second: str) -> bool:
        shape = self.shapes.get(first)
        return shape is not None and None not in shape and shape == self.shapes.get(second)


def captured(node: "onnx.NodeProto") -> Iterator[str]:
    """What the node's subgraphs read, of this graph or their own."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from captured(inner)
            yield from (value.name for value in graph.output)


def find_layers(model: "onnx.ModelProto") -> list[FoundLayer]:
    """Return the layers of `model` that the kernels can compute, in the graph's order, whatever share of zeros they
    have.

    `model` has its shapes inferred; residual Adds of values whose shapes are not known to be equal stay.
    """
    graph = Graph(model)
    layers: list[FoundLayer] = []
    taken: set[int] = set()
    for index, node in reversed(list(enumerate(graph.nodes))):  # of two convolutions that are added, the later takes it
        read = _READERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        layer = read(graph, index) if read else None
        if layer is not None:
            layer = _with_tail(graph, layer, taken)
            taken.update(layer.covered)
            layers.append(layer)
    return layers[::-1]


def _read_convolution(graph: Graph, index: int) -> FoundLayer | None:
    node, given = graph.nodes[index], graph.attributes(index)
    weights = graph.constant(node.input[1])
    if weights is None or weights.dtype != np.float32 or weights.ndim not in (3, 4) or not weights.size:
        return None
    dimensions = weights.ndim - 2
    flat = dimensions == 1
    strides = _two(given.get("strides", [1] * dimensions))
    dilations = _two(given.get("dilations", [1] * dimensions))
    pads = _pads(graph, node, given, weights.shape[2:], strides[-dimensions:], dilations[-dimensions:])
    bias = _bias(graph, node.input[2] if len(node.input) > 2 else "", weights.shape[0])
    if pads is None or bias is None or min(pads) < 0 or math.prod(weights.shape[2:]) > 1 << 16:
        return None
    return FoundLayer(
        node.name or node.output[0],
        index,
        (index,),
        node.input[0],
        node.output[0],
        None,
        weights[:, :, None] if flat else weights,
        bias,
        dimensions,
        given.get("group", 1),
        strides,
        (0, pads[0], 0, pads[1]) if flat else (pads[0], pads[1], pads[2], pads[3]),
        dilations,
    )


def _two(numbers: Sequence[int]) -> tuple[int, int]:
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _pads(
    graph: Graph,
    node: "onnx.NodeProto",
    given: Mapping[str, Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int] | None:
    """The padding before and after each dimension; None where it depends on sizes that are not known."""
    automatic = given.get("auto_pad", b"NOTSET")
    if automatic == b"VALID":
        return [0] * (2 * len(kernel))
    if automatic == b"NOTSET":
        return list(given.get("pads", [0] * (2 * len(kernel))))
    sizes = [size for size in graph.shapes.get(node.input[0], ())[2:] if isinstance(size, int)]
    if len(sizes) != len(kernel):
        return None
    whole = [
        max(0, (-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size)
        for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    less, more = [pad // 2 for pad in whole], [pad - pad // 2 for pad in whole]
    return less + more if automatic == b"SAME_UPPER" else more + less


def _bias(graph: Graph, name: str, outputs: int) -> Array | None:
    """The constant `name` as one number for each output; None where it is none."""
    if not name:
        return np.zeros(outputs, np.float32)
    bias = graph.constant(name)
    if (
        bias is None
        or bias.dtype != np.float32
        or bias.size not in (1, outputs)
        or bias.shape[-1:] not in ((), (1,), (outputs,))
    ):
        return None
    return np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), (outputs,)))


def _read_gemm(graph: Graph, index: int) -> FoundLayer | None:
    node, given = graph.nodes[index], graph.attributes(index)
    weights = graph.constant(node.input[1])
    if weights is None or given.get("transA", 0) or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        return None
    bias_name = node.input[2] if len(node.input) > 2 else ""
    return _matrix_product(graph, index, weights if given.get("transB", 0) else weights.T, bias_name)


def _read_matmul(graph: Graph, index: int) -> FoundLayer | None:
    weights = graph.constant(graph.nodes[index].input[1])
    return None if weights is None or weights.ndim != 2 else _matrix_product(graph, index, weights.T, "")


def _matrix_product(graph: Graph, index: int, weights: Array, bias_name: str) -> FoundLayer | None:
    node = graph.nodes[index]
    bias = _bias(graph, bias_name, weights.shape[0])
    if bias is None or weights.dtype != np.float32 or not weights.size:
        return None
    name = node.name or node.output[0]
    return FoundLayer(name, index, (index,), node.input[0], node.output[0], None, weights[:, :, None, None], bias, 0)


_READERS = {"Conv": _read_convolution, "Gemm": _read_gemm, "MatMul": _read_matmul}


def _with_tail(graph: Graph, layer: FoundLayer, taken: set[int]) -> FoundLayer:
    """Fuse a constant Add after a matrix product, a residual Add and an activation into the layer, as far as they
    follow.
    """
    follower = graph.only_reader(layer.output)
    if follower is not None and follower not in taken and graph.nodes[follower].op_type == "Add":
        node = graph.nodes[follower]
        other = node.input[1] if node.input[0] == layer.output else node.input[0]
        constant = graph.constant(other)
        flat = layer.dimensions == 0 and constant is not None and constant.ndim <= 1  # more would add dimensions
        bias = _bias(graph, other, len(layer.bias)) if flat else None
        if bias is not None:
            layer = replace(layer, bias=layer.bias + bias)
        elif other != layer.output and graph.same_shape(other, layer.output) and graph.constant(other) is None:
            layer = replace(layer, residual=other)
        else:
            return layer
        layer = replace(layer, output=node.output[0], covered=(*layer.covered, follower))
        if layer.residual is None:
            return _with_tail(graph, layer, taken)
    return _with_activation(graph, layer, taken)


def _with_activation(graph: Graph, layer: FoundLayer, taken: set[int]) -> FoundLayer:
    gate = _gated(graph, layer.output)
    if gate is not None and not taken.intersection(gate):
        kind = {"Sigmoid": "Silu", "HardSigmoid": "HardSwish"}[graph.nodes[gate[0]].op_type]
        alpha, beta = _slope(graph, gate[0]) if kind == "HardSwish" else (0.0, 0.0)
        output = graph.nodes[gate[1]].output[0]
        return replace(layer, output=output, covered=(*layer.covered, *gate), activation=kind, alpha=alpha, beta=beta)
    follower = graph.only_reader(layer.output)
    if follower is None or follower in taken or graph.nodes[follower].op_type not in ACTIVATIONS[1:]:
        return layer
    kind = graph.nodes[follower].op_type
    numbers = _numbers(graph, follower, kind)
    if numbers is None:
        return layer
    output = graph.nodes[follower].output[0]
    covered = (*layer.covered, follower)
    return replace(layer, output=output, covered=covered, activation=kind, alpha=numbers[0], beta=numbers[1])


def _gated(graph: Graph, name: str) -> tuple[int, int] | None:
    """The nodes of x · Sigmoid(x) or x · HardSigmoid(x) over `name`, which nothing else reads."""
    readers = graph.readers.get(name, [])
    if len(readers) != 2 or name in graph.outputs:
        return None
    for gate, product in (readers, readers[::-1]):
        if graph.nodes[gate].op_type not in ("Sigmoid", "HardSigmoid") or graph.nodes[product].op_type != "Mul":
            continue
        if graph.only_reader(graph.nodes[gate].output[0]) == product:
            return gate, product
    return None


def _slope(graph: Graph, index: int) -> tuple[float, float]:
    given = graph.attributes(index)
    return given.get("alpha", 0.2), given.get("beta", 0.5)


def _numbers(graph: Graph, index: int, kind: str) -> tuple[float, float] | None:
    """The two numbers of an activation; None where they are not constant."""
    node, given = graph.nodes[index], graph.attributes(index)
    if kind == "HardSigmoid":
        return _slope(graph, index)
    if kind == "HardSwish":
        return 1 / 6, 0.5
    if kind == "LeakyRelu":
        return given.get("alpha", 0.01), 0.0
    if kind != "Clip":
        return 0.0, 0.0
    limits = [given.get("min", -np.inf), given.get("max", np.inf)]
    for place, name in enumerate(node.input[1:3]):
        if name:
            limit = graph.constant(name)
            if limit is None or limit.size != 1:
                return None
            limits[place] = float(limit.reshape(()))
    return limits[0], limits[1]
