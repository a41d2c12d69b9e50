"""The default width of pruned layers beside others: chains and residual networks with few to many useful channels."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import TensorProto, helper, numpy_helper

from benchmarks.widths import shortest_ms
from onnx_shift.onnx_pruner import prune
from onnx_shift.onnx_pruner.target import this_target
from onnx_shift.runtime import kernels
from onnx_shift.runtime.kernels.find import find_layers
from onnx_shift.runtime.kernels.rewrite import rewrite

TITLE = "Default width of pruned layers beside the fastest of those tried"
MINUTES = 2

#: Pixels per side, and channels of the dense network.
SIZES = {56: 32, 28: 64, 14: 64, 7: 128}
USEFUL = (0.1, 0.3, 0.5, 0.7, 0.9)
NETWORKS = ("chain", "residual", "bottlenecks")
ALIGNMENTS = (1, 4, 8, 16)
BLOCKS = 3
MOSTLY_ZERO = 0.5  # of the weights: such layers are tried on our kernels
#: Networks with scattered zeros, for those kernels: pixels per side, share of the useful channels, zeros among them.
SPARSE = (
    ("chain", 28, 0.3, 0.9), ("chain", 14, 0.3, 0.95), ("bottlenecks", 28, 0.3, 0.9), ("bottlenecks", 7, 0.3, 0.9),
    ("bottlenecks", 14, 0.7, 0.8),
)  # fmt: skip


def measure(work: Path) -> dict[str, Any]:
    del work
    rows = []
    for network, (size, channels), useful in itertools.product(NETWORKS, SIZES.items(), USEFUL):
        model = build(network, size, channels, max(1, round(useful * channels)))
        pruned = {"default": prune(model, verify=False).model}
        pruned |= {f"align {align}": prune(model, align=align, verify=False).model for align in ALIGNMENTS}
        different = {_widths(one): one for one in pruned.values()}
        times = dict(zip(different, shortest_ms([*different.values()]), strict=True))
        found = {name: times[_widths(one)] for name, one in pruned.items()}
        rows.append(
            {
                "network": network,
                "pixels per side": size,
                "channels": channels,
                "useful": useful,
                **{f"{name}, ms": round(ms, 3) for name, ms in found.items()},
                "default over fastest": round(found["default"] / min(found.values()), 3),
            }
        )
    ratios = [row["default over fastest"] for row in rows]
    figures = {
        "networks": len(rows),
        "worst": max(ratios),
        "median": round(float(np.median(ratios)), 3),
        "within_5_percent": sum(ratio <= 1.05 for ratio in ratios),
    }
    note = (
        f"Processor time of one sample, plain onnxruntime, one thread, {this_target()}; for each width the shortest of "
        "many rounds in which all take turns. Layers have zeros in the filters that are not useful, biases included."
    )
    sparse = [_sparse(*row) for row in SPARSE] if kernels.available() else []
    for column in ("plain", "kernels") if sparse else ():
        figures[f"unaligned_{column}"] = round(float(np.median([row[f"unaligned, {column}"] for row in sparse])), 3)
    caption = "Scattered zeros with --sparse-kernels, of the time without it: in plain onnxruntime and on our kernels"
    return {"rows": rows, "figures": figures, "tables": {caption: sparse} if sparse else {}, "notes": [note]}


def _sparse(network: str, size: int, useful: float, zeros: float) -> dict[str, Any]:
    """The time of a network that keeps no channels for alignment over that of the default, and so on our kernels."""
    channels = SIZES[size]
    model = build(network, size, channels, round(useful * channels), zeros)
    plain = [prune(model, sparse_kernels=unaligned, verify=False).model for unaligned in (True, False)]
    times = shortest_ms([*plain, *map(_on_kernels, plain)])
    return {
        "network": network,
        "pixels per side": size,
        "useful": useful,
        "zeros": zeros,
        "unaligned, plain": round(times[0] / times[1], 3),
        "unaligned, kernels": round(times[2] / times[3], 3),
    }


def _widths(model: onnx.ModelProto) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.dims) for tensor in model.graph.initializer)


def _on_kernels(model: onnx.ModelProto) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(model)
    return rewrite(inferred, [layer for layer in find_layers(inferred) if layer.zeros >= MOSTLY_ZERO], 1)


def build(network: str, size: int, channels: int, useful: int, zeros: float = 0.0) -> onnx.ModelProto:
    """A network of 3x3 convolutions, of residual blocks of two, or of bottlenecks; useful channels drawn at random, and
    a share of zeros among their weights.
    """
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def layer(name: str, outputs: int, inputs: int, kernel: int, relu: bool = True, alive: int = useful) -> str:
        array = rng.standard_normal((outputs, inputs, kernel, kernel)) / np.sqrt(inputs * kernel**2)
        if zeros:
            array *= rng.random(array.shape) >= zeros
        array[np.random.default_rng(outputs).permutation(outputs)[alive:]] = 0
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{len(weights)}"))
        shape = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        nodes.append(helper.make_node("Conv", [name, weights[-1].name], [f"c{len(nodes)}"], **shape))
        if relu:
            nodes.append(helper.make_node("Relu", nodes[-1].output, [f"r{len(nodes)}"]))
        return str(nodes[-1].output[0])

    name = layer("x", channels, 3, 3)
    for _ in range(BLOCKS):
        kernels = (1, 3, 1) if network == "bottlenecks" else (3, 3)
        end = name
        for k, kernel in enumerate(kernels):
            end = layer(end, channels, channels, kernel, network == "chain" or k < len(kernels) - 1)
        if network != "chain":
            nodes.append(helper.make_node("Add", [name, end], [f"s{len(nodes)}"]))
            nodes.append(helper.make_node("Relu", nodes[-1].output, [f"r{len(nodes)}"]))
            end = str(nodes[-1].output[0])
        name = end
    nodes.append(helper.make_node("GlobalAveragePool", [layer(name, 16, channels, 1, alive=16)], ["y"]))
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 1, 1]),
    ]
    graph = helper.make_graph(nodes, network, ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
