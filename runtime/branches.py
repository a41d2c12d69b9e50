"""Weights inside the branches of If and the bodies of Loop and Scan, moved to the main graph, whence they are switched
like all others.

Used when a graph is optimised, once per device; `onnx` is imported only for models that have such weights.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnx_shift.runtime.skeleton import has_inner_tensors

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto


def hoist_inner_tensors(model: bytes) -> bytes:
    """Return `model` with every external initializer of an inner graph in the main graph, under a name of its own."""
    if not has_inner_tensors(model):
        return model
    import onnx

    proto = onnx.load_model_from_string(model)
    taken = set(_names(proto.graph))
    for graph in list(_inner_graphs(proto.graph)):
        outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
        for tensor in outside:
            name = next(
                f"{tensor.name}_{index}" for index in range(len(taken) + 1) if f"{tensor.name}_{index}" not in taken
            )
            taken.add(name)
            _rename_reads(graph, tensor.name, name)
            if any(value.name == tensor.name for value in graph.output):  # which no outer value may be
                graph.node.append(onnx.helper.make_node("Identity", [name], [tensor.name]))
            hoisted = proto.graph.initializer.add()
            hoisted.CopyFrom(tensor)
            hoisted.name = name
            graph.initializer.remove(tensor)
    return bytes(proto.SerializeToString())


def _graphs_of(node: "NodeProto") -> Iterator["GraphProto"]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _inner_graphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    for node in graph.node:
        for inner in _graphs_of(node):
            yield inner
            yield from _inner_graphs(inner)


def _names(graph: "GraphProto") -> Iterator[str]:
    for one in (graph, *_inner_graphs(graph)):
        yield from _own_names(one)


def _own_names(graph: "GraphProto") -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.initializer))
    for node in graph.node:
        yield from node.output


def _rename_reads(graph: "GraphProto", old: str, new: str) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
        for inner in _graphs_of(node):
            if old not in _own_names(inner):  # onnxruntime gives names of its own to several graphs, one in the other
                _rename_reads(inner, old, new)
