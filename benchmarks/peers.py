"""Other tools that turn zeros into smaller tensors, on the same sparse networks in one run."""

import copy
import signal
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from onnx_shift.errors import OnnxShiftError
from onnx_shift.onnx_pruner import prune
from zoo import classifiers, tasks, zeros
from zoo.export import export_module, randomise
from zoo.judge import Answer, judge, judge_answers

TITLE = "Peers: how many of the same sparse networks each tool prunes, and how many of them exactly"
MINUTES = 3

FILTERS, READERS = 0.3, 0.2
#: A tool that takes longer on one of these miniatures does not run.
SECONDS = 20
BOUND = 1e3  # of the inputs, for the tool that asks
Example = tuple[Tensor, ...]


@dataclass(frozen=True)
class Elsewhere:
    """What a tool made of a network in a format of its own: how it answers, and the share of parameters left."""

    answer: Answer
    left: float


Tool = Callable[..., onnx.ModelProto | Elsewhere]


def measure(work: Path) -> dict[str, Any]:
    del work
    for module in ("simplify", "torch_pruning", "onnxsim", "openvino"):
        if find_spec(module) is None:
            raise OnnxShiftError(f"{module} is not installed: pip install -c constraints.txt -e '.[bench]'")
    outcomes: dict[str, list[tuple[bool, bool, float, float]]] = {name: [] for name in TOOLS}
    for build in {**classifiers.FAMILIES, **tasks.FAMILIES}.values():
        module, example = sparse_network(build)
        sparse = export_module(copy.deepcopy(module), example, fused=False)
        for name, tool in TOOLS.items():
            outcomes[name].append(_outcome(tool, module, example, sparse))
    rows, figures = [], {}
    for name, found in outcomes.items():
        ran, exact = [one for one in found if one[0]], [one for one in found if one[1]]
        smaller = [one for one in exact if one[2] < 1]
        left = statistics.median(one[2] for one in exact) if exact else None
        rows.append(
            {
                "tool": name,
                "networks": len(found),
                "run": len(ran),
                "exact": len(exact),
                "exact and smaller": len(smaller),
                "parameters left (median of the exact)": left and round(left, 3),
                "seconds (median)": round(statistics.median(one[3] for one in ran), 3) if ran else None,
            }
        )
        figures[f"{name.replace(',', '').replace(' ', '_').replace('-', '_')}_exact"] = len(exact)
    figures["networks"] = rows[0]["networks"]
    figures["ours_inexact"] = rows[0]["networks"] - rows[0]["exact"]
    figures["ours_left"] = rows[0]["parameters left (median of the exact)"]
    notes = [
        f"{rows[0]['networks']} networks with {FILTERS:.0%} of the filters and {READERS:.0%} of the input slices zero, "
        "the last layer's filters excepted; biases "
        "and BatchNorm as in trained networks. A tool runs when it returns a model that onnxruntime runs; it is "
        "exact when the outputs are equal on six inputs of one sample by the rule of verification. Channels are "
        f"not aligned here. A tool that takes more than {SECONDS} seconds is stopped.",
        "The paper's rule is our small version of its published code, generous in that it takes every chain of a "
        "network, not only VGG and listed ResNet layers. Torch-Pruning has no rule for zeros: it is given one that is "
        "exact on its own dependency groups. torch-simplify is called with its defaults.",
        f"onnxsim, structured removes by magnitude, told that {FILTERS:.0%} of the filters are zero; onnxsim, dead "
        f"ReLUs removes what it proves dead for inputs within ±{BOUND:g}. OpenVINO's pruning runs after its common "
        "passes, in its own format, judged by its own answers in float32; its share is of the constants that those "
        "passes leave. It keeps a filter of zeros whose bias is not zero.",
    ]
    return {"rows": rows, "figures": figures, "notes": notes}


def sparse_network(build: Callable[[], tuple[nn.Module, Example]]) -> tuple[nn.Module, Example]:
    """Return a network of the zoo with zero filters and zero input slices, in evaluation mode."""
    seed = crc32(build.__name__.encode())
    torch.manual_seed(seed)
    module, example = build()
    randomise(module)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        layers = [p for p in module.modules() if isinstance(p, (nn.modules.conv._ConvNd, nn.Linear))]
        for layer in layers:
            flipped = isinstance(layer, nn.modules.conv._ConvTransposeNd)
            # The last layer keeps its filters: torch-simplify would take away outputs of the network.
            filters = 0.0 if layer is layers[-1] else FILTERS
            for axis, share in ((int(flipped), filters), (int(not flipped), READERS)):
                size = layer.weight.shape[axis]
                dead = np.flatnonzero(rng.random(size) < share)[: size // 2]
                layer.weight.index_fill_(axis, torch.as_tensor(dead), 0.0)
    return module.eval(), example


def _outcome(
    tool: Tool, module: nn.Module, example: Example, sparse: onnx.ModelProto
) -> tuple[bool, bool, float, float]:
    """Return whether the tool ran and was exact, the share of parameters left and the seconds taken."""
    clock = _Clock()
    try:
        with warnings.catch_warnings(), _deadline():
            warnings.simplefilter("ignore")
            result = tool(copy.deepcopy(module), example, sparse, clock)
        elsewhere = isinstance(result, Elsewhere)
        judged = judge_answers(sparse, result.answer, batches=1) if elsewhere else judge(sparse, result, batches=1)
    except Exception:  # noqa: BLE001  whatever a tool fails with, it did not run
        return False, False, 1.0, 0.0
    share = result.left if elsewhere else zeros.parameters(result) / zeros.parameters(sparse)
    return True, judged.cases > 0 and judged.error <= 1, share, clock.seconds


@contextmanager
def _deadline() -> Iterator[None]:
    """Raise TimeoutError inside a tool that does not come to an end."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


class _Clock:
    """Seconds spent in the tool itself, without export to ONNX."""

    seconds = 0.0

    def __call__(self, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds = time.perf_counter() - start


# --- the tools


def ours(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> onnx.ModelProto:
    return clock(lambda: prune(sparse, align=1, verify=False)).model


def papers_rule(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> onnx.ModelProto:
    """As DNNShifter's published code: fuse BatchNorm, then one pass over (C_out, C_in) of neighbours in a chain."""
    fused = export_module(module, example, fused=True)
    clock(lambda: _one_pass(fused))
    return fused


def _one_pass(model: onnx.ModelProto) -> None:
    weights = zeros.tensors(model)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    between = {
        "Relu",
        "LeakyRelu",
        "Clip",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Flatten",
        "Dropout",
    }
    for node in model.graph.node:
        follower = readers.get(node.output[0], [])
        while len(follower) == 1 and follower[0].op_type in between:
            follower = readers.get(follower[0].output[0], [])
        if node.op_type != "Conv" or len(follower) != 1 or follower[0].op_type not in ("Conv", "Gemm"):
            continue
        attributes = [
            helper.get_attribute_value(a) for one in (node, *follower) for a in one.attribute if a.name == "group"
        ]
        own, other = weights[node.input[1]], weights[follower[0].input[1]]
        alive = np.any(numpy_helper.to_array(own) != 0, axis=tuple(range(1, len(own.dims))))
        if any(group != 1 for group in attributes) or other.dims[1] != len(alive) or not alive.any():
            continue
        for tensor, axis in ((own, 0), (other, 1), *((weights[name], 0) for name in node.input[2:])):
            tensor.CopyFrom(
                numpy_helper.from_array(np.compress(alive, numpy_helper.to_array(tensor), axis), tensor.name)
            )
    del model.graph.value_info[:]


def torch_simplify(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> onnx.ModelProto:
    _stand_in_for_torchvision()
    from simplify import simplify

    simple = clock(lambda: simplify(module, torch.zeros_like(example[0])))
    return export_module(simple, example, fused=False)


def torch_pruning(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> onnx.ModelProto:
    import torch_pruning as tp

    def exactly() -> None:
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
        layers = (nn.modules.conv._ConvNd, nn.Linear)
        for layer in [part for part in module.modules() if isinstance(part, layers)]:
            cut = (
                tp.prune_linear_out_channels if isinstance(layer, nn.Linear) else
                tp.prune_depthwise_conv_out_channels if layer.groups == layer.out_channels > 1 else
                tp.prune_conv_out_channels
            )  # fmt: skip
            width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            whole = graph.get_pruning_group(layer, cut, idxs=list(range(width)))
            spare = [k for k in range(width) if _written_by_zeros(whole, k) or _read_by_zeros(whole, k)]
            if spare and len(spare) < width:
                group = graph.get_pruning_group(layer, cut, idxs=spare)
                if graph.check_pruning_group(group):
                    group.prune()

    clock(exactly)
    return export_module(module, example, fused=False)


def _written_by_zeros(group: Any, k: int) -> bool:
    """Whether every layer that writes channel `k` of a dependency group writes zero, biases included."""
    found = []
    for dependency, indices in group:
        layer = dependency.target.module
        parameters = [getattr(layer, name, None) for name in ("weight", "bias")]
        if "out_channels" in dependency.handler.__name__ and isinstance(parameters[0], Tensor) and k < len(indices):
            at = indices[k] if isinstance(indices[k], int) else indices[k].idx
            found += [bool((p[at] == 0).all()) for p in parameters if isinstance(p, Tensor) and at < len(p)]
    return bool(found) and all(found)


def _read_by_zeros(group: Any, k: int) -> bool:
    """Whether every layer that reads channel `k` of a dependency group multiplies it by zero."""
    found = []
    for dependency, indices in group:
        layer = dependency.target.module
        if "in_channels" not in dependency.handler.__name__ or not hasattr(layer, "weight"):
            continue
        if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) or len(indices) % len(group[0].idxs):
            continue
        if getattr(layer, "groups", 1) > 1:
            return False
        each = len(indices) // len(group[0].idxs)
        axis = 0 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 1
        at = torch.as_tensor([int(i) for i in indices[k * each : (k + 1) * each]])
        found.append(bool((layer.weight.index_select(axis, at) == 0).all()))
    return bool(found) and all(found)


def onnxsim(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> onnx.ModelProto:
    import onnxsim as tool

    simple, _ = clock(lambda: tool.simplify(sparse))
    return simple


def onnxsim_structured(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> onnx.ModelProto:
    """By magnitude: the share that is known to be zero."""
    import onnxsim as tool

    return clock(lambda: tool.apply_structured_pruning(sparse, sparsity=FILTERS))


def onnxsim_dead(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> onnx.ModelProto:
    """What never passes its ReLU for inputs within bounds; a filter of zeros needs no narrow ones."""
    from onnxsim import stable_relu_prune as tool

    ranges = {value.name: (-BOUND, BOUND) for value in sparse.graph.input}
    pruned, _ = clock(lambda: tool.apply(sparse, ranges, methods=("interval",), verify_samples=0))
    return pruned


def openvino(module: nn.Module, example: Example, sparse: onnx.ModelProto, clock: _Clock) -> Elsewhere:
    """Its pruning, which finds nothing before the common passes of its converter ran."""
    import openvino as tool
    from openvino._offline_transformations import apply_moc_transformations, apply_pruning_transformation

    core = tool.Core()
    model = core.read_model(sparse.SerializeToString())
    apply_moc_transformations(model, cf=True)
    before = _constants(model)
    clock(lambda: apply_pruning_transformation(model))
    left = _constants(model) / before
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return Elsewhere(lambda fed: [np.array(value) for value in compiled(dict(fed)).to_tuple()], left)


def _constants(model: Any) -> int:
    constants = [one.output(0) for one in model.get_ops() if one.get_type_name() == "Constant"]
    return sum(int(np.prod(list(one.get_shape()))) for one in constants if one.get_element_type().is_real())


TOOLS: dict[str, Tool] = {
    "ours": ours,
    "paper's rule": papers_rule,
    "torch-simplify": torch_simplify,
    "Torch-Pruning": torch_pruning,
    "onnxsim": onnxsim,
    "onnxsim, structured": onnxsim_structured,
    "onnxsim, dead ReLUs": onnxsim_dead,
    "OpenVINO": openvino,
}


def _stand_in_for_torchvision() -> None:
    """torch-simplify imports three classes of torchvision only to recognise them; none occurs here."""
    if "torchvision" in sys.modules:
        return
    package, models, densenet = (ModuleType(f"torchvision{end}") for end in ("", ".models", ".models.densenet"))
    models.MobileNetV3 = models.ShuffleNetV2 = type("Unused", (nn.Module,), {})  # type: ignore[attr-defined]
    densenet._DenseLayer = type("_DenseLayer", (nn.Module,), {})  # type: ignore[attr-defined]
    package.models, models.densenet = models, densenet  # type: ignore[attr-defined]
    for one in (package, models, densenet):
        sys.modules[one.__name__] = one
