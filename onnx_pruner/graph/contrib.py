"""Layers that onnxruntime's optimiser fused with what follows: taken apart when a model is read, so that every rule
applies, and put together again when it is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_shift.onnx_pruner.graph.names import free_name

CONTRIB, BLOCKED = "com.microsoft", "com.microsoft.nchwc"
LAYERS = {"FusedConv": "Conv", "FusedGemm": "Gemm"}
#: Activations: the names of their parameters in the order of FusedConv's list, and the operator set they came with.
ACTIVATIONS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "Clip": (("min", "max"), 7),
    "Elu": (("alpha",), 7),
    "HardSigmoid": (("alpha", "beta"), 7),
    "HardSwish": ((), 14),
    "LeakyRelu": (("alpha",), 7),
    "Relu": ((), 7),
    "Selu": (("alpha", "gamma"), 7),
    "Sigmoid": ((), 7),
    "Softplus": ((), 7),
    "Softsign": ((), 7),
    "Tanh": ((), 7),
    "ThresholdedRelu": (("alpha",), 10),
}
CLIP_BY_INPUT = 11


@dataclass(frozen=True)
class Apart:
    """A fused node, and the outputs of what it was taken apart into, in order: layer, sum, activation."""

    whole: onnx.NodeProto
    outputs: tuple[str, ...]
    limits: tuple[str, ...]  # constants of the activation

    @property
    def more_nodes(self) -> int:
        """How many nodes the parts are more than the whole."""
        return len(self.outputs) + len(self.limits) - 1


def taken_apart(model: onnx.ModelProto, opset: int) -> tuple[onnx.ModelProto, tuple[Apart, ...]]:
    """The model with layers, sums and activations as nodes of the standard; the very model where none is fused."""
    fused = [node for node in model.graph.node if _is_known(node, opset)]
    if not fused:
        return model, ()
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    new = onnx.ModelProto()
    new.CopyFrom(model)
    del new.graph.node[:]
    apart = []
    for node in model.graph.node:
        if not _is_known(node, opset):
            new.graph.node.append(node)
            continue
        parts = list(_parts(node, opset, names, kinds.get(node.input[1], onnx.TensorProto.FLOAT)))
        new.graph.node.extend(parts)
        outputs = [part.output[0] for part in parts if part.op_type != "Constant"]
        limits = [part.output[0] for part in parts if part.op_type == "Constant"]
        apart.append(Apart(node, tuple(outputs), tuple(limits)))
    return new, tuple(apart)


def _is_known(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain != CONTRIB or node.op_type not in LAYERS:
        return False
    activation = _attributes(node).get("activation", b"").decode()
    return not activation or (activation in ACTIVATIONS and ACTIVATIONS[activation][1] <= opset)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _parts(node: onnx.NodeProto, opset: int, names: set[str], kind: int) -> Iterator[onnx.NodeProto]:
    """The layer, the sum with FusedConv's fourth input, and the activation."""
    layer = onnx.NodeProto(op_type=LAYERS[node.op_type], name=node.name, doc_string=node.doc_string)
    layer.input.extend(node.input[:3])
    layer.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    added = node.input[3] if len(node.input) > 3 else ""
    activation = _attributes(node).get("activation", b"").decode()
    result = node.output[0]
    outputs = [free_name(f"{result}_{stem}", names) for stem in ("layer", "sum")[: bool(added) + bool(activation)]]
    outputs.append(result)
    layer.output.append(outputs[0])
    yield layer
    if added:
        yield onnx.helper.make_node("Add", [outputs[0], added], [outputs[1]])
    if activation:
        yield from _activation(node, activation, outputs[-2], opset, names, kind)


def _activation(
    node: onnx.NodeProto, activation: str, source: str, opset: int, names: set[str], kind: int
) -> Iterator[onnx.NodeProto]:
    attributes = _attributes(node)
    parameters = [f"activation_{name}" for name in ACTIVATIONS[activation][0]]
    given = [float(value) for value in attributes.get("activation_params", ())]
    values: dict[str, Any] = dict(zip(ACTIVATIONS[activation][0], given, strict=False)) or {
        name.removeprefix("activation_"): float(attributes[name]) for name in parameters if name in attributes
    }
    inputs = [source]
    if activation == "Clip" and opset >= CLIP_BY_INPUT:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        for name, value in values.items():
            inputs.append(free_name(f"{node.output[0]}_{name}", names))
            limit = onnx.numpy_helper.from_array(np.asarray(value, dtype), inputs[-1])
            yield onnx.helper.make_node("Constant", [], [inputs[-1]], value=limit)
        values = {}
    yield onnx.helper.make_node(activation, inputs, node.output, **values)


def put_together(nodes: Sequence[onnx.NodeProto], apart: Sequence[Apart]) -> list[onnx.NodeProto]:
    """The nodes with each fused node in the place of its parts, where they still follow one another and nothing else
    reads what lies between.
    """
    if not apart:
        return list(nodes)
    maker = {name: node for node in nodes for name in node.output}
    reads = [name for node in nodes for name in node.input]
    gone: set[int] = set()
    whole: dict[int, onnx.NodeProto] = {}
    for one in apart:
        parts = [maker.get(name) for name in one.outputs]
        if (found := _whole(one, parts, reads)) is not None:
            gone.update(id(maker[name]) for name in (*one.outputs[:-1], *one.limits))
            whole[id(parts[-1])] = found
    return [whole.get(id(node), node) for node in nodes if id(node) not in gone]


def _whole(one: Apart, parts: Sequence[onnx.NodeProto | None], reads: Sequence[str]) -> onnx.NodeProto | None:
    layer = parts[0]
    if layer is None or layer.op_type != LAYERS[one.whole.op_type]:
        return None
    inputs = list(layer.input)
    for before, part in zip(one.outputs, parts[1:], strict=False):
        if part is None or part.op_type == "Identity" or before not in part.input or reads.count(before) != 1:
            return None
        if part.op_type == "Add":
            inputs += [""] * (3 - len(inputs)) + [name for name in part.input if name != before]
    node = onnx.NodeProto()
    node.CopyFrom(one.whole)
    del node.input[:], node.attribute[:]
    node.input.extend(inputs)
    node.attribute.extend(layer.attribute)
    node.attribute.extend(a for a in one.whole.attribute if a.name.startswith("activation"))
    return node
