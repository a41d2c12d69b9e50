"""The edited graph as a new ModelProto, where what did not change is taken over as it was; and as a file."""

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnx_shift import files
from onnx_shift.onnx_pruner.graph.contrib import put_together
from onnx_shift.onnx_pruner.graph.network import (
    LARGEST_MESSAGE,
    Network,
    captured_names,
    payload_bytes,
    quiet_graphsurgeon,
)
from onnx_shift.onnx_pruner.rewriter import Weights

MARGIN_BYTES = 1 << 20  # for the names of weights, which the count leaves out
SMALLEST_EXTERNAL = 1024  # bytes; smaller weights stay in the model file


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
    """Write `model`, of about `size_bytes`, to `target`, atomically; beyond 2 GB its weights into `target`.data."""
    if size_bytes + MARGIN_BYTES <= LARGEST_MESSAGE:
        files.write_bytes(target, model.SerializeToString())
    else:
        _write_large(model, target)


def _write_large(model: onnx.ModelProto, target: Path) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(model)  # saving moves the weights out of the model
    target = files.plain_target(target)  # its weights lie beside the file itself, not beside a link to it
    data = target.with_name(f"{target.name}.data")
    with files.atomic_path(data) as weights, files.atomic_path(target) as skeleton:
        weights.unlink()
        onnx.save_model(
            large,
            skeleton,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=weights.name,
            size_threshold=SMALLEST_EXTERNAL,
        )
        written = onnx.load(skeleton, load_external_data=False)
        for tensor in written.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
        skeleton.write_bytes(written.SerializeToString())
