"""Masks: exact counts, shrinking alone, deterministic ties; and the zeros they make."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onnx_shift.exporter.masks import (
    MaskError,
    apply_mask,
    block_rows,
    count_all,
    count_kept,
    full_mask,
    keep_after_round,
    prunable_weights,
    select,
    select_blocks,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.integers(0, 6), distinct=st.integers(1, 40))
def test_counts_are_exact_and_masks_only_shrink(seed: int, levels: int, distinct: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.randint(0, distinct, shape, generator=generator).float()
        for name, shape in {"a": (5, 3), "b": (7,), "c": (2, 3, 2)}.items()
    }
    mask = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    keep = count_all(mask)
    for _ in range(levels):
        keep = keep_after_round(keep, 0.5)
        smaller = select(scores, mask, keep)
        assert count_kept(smaller) == keep
        assert all(not (smaller[name] & ~mask[name]).any() for name in mask)
        if 0 < keep < count_kept(mask):
            kept = torch.cat([scores[name][smaller[name]] for name in mask])
            removed = torch.cat([scores[name][mask[name] & ~smaller[name]] for name in mask])
            assert kept.min() >= removed.max()
        mask = smaller


def test_ties_go_to_the_earlier_weight() -> None:
    scores = {"a": torch.tensor([1.0, 2.0, 1.0]), "b": torch.tensor([1.0, 3.0])}
    mask = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    chosen = select(scores, mask, 3)
    assert chosen["a"].tolist() == [True, True, False]
    assert chosen["b"].tolist() == [False, True]


def test_a_least_density_spares_the_best_of_a_layer_that_would_starve() -> None:
    mask = {"a": torch.ones(8, dtype=torch.bool), "b": torch.ones(4, 2, dtype=torch.bool)}
    mask["b"][0] = False
    scores = {
        "a": torch.arange(8.0) + 10,
        "b": torch.tensor([[9.0, 9.0], [1.0, 2.0], [5.0, 3.0], [4.0, 0.0]]),
    }
    assert [int(kept.sum()) for kept in select(scores, mask, 8).values()] == [8, 0]
    kept = select(scores, mask, 8, 0.5)  # half of the density 8/16, of 8 weights: two
    assert kept["a"].nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 7]
    assert kept["b"].nonzero().tolist() == [[2, 0], [3, 0]]


def test_rounds_remove_the_share_rounded_up() -> None:
    remaining = 14_715_584  # the prunable weights of VGG-16
    counts = [remaining := keep_after_round(remaining, 0.2) for _ in range(25)]
    assert counts[0] == 11_772_467
    assert round(14_715_584 / counts[2], 2) == 1.95
    assert round(14_715_584 / counts[24]) == 265
    assert keep_after_round(1, 0.5) == 0


@pytest.mark.parametrize("least_density", [0.0, 0.5])
def test_scores_that_are_no_numbers_are_refused(least_density: float) -> None:
    scores, mask = {"layer": torch.tensor([1.0, float("nan")])}, {"layer": torch.tensor([True, True])}
    with pytest.raises(MaskError, match="layer: scores are not numbers"):
        select(scores, mask, 1, least_density)


def test_prunable_weights_are_those_of_convolutions_and_linear_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 1, 2), nn.Linear(4, 4))
    assert prunable_weights(model) == ("0.weight", "2.weight", "3.weight")
    assert prunable_weights(model, ["3.*"]) == ("0.weight", "2.weight")
    with pytest.raises(MaskError, match=r"--exclude fc: matches none of the weights 0\.weight, 2\.weight"):
        prunable_weights(model, ["fc"])
    with pytest.raises(MaskError, match="no convolution or linear weight"):
        prunable_weights(nn.Sequential(nn.BatchNorm2d(2)))


def test_removed_weights_become_positive_zero() -> None:
    model = nn.Linear(4, 4)
    nn.init.constant_(model.weight, -1.0)
    mask = full_mask(model, ["weight"])
    mask["weight"][0] = False
    apply_mask(model, mask)
    assert not torch.signbit(model.weight[0]).any()
    assert (model.weight[1:] == -1).all()


def test_blocks_are_consecutive_channels_that_read_the_same_inputs() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 7, 3), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(4, 4, 3, groups=4), nn.ConvTranspose2d(3, 8, 2)
    )
    rows = {name: rows.tolist() for name, rows in block_rows(model, prunable_weights(model), 2).items()}
    assert rows == {
        "0.weight": [0, 0, 1, 1, 2, 2, 3],
        "1.weight": [0, 0, 1, 2, 2, 3],
        "2.weight": [0, 1, 2, 3],
        "3.weight": [0, 1, 2],
    }


def test_the_weights_of_a_block_stay_or_go_together_by_their_mean() -> None:
    scores = {"a": torch.tensor([[9.0, 1.0], [1.0, 2.0], [3.0, 6.0], [4.0, 4.0], [4.5, 0.0]])}
    rows = {"a": torch.tensor([0, 0, 1, 1, 2])}  # means 5 and 1.5, 3.5 and 5, 4.5 and 0
    mask = {"a": torch.ones(5, 2, dtype=torch.bool)}
    smaller = select_blocks(scores, mask, 6, rows)  # the sixth would be half of a block
    assert smaller["a"].tolist() == [[True, False], [True, False], [False, True], [False, True], [True, False]]
    assert select_blocks(scores, smaller, 3, rows)["a"].nonzero().tolist() == [[0, 0], [1, 0]]
    assert count_kept(select_blocks(scores, mask, 10, rows)) == 10


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), block=st.sampled_from([2, 4]), least_density=st.sampled_from([0.0, 0.2]))
def test_masks_of_blocks_only_shrink_and_hardly_miss_their_count(seed: int, block: int, least_density: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 10, 3), nn.Linear(5, 8))
    generator = torch.Generator().manual_seed(seed)
    mask = full_mask(model, names := prunable_weights(model))
    rows = block_rows(model, names, block)
    scores = {name: torch.rand(kept.shape, generator=generator, dtype=torch.double) for name, kept in mask.items()}
    keep = count_all(mask)
    for _ in range(4):
        keep = keep_after_round(keep, 0.5)
        smaller = select_blocks(scores, mask, keep, rows, least_density)
        assert keep - (3 if least_density else 1) * block < count_kept(smaller) <= keep
        for name, kept in smaller.items():
            assert not (kept & ~mask[name]).any()
            assert all((kept[rows[name] == row] == kept[rows[name] == row][0]).all() for row in rows[name].unique())
        mask = smaller
