"""ResNet for small and for large images."""

import pytest
import torch

from onnx_shift.models.registry import build


@pytest.mark.parametrize(
    ("name", "size", "convolutions"), [("resnet20-cifar", 32, 21), ("resnet18", 64, 20), ("resnet50", 64, 53)]
)
def test_a_resnet_has_its_number_of_convolutions(name: str, size: int, convolutions: int) -> None:
    with torch.device("meta"):
        model = build(name, num_classes=5, in_channels=3)
        scores = model.eval()(torch.zeros(2, 3, size, size))
    assert scores.shape == (2, 5)
    assert sum(isinstance(module, torch.nn.Conv2d) for module in model.modules()) == convolutions
