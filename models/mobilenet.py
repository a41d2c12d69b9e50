"""MobileNetV2 (Sandler et al., CVPR 2018): inverted residuals with linear bottlenecks and depthwise
convolutions.
"""

from torch import Tensor, nn

# expansion, output channels, blocks, stride of the first block (table 2 of the article)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _multiple_of_eight(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [*_convolution(inputs, hidden, 1), nn.ReLU6()] if expansion != 1 else []
        layers += [*_convolution(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6()]
        layers += _convolution(hidden, outputs, 1)
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.shortcut else out


class MobileNetV2(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes); `small_images`: fewer strides."""

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, small_images: bool = False
    ) -> None:
        super().__init__()
        channels = _multiple_of_eight(32 * width)
        layers = [*_convolution(in_channels, channels, 3, stride=1 if small_images else 2), nn.ReLU6()]
        for stage, (expansion, base, count, stride) in enumerate(STAGES):
            outputs = _multiple_of_eight(base * width)
            for block in range(count):
                first_stride = 1 if small_images and stage == 1 else stride
                layers.append(InvertedResidual(channels, outputs, 1 if block else first_stride, expansion))
                channels = outputs
        last = _multiple_of_eight(1280 * max(1.0, width))
        self.features = nn.Sequential(*layers, *_convolution(channels, last, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
