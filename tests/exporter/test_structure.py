"""Which channels of a network are tied."""

import torch
from torch import nn

from onnx_shift.exporter.masks import full_mask, prunable_weights
from onnx_shift.exporter.structure import empty_shifts, tied_weights
from onnx_shift.models.registry import build


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
