"""Models in opsets older than the rules know, by onnx's own converter."""

from dataclasses import replace

import onnx
import onnx.shape_inference
import onnx.version_converter

from onnx_shift.errors import first_line
from onnx_shift.onnx_pruner.graph.external import Mapped
from onnx_shift.onnx_pruner.graph.network import OLDEST_OPSET, opset_of
from onnx_shift.onnx_pruner.graph.reading import LoadedModel, PruneError

#: Operators that took the attributes `broadcast` and `axis` before opset 7.
_BROADCAST = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"})


def with_known_opset(source: LoadedModel) -> LoadedModel:
    """Return the model in the oldest opset that the rules know, or as it is. Raises PruneError if onnx cannot."""
    opset = opset_of(source.model, source.name)
    if opset >= OLDEST_OPSET:
        return source
    try:
        converted = onnx.version_converter.convert_version(_with_broadcasts_spelt(source.complete()), OLDEST_OPSET)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        raise PruneError(
            f"{source.name}: opset {opset} is older than {OLDEST_OPSET}, and onnx cannot convert it: "
            f"{first_line(error)}"
        ) from error
    del converted.graph.value_info[:]  # the converter leaves types of its own tensors open, which runtimes refuse
    return replace(source, model=converted, mapped=Mapped())


def _with_broadcasts_spelt(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with operands that broadcast from an axis on as Unsqueeze nodes: onnx 1.23 converts those wrongly."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = onnx.shape_inference.infer_shapes(model).graph
    ranks = {one.name: len(one.type.tensor_type.shape.dim) for one in (*graph.input, *graph.value_info, *graph.output)}
    ranks |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    nodes = []
    for number, node in enumerate(model.graph.node):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in _BROADCAST and attributes.get("broadcast") and "axis" in attributes:
            left, right = (ranks.get(name) for name in node.input)
            if left is None or right is None:
                raise ValueError(f"{node.op_type} {node.output[0]!r} broadcasts an operand of unknown rank")
            behind = left - attributes["axis"] % left - right
            spelt = onnx.NodeProto()
            spelt.CopyFrom(node)
            del spelt.attribute[:]
            if behind > 0:
                axes = list(range(right, right + behind))
                spelt.input[1] = f"{node.input[1]}_spelt_{number}"
                nodes.append(onnx.helper.make_node("Unsqueeze", [node.input[1]], [spelt.input[1]], axes=axes))
            nodes.append(spelt)
        else:
            nodes.append(node)
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    return found
