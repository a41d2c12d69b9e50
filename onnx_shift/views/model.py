"""What a model holds, as people and programs want to see it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from rich.table import Table

if TYPE_CHECKING:
    from onnx_shift.onnx_pruner.graph.weighted import Weighted

from onnx_shift.views.tables import plain_table, show_bytes, show_count, show_share


def model_summary(file: Path) -> dict[str, Any]:
    """Return what `inspect --json` prints of a model: inputs, outputs, counts, zeros per layer, metadata."""
    from onnx_shift.onnx_pruner.counting import count_macs, parameter_count
    from onnx_shift.onnx_pruner.graph.reading import read_model
    from onnx_shift.onnx_pruner.graph.weighted import weighted_layers

    source = read_model(file)
    graph = source.model.graph
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    layers = [_layer(layer) for layer in weighted_layers(graph)]
    return {
        "file": str(file),
        "file_bytes": source.file_bytes,
        "inputs": [_signature(value) for value in graph.input if value.name not in weights],
        "outputs": [_signature(value) for value in graph.output],
        "nodes": len(graph.node),
        "opset": next((entry.version for entry in source.model.opset_import if entry.domain in ("", "ai.onnx")), None),
        "parameters": parameter_count(source.model),
        "macs": count_macs(source.model),
        "layers": layers,
        "metadata": {entry.key: entry.value for entry in source.model.metadata_props},
    }


def layer_table(summary: dict[str, Any]) -> Table:
    """Return the layers with weights: shape, parameters, zeros, output channels without any weight."""
    table = plain_table("layer")
    for title in ("operator", "weight", "params", "zeros", "empty"):
        table.add_column(title, justify="right")
    for layer in summary["layers"]:
        stored = "" if layer["stored"] in ("float", "") else f" ({layer['stored']})"
        table.add_row(
            layer["name"] + (f" in {layer['body']}" if layer["body"] else ""),
            layer["operator"] + stored,
            "×".join(str(size) for size in layer["shape"]),
            show_count(layer["parameters"]),
            show_share(layer["zeros"]),
            f"{layer['zero_channels']} of {layer['channels']}",
        )
    return table


def model_lines(summary: dict[str, Any]) -> list[str]:
    """Return size, counts and signature in a few lines, then the metadata."""
    total = sum(layer["parameters"] for layer in summary["layers"])
    zeros = sum(layer["parameters"] * layer["zeros"] for layer in summary["layers"])
    macs = "unknown" if summary["macs"] is None else show_count(summary["macs"])
    sides = [", ".join(_text(value) for value in summary[key]) for key in ("inputs", "outputs")]
    lines = [
        f"{summary['file']}: {show_bytes(summary['file_bytes'])}, {summary['nodes']} nodes, opset {summary['opset']}",
        f"{show_count(summary['parameters'])} parameters ({zeros / total if total else 0:.1%} of the weights "
        f"are zero), {macs} multiply–accumulates",
        f"{sides[0]} -> {sides[1]}",
    ]
    return lines + [f"{key}: {value}" for key, value in summary["metadata"].items()]


def _layer(layer: "Weighted") -> dict[str, Any]:
    values, node = layer.values(), layer.node
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    outputs_first = "Conv" in node.op_type or (node.op_type == "Gemm" and transposed)
    channels = values if outputs_first else np.moveaxis(values, 1 if node.op_type == "ConvTranspose" else -1, 0)
    return {
        "name": node.name or node.output[0],
        "operator": f"{node.domain}.{node.op_type}" if layer.foreign else node.op_type,
        "body": layer.body,
        "stored": _stored(layer),
        "shape": list(values.shape),
        "parameters": int(values.size),
        "zeros": 1 - np.count_nonzero(values) / max(values.size, 1),
        "channels": len(channels),
        "zero_channels": int((~channels.reshape(len(channels), -1).any(axis=1)).sum()),
    }


def _stored(layer: "Weighted") -> str:
    weight = layer.weight
    kind = weight.data_type if isinstance(weight, onnx.TensorProto) else weight.values.data_type
    name: str = onnx.TensorProto.DataType.Name(kind)
    return f"sparse {name.lower()}" if layer.sparse else name.lower()


def _signature(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "type": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(),
        "shape": [axis.dim_value if axis.HasField("dim_value") else axis.dim_param for axis in tensor.shape.dim],
    }


def _text(value: dict[str, Any]) -> str:
    return f"{value['name']} {value['type']}[{', '.join(str(axis) for axis in value['shape'])}]"
