"""The edited graph as a new ModelProto, where what did not change is taken over as it was; and as a file."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnx_shift import files
from onnx_shift.onnx_pruner.graph.contrib import put_together
from onnx_shift.onnx_pruner.graph.inner import captured_names
from onnx_shift.onnx_pruner.graph.network import (
    LARGEST_MESSAGE,
    Network,
    copy_fields,
    payload_bytes,
    quiet_graphsurgeon,
)
from onnx_shift.onnx_pruner.rewriter import Weights

MARGIN_BYTES = 1 << 20  # for the names of weights, which the count leaves out
SMALLEST_EXTERNAL = 1024  # bytes; smaller weights stay in the model file
PAGE_BYTES = 4096


def build_model(
    network: Network, weights: Weights, resized: Mapping[str, tuple[int, int]]
) -> tuple[onnx.ModelProto, int]:
    """The new model and its size in bytes, to within a few.

    `weights` holds the new initializers, `resized` the (axis, size) of activations whose channel count
    changed. Inputs, outputs, metadata and all else are taken from the source.
    """
    source = network.source
    small = onnx.ModelProto(  # all but the weights
        ir_version=source.ir_version,
        opset_import=source.opset_import,
        producer_name=source.producer_name,
        producer_version=source.producer_version,
        domain=source.domain,
        model_version=source.model_version,
        doc_string=source.doc_string,
        metadata_props=source.metadata_props,
        training_info=source.training_info,
    )
    if hasattr(source, "configuration"):  # since onnx 1.18
        small.configuration.extend(source.configuration)
    graph = small.graph
    graph.name = source.graph.name
    graph.doc_string = source.graph.doc_string
    graph.metadata_props.extend(source.graph.metadata_props)
    graph.node.extend(put_together([_node(network, node) for node in network.graph.nodes], network.apart))
    used = {name for node in graph.node for name in node.input}
    used.update(captured_names(graph), (info.name for info in source.graph.output))
    graph.output.extend(source.graph.output)
    made = {name for node in graph.node for name in node.output}
    for info in source.graph.value_info:
        if info.name in made:
            _add_value_info(graph, info, resized.get(info.name))
    kept = {
        name: tensor for name, tensor in network.initializers.items() if name in used and name not in weights.written
    }
    graph.input.extend(
        info for info in source.graph.input if info.name not in network.initializers or info.name in kept
    )
    graph.quantization_annotation.extend(
        annotation
        for annotation in source.graph.quantization_annotation
        if annotation.tensor_name in made | kept.keys()
    )
    listed = {info.name for info in graph.input}
    if small.ir_version < 4 and any(name not in listed for name in (*kept, *(used & weights.written.keys()))):
        small.ir_version = 4  # from version 4 an initializer need not be listed as an input
    size_bytes = small.ByteSize()
    model = weights.model
    model.MergeFrom(small)
    initializers = model.graph.initializer
    for index in range(len(initializers) - 1, -1, -1):
        if initializers[index].name not in used:
            del initializers[index]
    for name, tensor in kept.items():
        added = initializers.add()
        added.CopyFrom(tensor)
        network.mapped.fill(added)
        added.name = name
    return model, size_bytes + sum(payload_bytes(tensor) for tensor in initializers)


def _node(network: Network, node: gs.Node) -> onnx.NodeProto:
    """A node as it was, with its inputs and outputs of now; exported anew if its attributes changed or it is new."""
    _, original, attributes = network.nodes.get(id(node), (None, None, {}))
    names = [t.name for t in node.inputs], [t.name for t in node.outputs]
    if original is None or original.op_type != node.op or node.attrs != attributes:
        with quiet_graphsurgeon():
            proto: onnx.NodeProto = OnnxExporter.export_node(node)
        if original is not None:
            proto.doc_string = original.doc_string
            proto.metadata_props.extend(original.metadata_props)
        return proto
    if (list(original.input), list(original.output)) == names:
        return original
    proto = onnx.NodeProto()
    proto.CopyFrom(original)
    proto.ClearField("input")
    proto.ClearField("output")
    proto.input.extend(names[0])
    proto.output.extend(names[1])
    return proto


def _add_value_info(graph: onnx.GraphProto, info: onnx.ValueInfoProto, resized: tuple[int, int] | None) -> None:
    added = graph.value_info.add()
    added.CopyFrom(info)
    dims = added.type.tensor_type.shape.dim
    if resized is not None and resized[0] < len(dims):
        dims[resized[0]].dim_value = resized[1]


def write_model(model: onnx.ModelProto, target: Path, size_bytes: int) -> None:
    """Write `model`, of about `size_bytes`, to `target`, atomically; beyond 2 GB its weights into `target`.data.

    One weight after the other is serialised, so that a model takes no second copy of itself.
    """
    if size_bytes + MARGIN_BYTES <= LARGEST_MESSAGE:
        with files.atomic_path(target) as path, path.open("wb") as file:
            file.writelines(_serialised(model))
    else:
        _write_large(model, target)


def _serialised(model: onnx.ModelProto) -> Iterator[bytes]:
    """The bytes of a model: all but the graph, the graph without its weights, and one weight at a time."""
    head, graph = _without_weights(model)
    tensors = model.graph.initializer
    parts = [_field(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, _serialised_size(tensor)) for tensor in tensors]
    size = len(graph) + sum(len(part) + _serialised_size(t) for part, t in zip(parts, tensors, strict=True))
    yield from (head, _field(onnx.ModelProto.GRAPH_FIELD_NUMBER, size), graph)
    for part, tensor in zip(parts, tensors, strict=True):
        yield part
        yield tensor.SerializeToString()


def _without_weights(model: onnx.ModelProto) -> tuple[bytes, bytes]:
    head, graph = onnx.ModelProto(), onnx.GraphProto()
    copy_fields(model, head, without="graph")
    copy_fields(model.graph, graph, without="initializer")
    return head.SerializeToString(), graph.SerializeToString()


def _serialised_size(tensor: onnx.TensorProto) -> int:
    """How many bytes a tensor takes, without serialising it where its values are raw."""
    if not tensor.HasField("raw_data"):
        return int(tensor.ByteSize())
    bare = onnx.TensorProto()
    copy_fields(tensor, bare, without="raw_data")
    size = len(tensor.raw_data)
    return int(bare.ByteSize()) + len(_field(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, size)) + size


def _field(number: int, size: int) -> bytes:
    """The tag and length that come before a field of `size` bytes (protobuf's wire format)."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _write_large(model: onnx.ModelProto, target: Path) -> None:
    skeleton = onnx.ModelProto()
    copy_fields(model, skeleton, without="graph")
    copy_fields(model.graph, skeleton.graph, without="initializer")
    target = files.plain_target(target)  # its weights lie beside the file itself, not beside a link to it
    data = target.with_name(f"{target.name}.data")
    with files.atomic_path(data) as weights, files.atomic_path(target) as path:
        with weights.open("wb") as file:
            for tensor in model.graph.initializer:
                added = skeleton.graph.initializer.add()
                if not tensor.HasField("raw_data") or payload_bytes(tensor) < SMALLEST_EXTERNAL:
                    added.CopyFrom(tensor)
                    continue
                copy_fields(tensor, added, without="raw_data")
                file.write(bytes(-file.tell() % PAGE_BYTES))  # runtimes map whole pages
                offset, length = file.tell(), file.write(tensor.raw_data)
                added.data_location = onnx.TensorProto.EXTERNAL
                for key, value in (("location", data.name), ("offset", offset), ("length", length)):
                    added.external_data.add(key=key, value=str(value))
        path.write_bytes(skeleton.SerializeToString())
