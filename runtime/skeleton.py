"""Reading, from an ONNX model whose large tensors lie outside it, where each of them lies and what reads it.

Only the few protobuf fields that say so are read (field numbers: onnx.proto3), so that the device needs no
`onnx`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_ATTRIBUTE, _GRAPHS_OF_ATTRIBUTE = 5, (6, 11)
_NODE_TEXTS = _INPUT, _OPERATOR, _DOMAIN = 1, 4, 7
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA = 1, 2, 8, 13
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# TensorProto.DataType: those whose elements numpy has, and only those.
NUMPY_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128",
}  # fmt: skip


INSIDE_BYTES = 1024  # smaller tensors stay in the model
_ALIGNMENT_BYTES = 64  # of each tensor in a file of weights


def append_aligned(content: bytearray, raw: bytes | memoryview) -> int:
    """Append a tensor's bytes to a file of weights, at the next multiple of 64 bytes; returns that offset."""
    content.extend(bytes(-len(content) % _ALIGNMENT_BYTES))
    offset = len(content)
    content.extend(raw)
    return offset


@dataclass(frozen=True)
class ExternalTensor:
    """An initializer of the main graph that lies outside the model; `type` is TensorProto.DataType."""

    name: str
    type: int
    shape: tuple[int, ...]
    offset: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(NUMPY_TYPES[self.type]).itemsize


def external_tensors(model: bytes) -> list[ExternalTensor]:
    """Return the initializers of the main graph that lie outside `model`. Raises ValueError for broken
    protobuf.
    """
    tensors = (_external_tensor(raw) for raw in _of_graph(model, _INITIALIZER))
    return [tensor for tensor in tensors if tensor is not None]


def has_inner_tensors(model: bytes) -> bool:
    """Whether a graph inside the main graph, such as a branch, has an initializer outside `model`. Raises ValueError
    for broken protobuf.
    """
    return any(map(_inner_external, _of_graph(model, _NODE)))


def _inner_external(node: memoryview) -> bool:
    for attribute in _messages(node, _ATTRIBUTE):
        for graph in (raw for field in _GRAPHS_OF_ATTRIBUTE for raw in _messages(attribute, field)):
            if any(_external_tensor(raw) for raw in _messages(graph, _INITIALIZER)):
                return True
            if any(map(_inner_external, _messages(graph, _NODE))):
                return True
    return False


class Node(NamedTuple):
    """What of a node matters here: its operator, with domain, and the names it reads."""

    operator: tuple[str, str]
    inputs: tuple[str, ...]


def nodes(model: bytes) -> list[Node]:
    """Return the nodes that run at most once: those of the main graph, and of branches of its Ifs. Raises ValueError
    for broken protobuf.
    """
    return list(_nodes(_of_graph(model, _NODE)))


def _nodes(found: Iterator[memoryview]) -> Iterator[Node]:
    for raw in found:
        texts = [
            (field, str(value, "utf-8"))
            for field, value in _fields(raw)
            if field in _NODE_TEXTS and isinstance(value, memoryview)
        ]
        named = dict(texts)
        node = Node(
            (named.get(_DOMAIN, ""), named.get(_OPERATOR, "")),
            tuple(text for field, text in texts if field == _INPUT),
        )
        yield node
        if node.operator == ("", "If"):
            for attribute in _messages(raw, _ATTRIBUTE):
                for branch in _messages(attribute, _GRAPHS_OF_ATTRIBUTE[0]):
                    yield from _nodes(_messages(branch, _NODE))


def _of_graph(model: bytes, wanted: int) -> Iterator[memoryview]:
    """Yield the messages of the main graph that are its field `wanted`."""
    for graph in _messages(memoryview(model), _GRAPH):
        yield from _messages(graph, wanted)


def _messages(raw: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for field, value in _fields(raw) if field == wanted and isinstance(value, memoryview))


def _external_tensor(raw: memoryview) -> ExternalTensor | None:
    shape: list[int] = []
    external: dict[str, str] = {}
    name, type_ = "", 0
    for field, value in _fields(raw):
        if field == _DIMS:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif isinstance(value, int):
            type_ = value if field == _DATA_TYPE else type_
        elif field == _NAME:
            name = str(value, "utf-8")
        elif field == _EXTERNAL_DATA:
            pair = {number: str(text, "utf-8") for number, text in _fields(value) if isinstance(text, memoryview)}
            external[pair.get(1, "")] = pair.get(2, "")
    return ExternalTensor(name, type_, tuple(shape), int(external.get("offset", 0))) if external else None


def _varints(raw: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(raw):
        value, at = _varint(raw, at)
        values.append(value)
    return values


def _fields(raw: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire_type = tag & 7
        if wire_type == _VARINT:
            value, at = _varint(raw, at)
            yield tag >> 3, value
            continue
        if wire_type == _BYTES:
            size, at = _varint(raw, at)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"protobuf wire type {wire_type}")
        if at + size > len(raw):
            raise ValueError("protobuf cut short")
        yield tag >> 3, raw[at : at + size]
        at += size


def _varint(raw: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(raw[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("protobuf cut short")
