"""Building blocks that the zoo's families share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def conv(
    i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: Callable[[], nn.Module] | None = nn.ReLU
) -> nn.Sequential:
    """Convolution of "same" padding, BatchNorm and an activation, if any."""
    layers = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*self.parts, *inputs)


class Residual(nn.Module):
    """x + body(x), with an optional shortcut and an activation after the sum."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


class Cat(nn.Module):
    """The branches' outputs side by side; `dense` puts the input before them."""

    def __init__(self, *branches: nn.Module, dense: bool = False) -> None:
        super().__init__()
        self.branches, self.dense = nn.ModuleList(branches), dense

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(([x] if self.dense else []) + [branch(x) for branch in self.branches], 1)


class Squeeze(nn.Module):
    """Squeeze-and-excite: the channels scaled by a gate computed from their means."""

    def __init__(self, c: int, r: int = 4, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c // r, 1), act(), nn.Conv2d(c // r, c, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class LayerNormChannels(nn.Module):
    """LayerNorm over channels, by way of the channels-last layout."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over (N, L, C)."""

    def __init__(self, c: int, heads: int = 4) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(c, 3 * c), nn.Linear(c, c), heads

    def forward(self, x: Tensor) -> Tensor:
        n, length, c = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, c))


def transformer(c: int, heads: int = 4) -> nn.Sequential:
    """One pre-norm block: attention, then a perceptron of twice the width."""
    perceptron = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c))
    return nn.Sequential(Residual(nn.Sequential(nn.LayerNorm(c), Attention(c, heads))), Residual(perceptron))


def head(c: int, classes: int = 10) -> nn.Sequential:
    """Global average pooling and a linear classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))
