"""Whole channels kept and whole channels emptied."""

from dataclasses import replace

import torch
from torch import nn

from onnx_shift.exporter.masks import count_all, count_kept
from onnx_shift.exporter.methods import METHODS, next_mask
from onnx_shift.exporter.recipe import Recipe
from tests.exporter.networks import scoring_of


def test_refill_keeps_whole_channels_as_many_as_the_survivors_fill() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
    )
    with torch.no_grad():
        for channel in range(4):
            model[0].weight[channel] = 1.0 + channel
            model[2].weight[channel] = (0.1, 0.03, 0.02, 0.01)[channel]
        model[5].weight.fill_(0.001)
    scoring = scoring_of(model, (1, 8, 8))
    mask = next_mask(METHODS["refill"], scoring, 36 + 20)
    channels = [mask[name].flatten(1).any(dim=1).tolist() for name in ("0.weight", "2.weight")]
    assert channels == [[True] * 4, [True, False, False, False]]  # 20 survivors of 36 per channel
    assert mask["2.weight"][0].all()
    assert not mask["5.weight"].any()  # the class scores are never refilled
    wide = next_mask(METHODS["refill"], replace(scoring, recipe=Recipe(levels=3, refill_widen=3.0)), 56)
    assert wide["2.weight"].flatten(1).any(dim=1).tolist() == [True, True, False, False]
    for widen, channels in (
        (1.0, 2),
        (5.0, 2),
        (6.0, 4),
    ):  # 0.6, 2.8 and 3.3 channels, in twos and at least two
        recipe = Recipe(levels=3, refill_widen=widen, refill_multiple=2)
        pairs = next_mask(METHODS["refill"], replace(scoring, recipe=recipe), 56)
        assert int(pairs["2.weight"].flatten(1).any(dim=1).sum()) == channels
    scattered = {name: kept.clone() for name, kept in scoring.mask.items()}
    scattered["2.weight"][0, :2] = False
    for first, filled in ((2, 36), (1, 18)):  # at first the chosen channel is whole again, later it shrinks
        later = replace(scoring, mask=scattered, recipe=Recipe(levels=3, refill_from=first), round=2)
        assert int(next_mask(METHODS["refill"], later, 36 + 9)["2.weight"][0].sum()) == filled
    late = next_mask(METHODS["refill"], replace(scoring, recipe=Recipe(levels=3, refill_from=2)), 56)
    assert count_kept(late) == 56


def test_refill_empties_a_residual_stream_as_one(network: nn.Module) -> None:
    scoring = scoring_of(network, (1, 8, 8))
    mask = next_mask(METHODS["refill"], scoring, count_all(scoring.mask) // 8)
    stream = ["conv.weight", *(f"blocks.{block}.conv2.weight" for block in range(3))]
    channels = [mask[name].flatten(1).any(dim=1).tolist() for name in stream]
    assert channels == [channels[0]] * 4
    assert 0 < sum(channels[0]) < len(channels[0])
