"""Every method meets its count, chooses the same again, and may be the user's own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.masks import count_all, count_kept
from onnx_shift.exporter.methods import METHODS, find_method, next_mask
from onnx_shift.exporter.recipe import Recipe
from onnx_shift.exporter.scoring import Method
from onnx_shift.exporter.structure import positions
from onnx_shift.models.registry import build, initialise
from tests.exporter.networks import linear, scoring_of


@pytest.mark.parametrize("name", METHODS)
def test_every_method_meets_its_count_within_the_mask_before(name: str, network: nn.Module) -> None:
    method = METHODS[name]
    scoring = scoring_of(network, (1, 8, 8))
    start = {layer: kept.clone() for layer, kept in scoring.mask.items()}
    start["blocks.0.conv1.weight"][0] = False
    total = count_kept(start)
    mask = next_mask(method, replace(scoring, mask=start), total // 4)
    assert all(not (mask[layer] & ~start[layer]).any() for layer in mask)
    if method.reshape is None:
        assert count_kept(mask) == total // 4
    else:
        assert total // 4 <= count_kept(mask) < total


@pytest.mark.parametrize("name", METHODS)
def test_what_the_network_does_not_train_or_use_costs_no_method_its_way(name: str, network: nn.Module) -> None:
    network.get_parameter("blocks.0.conv1.weight").requires_grad_(False)
    network.add_module("unused", nn.Linear(4, 4))
    scoring = scoring_of(network, (1, 8, 8))
    assert "blocks.0.conv1.weight" not in scoring.mask
    mask = next_mask(METHODS[name], scoring, count_all(scoring.mask) // 2)
    assert 0 < count_kept(mask) < count_all(mask)
    if name in ("snip", "synflow", "ntk-sap"):
        assert not mask["unused.weight"].any()


@pytest.mark.parametrize("name", ["random", "snip", "synflow", "ntk-sap"])
def test_a_method_chooses_the_same_again(name: str, network: nn.Module) -> None:
    masks = []
    for _ in range(2):
        torch.manual_seed(5)
        model = build("resnet20-cifar", num_classes=4, in_channels=1, width=0.5)
        initialise(model, uniform_batchnorm=True)
        masks.append(next_mask(METHODS[name], scoring_of(model, (1, 8, 8)), 500))
    assert all(torch.equal(masks[0][layer], masks[1][layer]) for layer in masks[0])


def test_cost_ranking_spares_weights_that_are_applied_rarely() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    nn.init.constant_(model[0].weight, 1.0)
    nn.init.constant_(model[3].weight, 0.5)
    assert positions(model, (1, 8, 8)) == {"0.weight": 64, "3.weight": 1}
    kept = {}
    for rank in ("magnitude", "cost"):
        scoring = scoring_of(model, (1, 8, 8), Recipe(rank=rank, levels=3))
        mask = next_mask(METHODS["imp"], scoring, 16)
        kept[rank] = {name: int(part.sum()) for name, part in mask.items()}
    assert kept == {"magnitude": {"0.weight": 16, "3.weight": 0}, "cost": {"0.weight": 0, "3.weight": 16}}


def test_a_recipe_of_blocks_chooses_blocks(network: nn.Module) -> None:
    scoring = scoring_of(network, (1, 8, 8), Recipe(batch_size=8, levels=3, block=4))
    total = count_all(scoring.mask)
    mask = next_mask(METHODS["imp"], scoring, total // 4)
    assert total // 4 - 4 < count_kept(mask) <= total // 4
    kept = mask["blocks.0.conv1.weight"]  # of 8 channels: two blocks
    assert 0 < kept.sum() < kept.numel() and (kept.view(2, 4, -1) == kept.view(2, 4, -1)[:, :1]).all()


def test_a_foreign_method_is_one_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "import torch\n"
        "from onnx_shift.exporter.scoring import Method\n"
        "def last(scoring):\n"
        "    return {n: torch.arange(m.numel()).view(m.shape) for n, m in scoring.mask.items()}\n"
        "method = Method(last, 'initial')\n"
    )
    (tmp_path / "slip.py").write_text("method = depth\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    method = find_method("theirs:method")
    scoring = scoring_of(linear(), (1, 3, 3))
    assert isinstance(method, Method)
    assert next_mask(method, scoring, 3)["1.weight"].flatten().nonzero().flatten().tolist() == [33, 34, 35]
    for name, message in [
        ("theirs:last", "is not a Method"),
        ("theirs:none", "--method theirs:none: cannot be imported"),
        (
            "slip:method",
            r"--method slip:method: cannot be imported \(NameError: name 'depth' is not defined\)",
        ),
        ("fisher", "choose one of imp, refill, one-shot, random, snip, grasp, synflow, ntk-sap"),
    ]:
        with pytest.raises(OnnxShiftError, match=message):
            find_method(name)
