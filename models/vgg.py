"""VGG networks for small images: convolution–BatchNorm–ReLU stages and one linear layer (paper, setting of
its experiments).

Layer names are those of OpenLTH's CIFAR VGG, so that its checkpoints load unchanged.
"""

from collections.abc import Sequence

from torch import Tensor, nn

Plan = Sequence[int | str]  # output channels of a convolution, or "M" for a 2x2 max-pool

PLANS: dict[str, Plan] = {
    "vgg11": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512),
    "vgg13": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512),
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512),
    "vgg19": (
        *(64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M"),
        *(512, 512, 512, 512, "M", 512, 512, 512, 512),
    ),
    "vgg-digits": (16, 32, "M", 64, 128, "M", 256, 256),  # for 8x8 images
}


class ConvBlock(nn.Module):
    """A 3x3 convolution with bias, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class VGG(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes); H and W at least 2 to the number of pools."""

    def __init__(self, plan: Plan, num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool2d(2))
            else:
                outputs = max(4, round(step * width))
                layers.append(ConvBlock(channels, outputs))
                channels = outputs
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.layers(x)).flatten(1))  # type: ignore[no-any-return]
