"""Random operators, given the same seeds in both models, so that both draw the same numbers."""

import zlib
from collections.abc import Iterator

import onnx
import onnx.inliner

from onnx_shift.onnx_pruner.graph.inner import subgraphs
from onnx_shift.onnx_pruner.verification.engines import Source, complete, copied

#: Operators with an attribute `seed`, without which every run differs; Dropout draws in training mode alone.
_SEEDED = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_DROPOUT_WITH_SEED = 12  # the opset


def seeded(source: Source) -> Source:
    """Return the model with a seed at every random operator, by the name of its output; as it is if it has none."""
    model = source.model
    if not any(node.op_type in _SEEDED for graph in (model.graph, *model.functions) for node in _nodes(graph.node)):
        return source
    model = copied(complete(source)) if model.functions else copied(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    draws = False
    for node in _nodes(model.graph.node):
        if node.op_type == "Dropout" and (opset < _DROPOUT_WITH_SEED or len(node.input) < 3):
            continue
        if node.op_type in _SEEDED and node.domain in ("", "ai.onnx"):
            kept = [attribute for attribute in node.attribute if attribute.name != "seed"]
            seed = zlib.crc32(node.output[0].encode()) % (1 << 20)  # exact as a 32-bit float
            del node.attribute[:]
            node.attribute.extend([*kept, _seed(node, seed)])
            draws = True
    return source.changed(model, fresh=True) if draws else source


def _seed(node: onnx.NodeProto, seed: int) -> onnx.AttributeProto:
    return onnx.helper.make_attribute("seed", seed if node.op_type == "Dropout" else float(seed))


def _nodes(nodes: object) -> Iterator[onnx.NodeProto]:
    for node in nodes:  # type: ignore[attr-defined]
        yield node
        for body in subgraphs(node):
            yield from _nodes(body.node)
