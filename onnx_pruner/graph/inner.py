"""The bodies of If, Loop and Scan: which nodes hold some, and the names in them."""

from collections.abc import Iterator
from functools import cache

import onnx

STANDARD = frozenset({"", "ai.onnx"})


@cache
def _without_bodies() -> frozenset[str]:
    """Operators of the standard that hold no graph."""
    graphs = (onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS)
    every = [schema for schema in onnx.defs.get_all_schemas() if schema.domain == ""]
    return frozenset(one.name for one in every if not any(kind.type in graphs for kind in one.attributes.values()))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan."""
    if node.op_type in _without_bodies() and node.domain in STANDARD:
        return  # attributes are slow to look at, and graphs are scanned often
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def inner_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name of the bodies of a graph's nodes."""
    for node in graph.node:
        for body in subgraphs(node):
            yield from (info.name for info in (*body.input, *body.output))
            yield from (tensor.name for tensor in body.initializer)
            yield from (name for inner in body.node for name in (*inner.input, *inner.output))
            yield from inner_names(body)


def captured_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that bodies of `graph`'s nodes read; a few too many do no harm, they only pin."""
    for node in graph.node:
        yield from captured_by(node)


def captured_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the bodies of `node` read, those that they make themselves among them."""
    for body in subgraphs(node):
        yield from (name for inner in body.node for name in inner.input)
        yield from (info.name for info in body.output)
        yield from captured_names(body)
