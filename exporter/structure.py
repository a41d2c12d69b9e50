"""What the layout of a torch network says about its weights: how often each is applied, which channels are
tied.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onnx_shift.exporter.masks import WEIGHTED, Mask


def positions(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Per weight, at how many positions of one image its layer is applied: its multiply–accumulates."""
    found: dict[str, int] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED):

            def count(module: nn.Module, inputs: Any, output: Tensor, name: str = f"{name}.weight") -> None:
                channels = output.shape[1] if output.dim() > 2 else output.shape[-1]
                found[name] = found.get(name, 0) + output.numel() // channels

            hooks.append(module.register_forward_hook(count))
    was_training = model.training
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, *image_shape, device=next(model.parameters()).device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return found


@dataclass
class Ties:
    """Union–find over tensors of the network, and the weights whose output channels are each tensor's
    channels.
    """

    parent: dict[Any, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    shifts: dict[str, Any] = field(default_factory=dict)  # biases and BatchNorm's scales, likewise
    pinned: set[Any] = field(default_factory=set)

    def root(self, key: Any) -> Any:
        while self.parent.setdefault(key, key) != key:
            key = self.parent[key]
        return key

    def tie(self, first: Any, second: Any) -> Any:
        self.parent[self.root(first)] = self.root(second)
        return self.root(second)


class _Leaves(fx.Tracer):
    """Traces down to modules without children, whoever wrote them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m.children())


_JOINS: set[Callable[..., Any] | str] = {
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    torch.add,
    torch.mul,
    "add",
    "add_",
    "mul",
    "mul_",
}
_MEASURES: set[Callable[..., Any] | str] = {"size", "dim", "numel", getattr}  # sizes, and no channels
_MIXES: set[Callable[..., Any] | str] = {torch.cat, torch.concat, torch.stack, "view", "reshape", "permute"}


def tied_weights(model: nn.Module) -> list[tuple[str, ...]]:
    """Groups of weights whose output channels must be emptied together, because an Add (or Mul) joins them.

    Weights whose channels reach the output are in no group: nothing may empty a class. A network that
    torch.fx cannot trace has every weight in a group of its own, the last one excepted.
    """
    ties = _trace(model)
    if ties is None:
        names = [name for name, module in model.named_modules() if isinstance(module, WEIGHTED)]
        return [(f"{name}.weight",) for name in names[:-1]]
    pinned = {ties.root(key) for key in ties.pinned}
    groups: dict[Any, list[str]] = {}
    for weight, key in ties.weights.items():
        if ties.root(key) not in pinned:
            groups.setdefault(ties.root(key), []).append(weight)
    return [tuple(group) for group in groups.values()]


def empty_shifts(model: nn.Module, mask: Mask) -> Mask:
    """What a bias and the scale and shift of a BatchNorm keep (C,) when those of empty channels are removed too.

    A channel is empty when all weights that write it are. Removed, its output is zero rather than a constant that
    an exact pruner must keep for the borders of padded convolutions. Empty for a network that torch.fx cannot
    trace.
    """
    ties = _trace(model)
    if ties is None:
        return {}
    alive: dict[Any, Tensor] = {}
    for name, key in ties.weights.items():
        kept = mask.get(name)
        weight = model.get_parameter(name)
        channels = torch.ones(len(weight), dtype=torch.bool) if kept is None else kept.flatten(1).any(dim=1).cpu()
        root = ties.root(key)
        alive[root] = alive[root] | channels if root in alive else channels
    own = dict(model.named_parameters())
    found = {name: alive[ties.root(key)] for name, key in ties.shifts.items() if ties.root(key) in alive}
    return {name: kept for name, kept in found.items() if name in own and len(own[name]) == len(kept)}


def _trace(model: nn.Module) -> Ties | None:
    try:
        graph = _Leaves().trace(model)
    except Exception:  # noqa: BLE001 - a forward of anybody's, run on stand-ins for tensors
        return None
    return _walk(graph, dict(model.named_modules()))


def _walk(graph: fx.Graph, modules: dict[str, nn.Module]) -> Ties:
    ties = Ties()
    channels: dict[fx.Node, Any] = {}  # whose channels a node's output carries
    mixed: dict[fx.Node, list[Any]] = {}  # nodes that mix channels, and whose
    for node in graph.nodes:
        sources = [channels[source] for source in node.all_input_nodes if source in channels]
        if node.op == "placeholder":
            channels[node] = node
            ties.pinned.add(node)
        elif node.op == "output":
            ties.pinned.update(sources)
        elif node.op == "call_module" and isinstance(modules[str(node.target)], WEIGHTED):
            layer = modules[str(node.target)]
            groups = getattr(layer, "groups", 1)
            depthwise = groups > 1 and groups == layer.in_channels == layer.out_channels
            weight = f"{node.target}.weight"
            channels[node] = sources[0] if depthwise and sources else node
            if weight in ties.weights:  # applied twice
                ties.tie(ties.weights[weight], channels[node])
            ties.weights[weight] = channels[node]
            ties.shifts[f"{node.target}.bias"] = channels[node]
        elif node.op == "call_module" and isinstance(modules[str(node.target)], _BatchNorm) and sources:
            channels[node] = sources[0]
            ties.shifts |= {f"{node.target}.{name}": sources[0] for name in ("weight", "bias")}
        elif node.target in _JOINS and sources:
            joined = sources[0]
            for source in sources[1:]:
                joined = ties.tie(source, joined)
            channels[node] = joined
        elif node.target in _MEASURES:
            continue
        elif node.target in _MIXES or not sources:
            channels[node] = node
            mixed[node] = sources
        else:
            channels[node] = sources[0]
    pinned = {ties.root(key) for key in ties.pinned}
    for node in reversed(mixed):  # what is mixed into an output is one, too
        if ties.root(node) in pinned:
            ties.pinned.update(mixed[node])
            pinned |= {ties.root(key) for key in mixed[node]}
    return ties
