"""Masks: which weights of a network stay. Chosen from scores over all layers at once, with exact counts.

A mask maps weight names to boolean tensors of the weights' shapes; True stays. Every selection is made
among the weights that the mask before it kept, so masks only ever shrink.
"""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from onnx_shift.errors import OnnxShiftError

Mask = dict[str, Tensor]
Scores = dict[str, Tensor]

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)


class MaskError(OnnxShiftError):
    """Weights that cannot be chosen from: none left, unknown names, scores that are no numbers."""


def prunable_weights(model: nn.Module, exclude: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the convolution and linear weights of `model` that train, without those that match a name or
    pattern of `exclude`.

    Raises MaskError when an entry of `exclude` matches nothing or nothing is left.
    """
    names = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, WEIGHTED)]
    own = {name for name, weight in model.named_parameters() if weight.requires_grad}
    names = [name for name in names if name in own]  # a shared weight counts once, under its first name
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise MaskError(f"--exclude {pattern}: matches none of the weights {', '.join(names)}")
    kept = tuple(name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude))
    if not kept:
        raise MaskError("the model has no convolution or linear weight to train and prune")
    return kept


def full_mask(model: nn.Module, names: Sequence[str]) -> Mask:
    """The mask that keeps every weight of `names`."""
    return {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool) for name in names}


def count_kept(mask: Mapping[str, Tensor]) -> int:
    """Number of weights that stay."""
    return sum(int(kept.sum()) for kept in mask.values())


def count_all(mask: Mapping[str, Tensor]) -> int:
    """Number of weights, kept or not."""
    return sum(kept.numel() for kept in mask.values())


def keep_after_round(remaining: int, prune_share: float) -> int:
    """Weights that stay after one round, which removes the share rounded up (as OpenLTH does)."""
    return remaining - math.ceil(remaining * prune_share)


def select(scores: Mapping[str, Tensor], mask: Mapping[str, Tensor], keep: int, least_density: float = 0.0) -> Mask:
    """The mask of the `keep` highest scores over all layers among the weights that `mask` keeps.

    Exactly `keep` stay (all, when fewer are left); ties go to the earlier weight. No layer is left with less
    than `least_density` (0..1) of the density over all layers. Raises MaskError when a score is NaN.
    """
    for name in mask:
        if torch.isnan(scores[name]).any():
            raise MaskError(f"{name}: scores are not numbers; the weights may have diverged")
    if least_density:
        scores = _protected(scores, mask, keep, least_density)
    survivors = torch.cat([scores[name][kept].double().cpu() for name, kept in mask.items()])
    keep = min(keep, survivors.numel())
    chosen = torch.zeros(survivors.numel(), dtype=torch.bool)
    if keep:
        threshold = survivors.kthvalue(survivors.numel() - keep + 1).values
        chosen = survivors > threshold
        ties = (survivors == threshold).nonzero().flatten()
        chosen[ties[: keep - int(chosen.sum())]] = True
    result, start = {}, 0
    for name, kept in mask.items():
        stop = start + int(kept.sum())
        new = torch.zeros_like(kept)
        new[kept] = chosen[start:stop].to(kept.device)
        result[name], start = new, stop
    return result


def _protected(scores: Mapping[str, Tensor], mask: Mapping[str, Tensor], keep: int, least_density: float) -> Scores:
    """Raise the best scores of every layer so far that a selection of `keep` leaves none with less than
    `least_density` of the density over all layers.
    """
    share = least_density * keep / count_all(mask)
    protected = {}
    for name, kept in mask.items():
        count = min(math.ceil(share * kept.numel()), int(kept.sum()))
        candidates = scores[name].masked_fill(~kept, -math.inf).flatten()
        best = candidates.sort(descending=True, stable=True).indices[:count]
        protected[name] = scores[name].flatten().index_fill(0, best, math.inf).view_as(scores[name])
    return protected


def apply_mask(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Set the removed weights of `model` to +0.0, in place."""
    with torch.no_grad():
        for name, kept in mask.items():
            model.get_parameter(name).masked_fill_(~kept, 0.0)
