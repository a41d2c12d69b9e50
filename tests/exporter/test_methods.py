"""Every method: its formula on a network small enough to compute, and what it promises about masks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from onnx_shift.errors import OnnxShiftError
from onnx_shift.exporter.masks import count_all, count_kept, full_mask, prunable_weights
from onnx_shift.exporter.methods import METHODS, find_method, next_mask
from onnx_shift.exporter.recipe import Recipe
from onnx_shift.exporter.saliency import grasp, snip, synflow
from onnx_shift.exporter.scoring import Method, Scoring
from onnx_shift.exporter.structure import empty_shifts, positions, tied_weights
from onnx_shift.models.registry import build, initialise


def _scoring(model: nn.Module, shape: tuple[int, int, int], recipe: Recipe | None = None) -> Scoring:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, *shape, generator=generator)
    labels = torch.randint(0, 4, (16,), generator=generator)
    return Scoring(
        model=model,
        mask=full_mask(model, prunable_weights(model)),
        recipe=recipe or Recipe(batch_size=8, levels=3),
        round=1,
        image_shape=shape,
        batches=lambda count: [(images, labels)] * count,
        redraw=lambda: initialise(model, uniform_batchnorm=False),
        generator=torch.Generator().manual_seed(1),
    )


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    model = build("resnet20-cifar", num_classes=4, in_channels=1, width=0.5)
    initialise(model, uniform_batchnorm=True)
    return model


@pytest.mark.parametrize("name", METHODS)
def test_every_method_meets_its_count_within_the_mask_before(name: str, network: nn.Module) -> None:
    method = METHODS[name]
    scoring = _scoring(network, (1, 8, 8))
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
    scoring = _scoring(network, (1, 8, 8))
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
        masks.append(next_mask(METHODS[name], _scoring(model, (1, 8, 8)), 500))
    assert all(torch.equal(masks[0][layer], masks[1][layer]) for layer in masks[0])


def _linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 4))


def test_snip_is_the_weight_times_its_gradient() -> None:
    model = _linear()
    scoring = _scoring(model, (1, 3, 3))
    (images, labels), *_ = scoring.batches(1)
    weight = model[1].weight
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), labels), weight)
    assert torch.allclose(snip(scoring)["1.weight"], 8 * (weight * gradient).abs().detach(), rtol=1e-4)


def test_grasp_predicts_the_change_of_the_gradients_norm() -> None:
    model = _linear().double()
    scoring = _scoring(model, (1, 3, 3))
    ((images, labels),) = scoring.batches(1)
    scoring = replace(scoring, batches=lambda count: [(images.double(), labels)])
    score = grasp(scoring)["1.weight"]

    def norm() -> torch.Tensor:
        loss = F.cross_entropy(model(images.double()) / 200.0, labels)
        return torch.autograd.grad(loss, model[1].weight)[0].square().sum()

    before = norm()
    with torch.no_grad():
        model[1].weight[2, 5] *= 1 - 1e-4
    change = (norm() - before) / -1e-4  # removing it wholly, to first order; the norm counts both ways
    assert torch.allclose(change, 2 * score[2, 5], rtol=1e-3)


class _Attention(nn.Module):
    """Each row of an image attends to the others."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(8, 24), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.into(x).split(8, dim=-1)
        return self.out(F.scaled_dot_product_attention(query, key, value).flatten(1))


def test_grasp_derives_attention_twice() -> None:
    torch.manual_seed(0)
    scores = grasp(_scoring(_Attention(), (1, 8, 8)))
    assert all(float(scores[name].abs().max()) > 0 for name in ("into.weight", "out.weight"))


def test_synflow_conserves_its_sum_from_layer_to_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    scores = synflow(_scoring(model, (1, 3, 3)))
    assert torch.allclose(scores["1.weight"].sum(), scores["3.weight"].sum())
    expected = model[3].weight.abs().sum(0)[:, None] * model[1].weight.abs()
    assert torch.allclose(scores["1.weight"], expected.double(), rtol=1e-5)


def test_synflow_never_empties_a_layer() -> None:
    torch.manual_seed(0)
    model = build("vgg11", num_classes=4, in_channels=1, width=0.125)
    initialise(model, uniform_batchnorm=True)
    scoring = _scoring(model, (1, 32, 32))
    mask = next_mask(METHODS["synflow"], scoring, count_all(scoring.mask) // 1000)
    assert min(int(kept.sum()) for kept in mask.values()) > 0


@pytest.mark.parametrize("model", ["resnet56-cifar", "mobilenet-v2-cifar"])
def test_synflow_empties_no_layer_of_a_deep_network(model: str) -> None:
    """Scores beyond float32, and what ReLU6 would cut off, must not make whole layers tie at one value."""
    torch.manual_seed(0)
    network = build(model, num_classes=4, in_channels=3, width=0.5)
    initialise(network, uniform_batchnorm=False)
    scoring = _scoring(network, (3, 8, 8))
    scores = synflow(scoring)
    assert all(score.isfinite().all() and score.max() > 0 for score in scores.values())
    method = replace(METHODS["synflow"], passes=10)
    mask = next_mask(method, scoring, count_all(scoring.mask) // 8)
    assert min(int(kept.sum()) for kept in mask.values()) > 0


def test_cost_ranking_spares_weights_that_are_applied_rarely() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    nn.init.constant_(model[0].weight, 1.0)
    nn.init.constant_(model[3].weight, 0.5)
    assert positions(model, (1, 8, 8)) == {"0.weight": 64, "3.weight": 1}
    kept = {}
    for rank in ("magnitude", "cost"):
        scoring = _scoring(model, (1, 8, 8), Recipe(rank=rank, levels=3))
        mask = next_mask(METHODS["imp"], scoring, 16)
        kept[rank] = {name: int(part.sum()) for name, part in mask.items()}
    assert kept == {"magnitude": {"0.weight": 16, "3.weight": 0}, "cost": {"0.weight": 0, "3.weight": 16}}


def test_channels_joined_by_an_add_are_tied() -> None:
    groups = tied_weights(build("resnet20-cifar", num_classes=4, in_channels=1, width=0.5))
    stream = next(group for group in groups if "conv.weight" in group)
    assert stream == ("conv.weight", *(f"blocks.{block}.conv2.weight" for block in range(3)))
    assert ("blocks.0.conv1.weight",) in groups
    assert all("fc.weight" not in group for group in groups)


def test_depthwise_convolutions_are_tied_to_their_input() -> None:
    groups = tied_weights(build("mobilenet-v2-cifar", num_classes=4, in_channels=3, width=0.25))
    assert ("features.3.conv.0.weight", "features.3.conv.2.weight") not in groups
    assert any("features.4.conv.0.weight" in group and "features.4.conv.3.weight" in group for group in groups)


class _Reshaped(nn.Module):
    """Two heads joined and reshaped into the classes, behind a grouped convolution that widens."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.head, self.other = nn.Conv2d(16, 2, 8), nn.Conv2d(16, 2, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.first(x).relu()).relu()
        return torch.cat([self.head(x), self.other(x)], 1).view(x.size(0), -1)


def test_classes_are_pinned_through_reshapes_and_groups_are_no_depthwise_convolution() -> None:
    assert tied_weights(_Reshaped()) == [("first.weight",), ("grouped.weight",)]


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
    scoring = _scoring(model, (1, 8, 8))
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
    scoring = _scoring(network, (1, 8, 8))
    mask = next_mask(METHODS["refill"], scoring, count_all(scoring.mask) // 8)
    stream = ["conv.weight", *(f"blocks.{block}.conv2.weight" for block in range(3))]
    channels = [mask[name].flatten(1).any(dim=1).tolist() for name in stream]
    assert channels == [channels[0]] * 4
    assert 0 < sum(channels[0]) < len(channels[0])


def test_what_shifts_an_empty_channel_goes_with_it(network: nn.Module) -> None:
    mask = full_mask(network, prunable_weights(network))
    stream = ["conv.weight", *(f"blocks.{block}.conv2.weight" for block in range(3))]
    for name in stream[1:]:
        mask[name][2] = False
    mask["blocks.0.conv1.weight"][0] = False
    assert all(kept.all() for name, kept in empty_shifts(network, mask).items() if "bn1" not in name)
    mask[stream[0]][2] = False  # now all that write the stream's third channel are empty
    lost = {name: kept.tolist().index(False) for name, kept in empty_shifts(network, mask).items() if not kept.all()}
    norms = ["bn", "blocks.0.bn2", "blocks.1.bn2", "blocks.2.bn2"]
    assert lost == {f"{norm}.{part}": 2 for norm in norms for part in ("weight", "bias")} | {
        "blocks.0.bn1.weight": 0,
        "blocks.0.bn1.bias": 0,
    }


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
    scoring = _scoring(_linear(), (1, 3, 3))
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
