"""Latency of convolutions over channels, image size, kernel and type: what the pruner's default alignment goes by.

Writes onnx_pruner/targets/TARGET.json, the table of this processor.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from onnx_shift.onnx_pruner import target
from onnx_shift.portfolio.machine import processor
from onnx_shift.runtime import kernels

TITLE = "Latency of convolutions over channels, image size, kernel and type"
MINUTES = 2
BY_NAME_ALONE = True

KERNELS = ("3x3", "1x1", "depthwise")
SIZES = (56, 28, 14, 7)
#: Counts that fill whole blocks, groups of four, or neither: onnxruntime lays the first two out in blocks.
WIDTHS = {
    "float32": (3, 4, 6, 8, 10, 12, 13, 16, 18, 20, 24, 25, 28, 32, 34, 44, 48, 50, 60, 64, 66),
    "int8": (3, 8, 13, 16, 25, 32, 33, 64, 65),
}
#: Of channels that a Gather brings into another order, before convolutions that do little: depthwise, 1x1.
GATHERED = (8, 16, 32, 64, 128, 256)
COLOURS = 3  # channels of the input
SECONDS = 0.1  # for each width, at most
ROUNDS = 30
SESSIONS = 2  # of each network: where its weights lie makes one faster than the next
FIRST_BLOCKS = {"x86-64-avx512": 16}  # channels of a block, otherwise 8


def measure(work: Path) -> dict[str, Any]:
    del work
    name = target.this_target()
    table: dict[str, dict[str, dict[int, dict[int, float]]]] = {}
    for kind, widths in WIDTHS.items():
        table[kind] = {kernel: {size: _times(kind, kernel, size, widths) for size in SIZES} for kernel in KERNELS}
    table["float32"][target.GATHER] = {size: _gathers(size) for size in SIZES}
    stored = {
        "processor": processor(),
        "onnxruntime": onnxruntime.__version__,
        "block": FIRST_BLOCKS.get(name, 8),
        "times_ms": table,
    }
    (Path(target.__file__).parent / "targets" / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")
    rows = [
        {"type": kind, "kernel": kernel, "pixels per side": size, **{str(w): round(ms, 3) for w, ms in curve.items()}}
        for kind, kernels in table.items()
        for kernel, sizes in kernels.items()
        for size, curve in sizes.items()
    ]
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(target.GATHER if row["kernel"] == target.GATHER else str(row["type"]), []).append(row)
    first, others = tables.pop("float32"), tables
    note = (
        f"Milliseconds of the processor for {target.DEPTH} layers behind one another, by channels: the shortest of "
        f"{ROUNDS} rounds in which all take turns; plain onnxruntime, one thread, one sample. depthwise: each behind a "
        f"1x1 convolution. {target.GATHER}: what as many Gathers of all channels in another order add to "
        "depthwise 1x1 convolutions, onnxruntime's way out of its blocks and back included."
    )
    return {"rows": first, "tables": others, "figures": {}, "notes": [note]}


def _times(kind: str, kernel: str, size: int, widths: Sequence[int]) -> dict[int, float]:
    build = {"float32": Chain, "int8": QuantisedChain}[kind]
    times = shortest_ms([build().model(kernel, size, width) for width in widths])
    return {width: round(ms, 4) for width, ms in zip(widths, times, strict=True)}


def _gathers(size: int) -> dict[int, float]:
    pairs = [(Chain(), Chain(gathers=True)) for _ in GATHERED]
    models = [
        one.model(target.GATHER, size, width) for width, pair in zip(GATHERED, pairs, strict=True) for one in pair
    ]
    times = shortest_ms(models)
    layers = target.DEPTH / (target.DEPTH - 1)  # the first layer reads the image as it is
    return {width: round((times[2 * k + 1] - times[2 * k]) * layers, 4) for k, width in enumerate(GATHERED)}


def shortest_ms(models: Sequence[onnx.ModelProto]) -> list[float]:
    """Return the shortest time of each model on its input "x", in milliseconds of the processor; they take turns."""
    calls = [call_of(model) for model in models for _ in range(SESSIONS)]
    best = [float("inf")] * len(calls)
    end = time.thread_time() + SECONDS * len(calls)
    for _ in range(ROUNDS):
        for k, call in enumerate(calls):
            call()  # what others left in the caches is gone
            start = time.thread_time()  # of the processor, which other processes may take from us meanwhile
            call()
            best[k] = min(best[k], time.thread_time() - start)
        if time.thread_time() > end:
            break
    return [min(best[k : k + SESSIONS]) * 1e3 for k in range(0, len(best), SESSIONS)]


def call_of(model: onnx.ModelProto) -> Callable[[], Any]:
    """Return what runs a model once on a random input "x", on one thread; nodes of our own by our kernels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if kernels.available():
        kernels.register(options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    fed = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    return lambda: session.run(None, fed)


class Chain:
    """A network of layers of one kind, being built; with `gathers` each reads the channels in another order."""

    def __init__(self, gathers: bool = False) -> None:
        self.gathers = gathers
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def model(self, kernel: str, size: int, width: int) -> onnx.ModelProto:
        name, channels = self.enter("x"), COLOURS
        for _ in range(target.DEPTH):
            groups = width if kernel == target.GATHER and channels == width else 1
            name, channels = self.layer(name, width, channels, 3 if kernel == "3x3" else 1, groups), width
            if kernel == "depthwise":
                name = self.layer(name, width, width, 3, width)
        return self.finish(name, size, width)

    def finish(self, name: str, size: int, width: int) -> onnx.ModelProto:
        """Return the network from "x", images of `size` pixels per side, to the mean of each channel of `name`."""
        self.nodes.append(helper.make_node("GlobalAveragePool", [name], ["y"]))
        ends = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, COLOURS, size, size]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width, 1, 1]),
        ]
        graph = helper.make_graph(self.nodes, "widths", ends[:1], ends[1:], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)

    def add(self, op: str, inputs: Sequence[str], **attributes: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def enter(self, name: str) -> str:
        return name

    def layer(self, name: str, outputs: int, inputs: int, kernel: int, groups: int) -> str:
        if self.gathers and inputs == outputs:
            name = self.add("Gather", [name, self.constant(self.rng.permutation(inputs))], axis=1)
        weight = self.rng.standard_normal((outputs, inputs // groups, kernel, kernel)) * 0.05
        shape = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "group": groups}
        return self.add("Relu", [self.add("Conv", [name, self.constant(weight.astype(np.float32))], **shape)])


class QuantisedChain(Chain):
    """The same in QuantizeLinear–DequantizeLinear form, weights with a scale per channel."""

    def enter(self, name: str) -> str:
        scale, zero = self.constant(np.float32(0.05)), self.constant(np.uint8(128))
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [name, scale, zero]), scale, zero])

    def layer(self, name: str, outputs: int, inputs: int, kernel: int, groups: int) -> str:
        weight = self.rng.integers(-60, 60, (outputs, inputs // groups, kernel, kernel)).astype(np.int8)
        steps = self.constant(np.full(outputs, 1e-3, np.float32))
        read = self.add("DequantizeLinear", [self.constant(weight), steps], axis=0)
        shape = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "group": groups}
        return self.enter(self.add("Relu", [self.add("Conv", [name, read], **shape)]))
