"""Every architecture of the zoo, zeros in two fashions: pruned models are equal and smaller."""

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest

from onnx_shift.onnx_pruner import prune
from zoo import handbuilt, zeros
from zoo.judge import judge

torch = pytest.importorskip("torch", reason="the zoo's families are written in torch")

from zoo import classifiers, export, tasks  # noqa: E402

TORCH = {**classifiers.FAMILIES, **tasks.FAMILIES}
NAMES = sorted({*TORCH, *handbuilt.NETWORKS})
#: Vary the exporter's operator set; a few families need operators that only newer ones have.
OPSETS = (11, 13, 17, 18)
NEW_ONLY = {"all_convolutional": 13, "autoencoder": 13}
#: Its weight is tied to the input by one of three users: slicing it for the others would need copies.
TIED = {"shared_weights"}
INJECTIONS: dict[str, Callable[[onnx.ModelProto, int], onnx.ModelProto]] = {
    "scattered": zeros.inject,
    "aligned": zeros.inject_aligned,
}


@cache
def model_of(name: str) -> onnx.ModelProto:
    if name in handbuilt.NETWORKS:
        return handbuilt.NETWORKS[name]()
    return export.export(TORCH[name], opset=NEW_ONLY.get(name, OPSETS[NAMES.index(name) % len(OPSETS)]))


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_pruned_is_equal_and_smaller(name: str, injection: str) -> None:
    sparse = INJECTIONS[injection](model_of(name), 1)
    tolerance = 5e-3 if name == "half_precision" else 1e-4
    before = sparse.SerializeToString(deterministic=True)
    smallest = prune(sparse, align=1, verify=False).model
    assert sparse.SerializeToString(deterministic=True) == before, "the argument was edited"
    judged = judge(sparse, smallest, tolerance)
    assert judged.cases == 6
    assert judged.error <= 1, f"{judged.error} times what is allowed"
    assert judged.moves > 1e-2, "the outputs hardly depend on the input"
    assert zeros.parameters(smallest) < zeros.parameters(sparse) + (name in TIED)
    onnx.checker.check_model(smallest, full_check=True)
    again = prune(smallest, align=1, verify=False).model
    assert zeros.parameters(again) == zeros.parameters(smallest), "a second run finds more"

    aligned = prune(sparse, verify=False).model
    assert judge(sparse, aligned, tolerance).error <= 1
    assert zeros.parameters(smallest) <= zeros.parameters(aligned) <= zeros.parameters(sparse)


def _renamed(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and prefix + name for name in names]
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = prefix + value.name
    return found


def test_what_stays_does_not_hang_on_names() -> None:
    sparse = zeros.inject(model_of("dual_path"), 1)
    weights, layers = zeros.tensors(sparse), list(zeros.layers(sparse))
    for layer in layers[:-1:3]:  # whole layers, so that tensors are held back from vanishing
        weight = weights[layer.weight]
        zeros.clear(weight, layer.out_axis, np.arange(weight.dims[layer.out_axis]))
    outcomes = set()
    for number in range(8):
        pruned = prune(_renamed(sparse, f"n{number}_"), align=1, verify=False).model
        outcomes.add(tuple(tensor.raw_data for tensor in pruned.graph.initializer))
    assert len(outcomes) == 1


def test_the_topologies_are_distinct() -> None:
    topologies = {tuple(node.op_type for node in model_of(name).graph.node) for name in NAMES}
    assert len(topologies) == len(NAMES) >= 100
