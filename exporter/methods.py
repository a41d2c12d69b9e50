"""How weights are chosen: each method turns a network into scores, and `next_mask` turns scores into the next mask.

A further method is one function from `Scoring` to scores and one entry: of `METHODS`, or anywhere else, named on the
command line as `package.module:method`.
"""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from onnx_shift.exporter.masks import Mask, Scores, apply_mask, count_kept, select
from onnx_shift.exporter.recipe import RecipeError


@dataclass(frozen=True)
class Scoring:
    """What a method may look at. It may change `model`, a copy made for it whose removed weights are zero."""

    model: nn.Module
    mask: Mask
    batches: Callable[
        [int], Iterable[tuple[Tensor, Tensor]]
    ]  # that many normalised training batches, with labels
    redraw: Callable[[], None]  # draws the model's weights anew, as at initialisation
    generator: torch.Generator  # the method's own source of chance, on the CPU

    def weights(self) -> dict[str, nn.Parameter]:
        """The prunable weights by name."""
        return {name: self.model.get_parameter(name) for name in self.mask}


@dataclass(frozen=True)
class Method:
    """A way to choose weights. Scores are per weight, any shape-alike tensor, higher stays.

    `source` says which weights the network handed over holds: those "trained" in the round before, those of the
    trained "dense" network, or the "initial" ones. With "trained" pruning and training alternate; otherwise every
    level is chosen by itself. `passes` spreads one level's removal over so many re-scorings.
    """

    score: Callable[[Scoring], Scores]
    source: Literal["trained", "dense", "initial"]
    passes: int = 1
    refill: bool = False

    @property
    def iterative(self) -> bool:
        """Whether pruning and training alternate."""
        return self.source == "trained"


def magnitude(scoring: Scoring) -> Scores:
    """|w| (Frankle & Carbin 2019)."""
    return {name: weight.detach().abs() for name, weight in scoring.weights().items()}


def chance(scoring: Scoring) -> Scores:
    """Uniform random numbers."""
    return {
        name: torch.rand(weight.shape, generator=scoring.generator)
        for name, weight in scoring.weights().items()
    }


METHODS: dict[str, Method] = {
    "imp": Method(magnitude, "trained"),
    "one-shot": Method(magnitude, "dense"),
    "random": Method(chance, "initial"),
}


def find_method(name: str) -> Method:
    """The method `name` of the table, or `package.module:method`. Raises RecipeError when there is none."""
    if name in METHODS:
        return METHODS[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise RecipeError(f"--method {name}: choose one of {', '.join(METHODS)}, or package.module:method")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"--method {name}: cannot be imported ({error})") from error
    if not isinstance(found, Method):
        raise RecipeError(f"--method {name}: is not a Method of onnx_shift.exporter.methods")
    return found


def next_mask(method: Method, scoring: Scoring, keep: int) -> Mask:
    """The mask of the `keep` weights that `method` scores highest among those of the scoring's mask."""
    remaining = count_kept(scoring.mask)
    for number in range(1, method.passes + 1):
        target = (
            keep
            if number == method.passes
            else round(remaining * (keep / remaining) ** (number / method.passes))
        )
        apply_mask(scoring.model, scoring.mask)
        scoring = replace(scoring, mask=select(method.score(scoring), scoring.mask, target))
    return scoring.mask
