"""MobileNetV2: depthwise convolutions, channels in multiples of eight."""

import torch

from onnx_shift.models.registry import build


def test_depthwise_convolutions_and_channels_in_multiples_of_eight() -> None:
    with torch.device("meta"):
        model = build("mobilenet-v2", num_classes=5, in_channels=3, width=0.35)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    depthwise = [module for module in convolutions if module.groups > 1]
    assert (len(convolutions), len(depthwise)) == (52, 17)
    assert all(module.groups == module.in_channels == module.out_channels for module in depthwise)
    assert all(module.out_channels % 8 == 0 for module in convolutions)
