"""RepVGG merged equals RepVGG trained."""

import torch

from onnx_shift.models.registry import build, initialise
from tests.models.sizes import parameter_count


def test_repvgg_merges_to_an_equal_network_of_the_published_size() -> None:
    torch.manual_seed(0)
    model = build("repvgg-a0-cifar", num_classes=5, in_channels=3, width=0.125)
    initialise(model, uniform_batchnorm=True)
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 16, 16))  # running statistics that are not the initial ones
        model.eval()
        images = torch.randn(4, 3, 16, 16)
        merged = model.merged()
        assert torch.allclose(merged.eval()(images), model(images), atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in merged.modules())
    full = build("repvgg-a0", num_classes=1000, in_channels=3)
    assert round(parameter_count(full.merged()) / 1e6, 2) == 8.31  # 8.30 M in the paper counts no biases
