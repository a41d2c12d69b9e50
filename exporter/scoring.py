"""What a pruning method is: a function from a network to scores, and whatever else it may decide."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from onnx_shift.exporter.masks import Mask, Scores
from onnx_shift.exporter.recipe import Recipe


@dataclass(frozen=True)
class Scoring:
    """What a method may look at. It may change `model`, a copy made for it whose removed weights are zero."""

    model: nn.Module
    mask: Mask
    recipe: Recipe
    round: int
    image_shape: tuple[int, int, int]
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]]  # a number of training batches, the same every time
    redraw: Callable[[], None]  # draws the model's weights anew, as at initialisation
    generator: torch.Generator  # the method's own source of chance, on the CPU

    def weights(self) -> dict[str, nn.Parameter]:
        """The prunable weights by name."""
        return {name: self.model.get_parameter(name) for name in self.mask}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class Method:
    """A way to choose weights: scores per weight, of the weights' shapes; the highest over all layers stay.

    `source` says which weights the network handed over holds: those "trained" in the round before, those of
    the trained "dense" network, or the "initial" ones. With "trained" pruning and training alternate;
    otherwise every level is chosen by itself. `passes` spreads one round's removal over this many scorings.
    `reshape` may turn the selected mask into another one within the mask of the round before.
    """

    score: Callable[[Scoring], Scores]
    source: Literal["trained", "dense", "initial"]
    passes: int = 1
    reshape: Callable[[Scoring, Mask], Mask] | None = None

    @property
    def iterative(self) -> bool:
        """Whether pruning and training alternate."""
        return self.source == "trained"
