"""Putting nodes of our own in the place of chosen layers, and handing activations from one to the next as they lie.

Between two of our nodes an activation is *packed*: images innermost, zeros around each image, so that the next one
reads it where it is. A value is packed where all that read it are ours.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_shift.runtime.kernels.compress import compress
from onnx_shift.runtime.kernels.find import ACTIVATIONS, FoundLayer, Graph, captured

if TYPE_CHECKING:
    import onnx

DOMAIN = "onnx_shift"
Border = tuple[int, int]  # zero rows above, zero columns before an image
_PLAIN: Border = (-1, -1)
_TILE_FLOATS = 64
_CACHE_FLOATS = 4096
_ROW_WEIGHTS = 14


def rewrite(model: "onnx.ModelProto", layers: Iterable[FoundLayer], batch: int = 1) -> "onnx.ModelProto":
    """Return a copy of `model` in which one node of ours computes each of `layers`, found in it by `find_layers`.

    Weights are cut into blocks that suit `batch` images at a time; any number gives the same answers.
    """
    import onnx

    graph = Graph(model)
    chosen = {layer.covered[-1]: layer for layer in layers}
    pools = _packed_pools(graph, chosen)
    borders = _borders(graph, chosen, pools)
    gone = {index for layer in chosen.values() for index in layer.covered}
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    for index, node in enumerate(graph.nodes):
        if index in chosen:
            layer = chosen[index]
            made, tensors = _convolution(layer, borders, usual_block(layer, graph.shapes.get(layer.input, ()), batch))
            nodes.append(made)
            constants += tensors
        elif index in pools:
            nodes.append(_pool(graph, index, borders))
        elif index not in gone:
            nodes.append(node)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | graph.outputs
    read.update(name for index, node in enumerate(graph.nodes) if index not in gone for name in captured(node))
    kept = [tensor for tensor in result.graph.initializer if tensor.name in read]
    del result.graph.initializer[:]
    result.graph.initializer.extend([*kept, *constants])
    known = [value for value in result.graph.value_info if value.name not in borders and value.name in read]
    del result.graph.value_info[:]
    result.graph.value_info.extend(known)
    if all(entry.domain != DOMAIN for entry in result.opset_import):
        result.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return result


def leading_layers(
    model: "onnx.ModelProto", found: Iterable[FoundLayer], layers: Iterable[FoundLayer]
) -> list[FoundLayer]:
    """Return those of `found` beside `layers` that would hand their output on to layers of ours alone, packed."""
    graph = Graph(model)
    chosen = {layer.covered[-1]: layer for layer in layers}

    def hands_on_packed(layer: FoundLayer) -> bool:
        joined = {**chosen, layer.covered[-1]: layer}
        return layer.output in _borders(graph, joined, _packed_pools(graph, joined))

    return [
        layer
        for layer in found
        if layer.covered[-1] not in chosen and not layer.depthwise and layer.dimensions and hands_on_packed(layer)
    ]


def _packed_pools(graph: Graph, chosen: Mapping[int, FoundLayer]) -> set[int]:
    """The MaxPools between layers of ours, which can take over packed activations."""
    made = {layer.output for layer in chosen.values()}
    covered = {index for layer in chosen.values() for index in layer.covered}

    def ours(name: str, pools: set[int]) -> bool:
        readers = graph.readers.get(name, [])
        return name not in graph.outputs and bool(readers) and all(r in covered or r in pools for r in readers)

    pools = {
        index
        for index, node in enumerate(graph.nodes)
        if node.op_type == "MaxPool" and len(node.output) == 1 and _simple_pool(graph, index)
    }
    while True:
        outputs = made | {graph.nodes[index].output[0] for index in pools}
        kept = {
            index
            for index in pools
            if graph.nodes[index].input[0] in outputs
            and ours(graph.nodes[index].input[0], pools)
            and ours(graph.nodes[index].output[0], pools)
        }
        if kept == pools:
            return pools
        pools = kept


def _simple_pool(graph: Graph, index: int) -> bool:
    given = graph.attributes(index)
    shape = graph.shapes.get(graph.nodes[index].input[0], ())
    return (
        given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and len(given["kernel_shape"]) == 2
        and len(shape) == 4
        and isinstance(shape[1], int)
    )


def _borders(graph: Graph, chosen: Mapping[int, FoundLayer], pools: set[int]) -> dict[str, Border]:
    """The zeros around each value that goes packed: those that the widest of its readers needs."""
    makers = {layer.output for layer in chosen.values() if layer.dimensions}
    makers |= {graph.nodes[index].output[0] for index in pools}
    owner = {index: layer for layer in chosen.values() for index in layer.covered}
    borders: dict[str, Border] = {}
    for name in makers:
        readers = graph.readers.get(name, [])
        if name in graph.outputs or not readers:
            continue
        needs = [_need(name, index in pools, owner.get(index)) for index in readers]
        if None not in needs:
            borders[name] = (max(need[0] for need in needs if need), max(need[1] for need in needs if need))
    return borders


def _need(name: str, pooled: bool, layer: FoundLayer | None) -> Border | None:
    """The zeros that a reader of a packed value wants around it; None where it reads no packed values."""
    if pooled:
        return 0, 0
    if layer is None or not layer.dimensions:
        return None
    top, left, bottom, right = layer.pads if name == layer.input and layer.strides == (1, 1) else (0, 0, 0, 0)
    return max(top, bottom), max(left, right)


def _convolution(
    layer: FoundLayer, borders: Mapping[str, Border], block: int
) -> tuple["onnx.NodeProto", list["onnx.TensorProto"]]:
    from onnx import helper, numpy_helper

    rows = compress(layer.weights, block)
    prefix = f"{layer.output}/sparse_"
    tensors = {"values": rows.values, "places": rows.places, "rows": rows.rows, "bias": layer.bias}
    node = helper.make_node(
        "SparseConv",
        [layer.input, *(prefix + name for name in tensors), *filter(None, [layer.residual])],
        [layer.output],
        name=layer.name,
        domain=DOMAIN,
        channels=layer.weights.shape[0],
        group_channels=layer.weights.shape[1],
        group=layer.groups,
        kernel=list(layer.weights.shape[2:]),
        strides=list(layer.strides),
        pads=list(layer.pads),
        dilations=list(layer.dilations),
        block=rows.block,
        activation=ACTIVATIONS.index(layer.activation),
        alpha=float(layer.alpha),
        beta=float(layer.beta),
        dimensions=layer.dimensions,
        borders=[
            number for name in (layer.input, layer.output, layer.residual) for number in borders.get(name or "", _PLAIN)
        ],
    )
    return node, [
        numpy_helper.from_array(np.ascontiguousarray(array), prefix + name) for name, array in tensors.items()
    ]


def _pool(graph: Graph, index: int, borders: Mapping[str, Border]) -> "onnx.NodeProto":
    from onnx import helper

    node, given = graph.nodes[index], graph.attributes(index)
    channels: Any = graph.shapes[node.input[0]][1]
    return helper.make_node(
        "PackedMaxPool",
        [node.input[0]],
        [node.output[0]],
        name=node.name,
        domain=DOMAIN,
        channels=channels,
        kernel=list(given["kernel_shape"]),
        strides=list(given.get("strides", [1, 1])),
        pads=list(given.get("pads", [0] * 4)),
        dilations=list(given.get("dilations", [1, 1])),
        ceil_mode=given.get("ceil_mode", 0),
        dimensions=2,
        borders=[*borders[node.input[0]], *borders[node.output[0]], *_PLAIN],
    )


def usual_block(layer: FoundLayer, shape: Sequence[int | str | None], batch: int) -> int:
    """Return the input channels of a block: a tile of a usual size over them is to lie in the first-level cache beside
    the sums, and a row to have so many weights that to begin one, which costs as much as three, is little.

    `shape` is the input's; sizes that are not known count as 14.
    """
    taps = layer.weights.shape[2] * layer.weights.shape[3]
    weights_a_channel = taps * max(1 - layer.zeros, 1e-4)
    if layer.dimensions == 0:
        channel_floats = min(batch, _TILE_FLOATS)
    else:
        sizes = [size if isinstance(size, int) else 14 for size in shape[2:]] or [14, 14]
        height, width = [1, *sizes][-2:]
        together = 1 if batch < 8 else 8
        reach_y, reach_x = ((layer.weights.shape[k + 2] - 1) * layer.dilations[k] for k in (0, 1))
        row_floats = (width + reach_x) * together
        rows = min(height, -(-_TILE_FLOATS // row_floats)) + reach_y
        channel_floats = rows * min(row_floats, _TILE_FLOATS + reach_x * together)
    return int(max(_CACHE_FLOATS / channel_floats, _ROW_WEIGHTS / weights_a_channel, 1))
