"""VGG for small images."""

import pytest
import torch

from onnx_shift.models.vgg import PLANS, VGG


@pytest.mark.parametrize(("name", "convolutions"), [("vgg11", 8), ("vgg13", 10), ("vgg16", 13), ("vgg19", 16)])
def test_a_vgg_has_its_number_of_convolutions_and_one_linear_layer(name: str, convolutions: int) -> None:
    with torch.device("meta"):
        model = VGG(PLANS[name])
    kinds = [type(module).__name__ for module in model.modules()]
    assert (kinds.count("Conv2d"), kinds.count("Linear")) == (convolutions, 1)
