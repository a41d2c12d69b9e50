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


def block_rows(model: nn.Module, names: Sequence[str], block: int) -> dict[str, Tensor]:
    """Per weight of `names`, which block each of its rows (output channels) belongs to: `block` consecutive ones of
    one convolution group, fewer at its end. Rows of a transposed convolution are inputs, each a block of its own.
    """
    modules, found = dict(model.named_modules()), {}
    for name in names:
        module = modules[name.removesuffix(".weight")]
        rows = torch.arange(len(model.get_parameter(name)))
        if not isinstance(module, nn.ConvTranspose2d):
            of_group = len(rows) // int(getattr(module, "groups", 1))
            rows = rows // of_group * math.ceil(of_group / block) + rows % of_group // block
        found[name] = rows
    return found


def select_blocks(
    scores: Mapping[str, Tensor],
    mask: Mapping[str, Tensor],
    keep: int,
    rows: Mapping[str, Tensor],
    least_density: float = 0.0,
) -> Mask:
    """As `select`, but the weights that a block's rows (see `block_rows`) have at one place stay or go together, by
    their mean score. A block that a count cuts goes, so that up to a block fewer than `keep` stay, with a
    `least_density` one per layer, more where scores tie.
    """
    means = {name: _block_means(score, rows[name]) for name, score in scores.items() if name in mask}
    chosen = select(means, mask, keep, least_density)
    return {name: _block_means(kept.float(), rows[name]) == 1 for name, kept in chosen.items()}


def _block_means(values: Tensor, rows: Tensor) -> Tensor:
    """The mean of each block at each place, in the place of each of its values."""
    rows = rows.to(values.device)
    sizes = torch.bincount(rows)
    sums = values.new_zeros(len(sizes), *values.shape[1:]).index_add_(0, rows, values)
    return (sums / sizes.view(-1, *[1] * (values.dim() - 1)))[rows]


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
