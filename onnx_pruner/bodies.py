"""Bodies of If, Loop and Scan, each pruned as a model of its own.

A body is a function of its inputs and of what it captures: it reads all of them, and puts out all of its outputs, so
what holds for a model holds for it. Weights that it captures are known to it; those that it loses channels of become
its own.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import onnx
import onnx.inliner
import onnx.numpy_helper

from onnx_shift.onnx_pruner.graph.constants import Constants
from onnx_shift.onnx_pruner.graph.inner import inner_names, subgraphs
from onnx_shift.onnx_pruner.graph.names import free_name
from onnx_shift.onnx_pruner.graph.network import Network, open_network
from onnx_shift.onnx_pruner.graph.reading import LoadedModel, PruneError
from onnx_shift.onnx_pruner.report import LayerChange, PruneReport

Prune = Callable[[LoadedModel], tuple[onnx.ModelProto, PruneReport]]


def with_pruned_bodies(source: LoadedModel, prune: Prune) -> tuple[LoadedModel, tuple[PruneReport, ...]]:
    """The source with its bodies pruned, and a report on each that changed; the very source where none does."""
    if not any(True for node in source.model.graph.node for _ in subgraphs(node)):
        return source, ()
    model = onnx.ModelProto()
    model.CopyFrom(onnx.inliner.inline_local_functions(source.model) if source.model.functions else source.model)
    network = open_network(source)
    outside = _Outside(model, network, Constants(network), set(source.reserved) | _names(model.graph))
    reports, looked_at = [], set(source.looked_at)
    for node in model.graph.node:
        for where, body in _bodies(node):
            part = _standalone(body, outside, f"{source.name}, {where}")
            if part is None:
                continue
            try:
                pruned, report = prune(part)
            except PruneError:  # a body that cannot stand for itself stays as it is
                continue
            reports.append(_named(report, where))
            if not report.unchanged:
                _put_back(body, pruned.graph, outside)
            looked_at |= {*_names(body), *_captured(body)}
    changed = any(not report.unchanged for report in reports)
    whole = replace(source, model=model if changed else source.model, looked_at=frozenset(looked_at), touched=changed)
    return whole, tuple(reports)


@dataclass(frozen=True)
class _Outside:
    """What a body finds around it; `names` are those that its own must differ from."""

    model: onnx.ModelProto
    network: Network
    constants: Constants
    names: set[str]


def _bodies(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The bodies of a node, each with a name for people."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield f"{attribute.name} of {node.name or node.op_type}", attribute.g


def _names(graph: onnx.GraphProto) -> set[str]:
    outer = {name for node in graph.node for name in (*node.input, *node.output)}
    infos = {one.name for one in (*graph.input, *graph.output, *graph.initializer)}
    return outer | infos | set(inner_names(graph))


def _captured(graph: onnx.GraphProto) -> list[str]:
    """What a graph reads and does not make, in the order of reading."""
    made = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    made.update(name for node in graph.node for name in node.output)
    read = [info.name for info in graph.output]
    for node in graph.node:
        read += [*node.input, *(name for body in subgraphs(node) for name in _captured(body))]
    return [name for name in dict.fromkeys(read) if name and name not in made]


def _standalone(body: onnx.GraphProto, outside: _Outside, name: str) -> LoadedModel | None:
    """A body as a model: what it captures is an input, or a weight where it is constant. None without types."""
    model = onnx.ModelProto(ir_version=max(outside.model.ir_version, 4), opset_import=outside.model.opset_import)
    model.graph.CopyFrom(body)
    model.graph.name = body.name or "body"
    for captured in _captured(body):
        tensor = _constant(captured, outside)
        kind = outside.network.types.get(captured)
        if tensor is not None:
            model.graph.initializer.append(tensor)
        elif kind:
            shape = outside.network.shapes.get(captured)
            model.graph.input.append(onnx.helper.make_tensor_value_info(captured, kind, shape))
        else:
            return None
    if not all(info.type.tensor_type.elem_type for info in model.graph.input):
        return None
    return LoadedModel(model, name, None, None, reserved=frozenset(outside.names))


def _constant(name: str, outside: _Outside) -> onnx.TensorProto | None:
    if name in outside.network.initializers:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(outside.network.initializers[name])
        tensor.name = name
        return tensor
    if not outside.constants.is_constant(name) or outside.constants.is_widened(name):
        return None
    array = outside.constants.get(name)
    return None if array is None else onnx.numpy_helper.from_array(array, name)


def _put_back(body: onnx.GraphProto, pruned: onnx.GraphProto, outside: _Outside) -> None:
    """Give a body the nodes and weights of its pruned model; what it captures and did not change stays outside."""
    own = {tensor.name for tensor in body.initializer}
    captured = {name: _constant(name, outside) for name in _captured(body)}
    body.ClearField("node")
    body.ClearField("initializer")
    body.ClearField("value_info")
    body.node.extend(pruned.node)
    body.value_info.extend(pruned.value_info)
    renamed: dict[str, str] = {}
    for tensor in pruned.initializer:
        if tensor.name in captured and tensor == captured[tensor.name]:
            continue
        added = body.initializer.add()
        added.CopyFrom(tensor)
        if tensor.name in captured:
            added.name = renamed[tensor.name] = free_name(tensor.name, outside.names)
        elif tensor.name not in own:
            outside.names.add(tensor.name)
    outside.names.update(name for node in pruned.node for name in node.output)
    _rename(body, renamed)


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        for body in subgraphs(node):
            _rename(body, renamed)


def _named(report: PruneReport, where: str) -> PruneReport:
    return replace(report, layers=tuple(replace(layer, name=f"{layer.name} ({where})") for layer in report.layers))


def joined(report: PruneReport, inner: tuple[PruneReport, ...]) -> PruneReport:
    """A report on a model, with those on its bodies."""
    if not inner:
        return report
    every = (report, *inner)
    layers: tuple[LayerChange, ...] = tuple(layer for one in every for layer in one.layers)
    macs_before, macs_after = [one.macs_before for one in every], [one.macs_after for one in every]
    return replace(
        report,
        layers=layers,
        parameters_after_align_1=report.parameters_after
        - sum(one.parameters_after - one.parameters_after_align_1 for one in every),
        macs_before=None if None in macs_before else sum(count or 0 for count in macs_before),
        macs_after=None if None in macs_after else sum(count or 0 for count in macs_after),
        batch_norms_fused=sum(one.batch_norms_fused for one in every),
        channels_before=sum(one.channels_before for one in every),
        channels_removed=sum(one.channels_removed for one in every),
        narrowed=tuple(name for one in every for name in one.narrowed),
        kept=tuple(kept for one in every for kept in one.kept),
        left_out=tuple(left for one in every for left in one.left_out),
        notes=tuple(dict.fromkeys(note for one in every for note in one.notes)),
    )
