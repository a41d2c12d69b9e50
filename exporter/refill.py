"""Refill: whole channels in place of scattered weights (Chen, Chen, Ma, Wang, Wang, ICML 2022).

After a round of magnitude pruning every layer keeps as many whole output channels as its surviving weights
would fill. The chosen channels are dense again, all others empty, so that an exact pruner can take them
away. From the first refilled round on, channels are chosen within those of the round before: masks only shrink.
"""

import math

import torch

from onnx_shift.exporter.masks import Mask
from onnx_shift.exporter.scoring import Scoring
from onnx_shift.exporter.structure import tied_weights


def refill(scoring: Scoring, selected: Mask) -> Mask:
    """Turn `selected` weights into whole channels, tied layers together; weights in no group keep their
    selection.
    """
    result = dict(selected)
    for group in tied_weights(scoring.model):
        members = [name for name in group if name in selected]
        if members:
            channels = _channels(scoring, selected, members)
            for name in members:
                before = scoring.mask[name]
                result[name] = before & channels.to(before.device).view(-1, *[1] * (before.dim() - 1))
    return result


def _channels(scoring: Scoring, selected: Mask, members: list[str]) -> torch.Tensor:
    """Which output channels (C,) of tied layers stay: about as many as the survivors fill, those of greatest
    magnitude.
    """
    survivors = sum(int(selected[name].sum()) for name in members)
    per_channel = sum(selected[name][0].numel() for name in members)
    importance = torch.stack([_magnitude(scoring, name) for name in members]).mean(dim=0)
    open_channels = torch.stack([scoring.mask[name].flatten(1).any(dim=1).cpu() for name in members]).any(dim=0)
    wanted, multiple = scoring.recipe.refill_widen * survivors / per_channel, scoring.recipe.refill_multiple
    count = math.ceil(wanted) if multiple == 1 else multiple * max(1, math.floor(wanted / multiple + 0.5))
    count = min(max(count, 1), int(open_channels.sum()))
    importance[~open_channels] = -1.0
    kept = torch.zeros_like(open_channels)
    kept[importance.sort(descending=True, stable=True).indices[:count]] = True
    return kept


def _magnitude(scoring: Scoring, name: str) -> torch.Tensor:
    """Mean |w| of each output channel (C,), over the layer's mean: layers of a group weigh the same."""
    weight = scoring.model.get_parameter(name).detach().float().cpu()
    mean = weight.abs().flatten(1).mean(dim=1)
    return mean / mean.mean().clamp_min(1e-12)
