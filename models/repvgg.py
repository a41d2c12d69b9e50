"""RepVGG (Ding et al., CVPR 2021): trained with 3x3, 1x1 and identity branches, exported as single
convolutions.
"""

import copy

import torch
from torch import Tensor, nn

STAGES: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {  # blocks per stage, width of each stage
    "repvgg-a0": ((2, 4, 14, 1), (0.75, 0.75, 0.75, 2.5)),
    "repvgg-a1": ((2, 4, 14, 1), (1.0, 1.0, 1.0, 2.5)),
    "repvgg-b0": ((4, 6, 16, 1), (1.0, 1.0, 1.0, 2.5)),
}


class RepBlock(nn.Module):
    """The sum of a 3x3, a 1x1 and (where the shape stays) an identity branch, each with its BatchNorm; then
    ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.identity = nn.BatchNorm2d(outputs) if inputs == outputs and stride == 1 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn3(self.conv3(x)) + self.bn1(self.conv1(x))
        if self.identity is not None:
            out = out + self.identity(x)
        return self.relu(out)  # type: ignore[no-any-return]

    def merged(self) -> nn.Sequential:
        """One 3x3 convolution with bias, and ReLU, equal to this block in evaluation mode."""
        weight, bias = _fused(self.conv3.weight, self.bn3)
        point_weight, point_bias = _fused(self.conv1.weight, self.bn1)
        weight[:, :, 1:2, 1:2] += point_weight
        bias = bias + point_bias
        if self.identity is not None:
            channels = weight.shape[0]
            eye = torch.eye(channels, dtype=weight.dtype).view(channels, channels, 1, 1)
            identity_weight, identity_bias = _fused(eye, self.identity)
            weight[:, :, 1:2, 1:2] += identity_weight
            bias = bias + identity_bias
        outputs, inputs = weight.shape[:2]
        conv = nn.Conv2d(inputs, outputs, 3, self.conv3.stride[0], padding=1)
        conv.weight = nn.Parameter(weight)
        conv.bias = nn.Parameter(bias)
        return nn.Sequential(conv, nn.ReLU())


def _fused(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    bias = norm.bias.detach() - norm.running_mean * scale
    return weight.detach() * scale.view(-1, 1, 1, 1), bias


class RepVGG(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes); `small_images`: fewer strides."""

    def __init__(
        self,
        name: str,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        small_images: bool = False,
    ) -> None:
        super().__init__()
        counts, widths = STAGES[name]
        channels = max(4, round(min(64, 64 * widths[0]) * width))
        blocks: list[nn.Module] = [RepBlock(in_channels, channels, 1 if small_images else 2)]
        for stage, (count, factor) in enumerate(zip(counts, widths, strict=True)):
            outputs = max(4, round((64 << stage) * factor * width))
            for block in range(count):
                stride = 1 if block or (small_images and stage == 0) else 2
                blocks.append(RepBlock(channels, outputs, stride))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.blocks(x)).flatten(1))  # type: ignore[no-any-return]

    def merged(self) -> nn.Module:
        """A copy with every block merged to a single convolution, equal in evaluation mode; made for
        export.
        """
        model = copy.deepcopy(self)
        model.blocks = nn.Sequential(*(block.merged() for block in model.blocks if isinstance(block, RepBlock)))
        return model
