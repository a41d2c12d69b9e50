"""Classifiers: chains, residual, dense, inception, depthwise, shuffle and attention families, in miniature.

Each function returns the module and its example inputs. Widths are a few dozen channels: what counts is how
tensors are tied, not how large they are.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from zoo.layers import Apply, Cat, LayerNormChannels, Residual, Squeeze, conv, head

Built = tuple[nn.Module, tuple[Tensor, ...]]


def image(size: int = 16, channels: int = 3) -> tuple[Tensor, ...]:
    return (torch.randn(1, channels, size, size),)


# --- chains


def vgg() -> Built:
    layers: list[nn.Module] = []
    c = 3
    for width in (16, 16, 0, 32, 32, 0, 48, 48):
        layers += [nn.MaxPool2d(2)] if not width else [nn.Conv2d(c, width, 3, padding=1), nn.ReLU()]
        c = width or c
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 16, 64), nn.ReLU(), nn.Linear(64, 10)), image()


def vgg_batchnorm() -> Built:
    body = [
        conv(3, 16),
        conv(16, 24),
        nn.MaxPool2d(2),
        conv(24, 32),
        conv(32, 32),
        nn.MaxPool2d(2),
        conv(32, 48),
    ]
    return nn.Sequential(*body, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 10)), image()


def alexnet() -> Built:
    body = nn.Sequential(
        nn.Conv2d(3, 24, 7, 2, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2),
        nn.Conv2d(24, 32, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 1),
        nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 32, 3, padding=1, groups=2), nn.ReLU(),
    )  # fmt: skip
    top = [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    ]
    return nn.Sequential(body, *top), image(32)


def lenet() -> Built:
    body = [nn.Conv2d(1, 12, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(12, 24, 5), nn.Tanh(), nn.AvgPool2d(2)]
    top = [nn.Flatten(), nn.Linear(24 * 16, 60), nn.Sigmoid(), nn.Linear(60, 10), nn.LogSoftmax(1)]
    return nn.Sequential(*body, *top), image(28, 1)


def network_in_network() -> Built:
    def block(i: int, o: int, k: int) -> nn.Sequential:
        mlp = [nn.Conv2d(o, o, 1), nn.ReLU(), nn.Conv2d(o, o, 1), nn.ReLU()]
        return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2), nn.ReLU(), *mlp)

    body = [
        block(3, 24, 5),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        block(24, 32, 3),
        nn.AvgPool2d(3, 2),
        block(32, 10, 3),
    ]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), image()


def squeezenet() -> Built:
    def fire(i: int, s: int, e: int) -> nn.Sequential:
        wide = nn.Sequential(nn.Conv2d(s, e, 3, padding=1), nn.ReLU())
        return nn.Sequential(nn.Conv2d(i, s, 1), nn.ReLU(), Cat(nn.Sequential(nn.Conv2d(s, e, 1), nn.ReLU()), wide))

    body = [
        nn.Conv2d(3, 16, 3, 2),
        nn.ReLU(),
        fire(16, 8, 16),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        fire(32, 8, 24),
    ]
    top = [nn.Conv2d(48, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, *top), image(32)


def darknet() -> Built:
    def leaky() -> nn.Module:
        return nn.LeakyReLU(0.1)

    body = [conv(3, 16, act=leaky), nn.MaxPool2d(2), conv(16, 32, act=leaky), conv(32, 16, 1, act=leaky)]
    return nn.Sequential(
        *body, conv(16, 32, act=leaky), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1), head(32)
    ), image()


def all_convolutional() -> Built:
    body = [
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ELU(),
        nn.Conv2d(16, 24, 3, 2),
        nn.SELU(),
        nn.Conv2d(24, 32, 3),
        nn.CELU(),
    ]
    return nn.Sequential(*body, nn.Conv2d(32, 10, 1), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), image()


def prelu_stem() -> Built:
    body = [
        nn.Conv2d(3, 24, 3, padding=1),
        nn.PReLU(24),
        nn.Conv2d(24, 24, 3, 2, 1),
        nn.PReLU(),
        nn.BatchNorm2d(24),
    ]
    return nn.Sequential(*body, conv(24, 32, act=lambda: nn.PReLU(32)), head(32)), image()


def activations() -> Built:
    kinds = [nn.Hardswish, nn.SiLU, nn.Mish, nn.Softsign, nn.ReLU6, nn.GELU, nn.LogSigmoid]
    body = [conv(3 if not k else 16, 16, act=act) for k, act in enumerate(kinds)]
    return nn.Sequential(*body, head(16)), image(8)


def maxout() -> Built:
    def pairs(layer: nn.Module, x: Tensor) -> Tensor:
        y = layer(x)
        return y.view(y.shape[0], y.shape[1] // 2, 2, *y.shape[2:]).amax(2)

    body = [Apply(pairs, nn.Conv2d(3, 32, 3, padding=1)), Apply(pairs, nn.Conv2d(16, 48, 3, padding=1))]
    return nn.Sequential(*body, conv(24, 24), head(24)), image()


def crelu() -> Built:
    def both(layer: nn.Module, x: Tensor) -> Tensor:
        y = layer(x)
        return F.relu(torch.cat([y, -y], 1))

    body = [Apply(both, nn.Conv2d(3, 16, 3, padding=1)), Apply(both, nn.Conv2d(32, 16, 3, padding=1))]
    return nn.Sequential(*body, nn.Conv2d(32, 24, 3), nn.ReLU(), head(24)), image()


# --- residual


def basic(i: int, o: int, s: int = 1) -> Residual:
    shortcut = conv(i, o, 1, s, act=None) if i != o or s > 1 else None
    return Residual(nn.Sequential(conv(i, o, 3, s), conv(o, o, act=None)), shortcut, nn.ReLU())


def bottleneck(i: int, m: int, o: int, s: int = 1, g: int = 1, extra: nn.Module | None = None) -> Residual:
    body = [conv(i, m, 1), conv(m, m, 3, s, g), conv(m, o, 1, act=None), *([extra] if extra else [])]
    return Residual(nn.Sequential(*body), conv(i, o, 1, s, act=None) if i != o or s > 1 else None, nn.ReLU())


def resnet_basic() -> Built:
    return nn.Sequential(conv(3, 16), basic(16, 16), basic(16, 16), basic(16, 32, 2), basic(32, 32), head(32)), image()


def resnet_bottleneck() -> Built:
    stem = [nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    body = [bottleneck(16, 8, 32), bottleneck(32, 8, 32), bottleneck(32, 16, 64, 2), bottleneck(64, 16, 64)]
    return nn.Sequential(*stem, *body, head(64)), image(32)


def resnet_preactivation() -> Built:
    def block(i: int, o: int, s: int = 1) -> Residual:
        body = [nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o), nn.ReLU()]
        shortcut = nn.Conv2d(i, o, 1, s) if i != o else None
        return Residual(nn.Sequential(*body, nn.Conv2d(o, o, 3, 1, 1)), shortcut)

    body = [nn.Conv2d(3, 16, 3, 1, 1), block(16, 16), block(16, 32, 2), block(32, 32)]
    return nn.Sequential(*body, nn.BatchNorm2d(32), nn.ReLU(), head(32)), image()


def resnet_option_a() -> Built:
    def block(i: int, o: int) -> Residual:
        pad = Apply(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, (o - i) // 2, (o - i) // 2)))
        return Residual(nn.Sequential(conv(i, o, 3, 2), conv(o, o, act=None)), pad, nn.ReLU())

    return nn.Sequential(conv(3, 16), basic(16, 16), block(16, 32), basic(32, 32), head(32)), image()


def resnet_d() -> Built:
    def block(i: int, o: int) -> Residual:
        shortcut = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), conv(i, o, 1, act=None))
        return Residual(nn.Sequential(conv(i, o, 3, 2), conv(o, o, act=None)), shortcut, nn.ReLU())

    stem = [conv(3, 8, 3, 2), conv(8, 8), conv(8, 16), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, basic(16, 16), block(16, 32), head(32)), image(32)


def wide_resnet() -> Built:
    def block(i: int, o: int) -> Residual:
        body = [conv(i, o), nn.Dropout(0.3), nn.Conv2d(o, o, 3, 1, 1), nn.BatchNorm2d(o)]
        return Residual(nn.Sequential(*body), nn.Conv2d(i, o, 1) if i != o else None, nn.ReLU())

    return nn.Sequential(conv(3, 8), block(8, 48), block(48, 48), head(48)), image()


def resnext() -> Built:
    return nn.Sequential(conv(3, 16), bottleneck(16, 32, 32, 1, 8), bottleneck(32, 32, 32, 1, 8), head(32)), image()


def res2net() -> Built:
    class Scales(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.parts = nn.ModuleList(conv(c // 4, c // 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            first, *rest = torch.chunk(x, 4, 1)
            done = [first]
            for part, piece in zip(self.parts, rest, strict=True):
                done.append(part(piece if len(done) == 1 else piece + done[-1]))
            return torch.cat(done, 1)

    def block(c: int) -> Residual:
        return Residual(nn.Sequential(conv(c, c, 1), Scales(c), conv(c, c, 1, act=None)), act=nn.ReLU())

    return nn.Sequential(conv(3, 32), block(32), block(32), head(32)), image()


def regnet() -> Built:
    body = [bottleneck(16, 24, 24, 2, 3, Squeeze(24)), bottleneck(24, 24, 24, 1, 3, Squeeze(24))]
    return nn.Sequential(conv(3, 16, 3, 2), *body, bottleneck(24, 48, 48, 2, 6, Squeeze(48)), head(48)), image(32)


def cspnet() -> Built:
    class Stage(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.left, self.right, self.out = conv(c, c // 2, 1), conv(c, c // 2, 1), conv(c, c, 1)
            self.body = nn.Sequential(Residual(nn.Sequential(conv(c // 2, c // 2, 1), conv(c // 2, c // 2))))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.cat([self.body(self.left(x)), self.right(x)], 1))

    return nn.Sequential(
        conv(3, 24, act=nn.SiLU), Stage(24), conv(24, 32, 3, 2, act=nn.SiLU), Stage(32), head(32)
    ), image()


def deep_layer_aggregation() -> Built:
    class Tree(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.left, self.right, self.root = basic(i, o), basic(o, o), conv(2 * o + i, o, 1)

        def forward(self, x: Tensor) -> Tensor:
            left = self.left(x)
            return self.root(torch.cat([self.right(left), left, x], 1))

    return nn.Sequential(conv(3, 16), Tree(16, 24), nn.MaxPool2d(2), Tree(24, 32), head(32)), image()


def stochastic_fractal() -> Built:
    class Join(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.short, self.long = conv(i, o), nn.Sequential(conv(i, o), conv(o, o))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.short(x), self.long(x)]).mean(0)

    return nn.Sequential(Join(3, 16), nn.MaxPool2d(2), Join(16, 32), head(32)), image()


def dual_path() -> Built:
    class Block(nn.Module):
        def __init__(self, residual: int, dense: int, grow: int) -> None:
            super().__init__()
            self.residual = residual
            self.body = nn.Sequential(conv(residual + dense, 16, 1), conv(16, residual + grow, act=None))

        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            r = self.residual
            return F.relu(torch.cat([x[:, :r] + y[:, :r], x[:, r:], y[:, r:]], 1))

    return nn.Sequential(conv(3, 24), Block(16, 8, 8), Block(16, 16, 8), head(40)), image()


def selective_kernel() -> Built:
    class Select(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.small, self.large = conv(c, c, 3), conv(c, c, 5)
            self.squeeze, self.gates = conv(c, 8, 1), nn.Conv2d(8, 2 * c, 1)

        def forward(self, x: Tensor) -> Tensor:
            small, large = self.small(x), self.large(x)
            gates = self.gates(self.squeeze((small + large).mean((2, 3), keepdim=True)))
            gates = gates.view(x.shape[0], 2, -1, 1, 1).softmax(1)
            return small * gates[:, 0] + large * gates[:, 1]

    return nn.Sequential(conv(3, 24), Residual(nn.Sequential(Select(24), conv(24, 24, 1))), head(24)), image()


def layer_scale_residual() -> Built:
    class Scaled(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.body, self.gain = (
                nn.Sequential(conv(c, 2 * c, 1), conv(2 * c, c)),
                nn.Parameter(torch.randn(c, 1, 1)),
            )

        def forward(self, x: Tensor) -> Tensor:
            return x + self.gain * self.body(x)

    return nn.Sequential(conv(3, 16), Scaled(16), Scaled(16), head(16)), image()


def repvgg() -> Built:
    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.wide, self.point, self.same = (
                conv(c, c, act=None),
                conv(c, c, 1, act=None),
                nn.BatchNorm2d(c),
            )

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.wide(x) + self.point(x) + self.same(x))

    return nn.Sequential(conv(3, 16), Block(16), conv(16, 32, 3, 2), Block(32), head(32)), image()


# --- dense and inception


def densenet() -> Built:
    def layer(i: int, grow: int) -> Cat:
        body = [nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        return Cat(nn.Sequential(*body, nn.Conv2d(16, grow, 3, 1, 1, bias=False)), dense=True)

    middle = [nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.AvgPool2d(2)]
    body = [layer(16, 8), layer(24, 8), *middle, layer(16, 8), layer(24, 8)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), *body, nn.BatchNorm2d(32), nn.ReLU(), head(32)), image()


def vovnet() -> Built:
    class Aggregate(nn.Module):
        def __init__(self, i: int, m: int, o: int) -> None:
            super().__init__()
            self.parts = nn.ModuleList([conv(i, m), conv(m, m), conv(m, m)])
            self.out, self.gate = conv(i + 3 * m, o, 1), Squeeze(o, 4, gate=nn.Hardsigmoid)

        def forward(self, x: Tensor) -> Tensor:
            seen = [x]
            for part in self.parts:
                seen.append(part(seen[-1]))
            return self.gate(self.out(torch.cat(seen, 1)))

    return nn.Sequential(conv(3, 16), Aggregate(16, 12, 24), nn.MaxPool2d(2), Aggregate(24, 12, 32), head(32)), image()


def inception_v1() -> Built:
    def block(i: int) -> Cat:
        pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(i, 8, 1), nn.ReLU())
        one = nn.Sequential(nn.Conv2d(i, 8, 1), nn.ReLU())
        three = nn.Sequential(nn.Conv2d(i, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU())
        five = nn.Sequential(nn.Conv2d(i, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 5, 1, 2), nn.ReLU())
        return Cat(one, three, five, pool)

    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), block(16), nn.MaxPool2d(2), block(40), head(40)), image()


def rectangular(i: int, o: int, k: tuple[int, int]) -> nn.Sequential:
    layers = [
        nn.Conv2d(i, o, k, 1, (k[0] // 2, k[1] // 2), bias=False),
        nn.BatchNorm2d(o, eps=0.001),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers)


def inception_v3() -> Built:
    class Fork(nn.Module):
        def __init__(self, i: int) -> None:
            super().__init__()
            self.stem, self.a, self.b = (
                conv(i, 12, 1),
                rectangular(12, 12, (1, 3)),
                rectangular(12, 12, (3, 1)),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return torch.cat([self.a(x), self.b(x)], 1)

    def block(i: int) -> Cat:
        pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(i, 8, 1))
        long = nn.Sequential(conv(i, 8, 1), rectangular(8, 8, (1, 7)), rectangular(8, 12, (7, 1)))
        return Cat(conv(i, 8, 1), long, Fork(i), pool)

    down = Cat(conv(52, 16, 3, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(conv(3, 16), block(16), down, block(68), head(52)), image()


def inception_resnet() -> Built:
    def block(c: int) -> Residual:
        branches = Cat(
            conv(c, 8, 1), nn.Sequential(conv(c, 8, 1), rectangular(8, 8, (1, 7)), rectangular(8, 12, (7, 1)))
        )
        scaled = Apply(lambda body, x: 0.2 * body(x), nn.Sequential(branches, nn.Conv2d(20, c, 1)))
        return Residual(scaled, act=nn.ReLU())

    return nn.Sequential(conv(3, 24, 3, 2), block(24), block(24), head(24)), image()


def xception() -> Built:
    def separable(i: int, o: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(i, i, 3, 1, 1, groups=i, bias=False), nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o)
        )

    entry = nn.Sequential(separable(16, 24), nn.ReLU(), separable(24, 24), nn.MaxPool2d(3, 2, 1))
    middle = nn.Sequential(nn.ReLU(), separable(24, 24), nn.ReLU(), separable(24, 24))
    body = [Residual(entry, conv(16, 24, 1, 2, act=None)), Residual(middle), nn.ReLU()]
    return nn.Sequential(conv(3, 16), *body, head(24)), image()


# --- depthwise


def depthwise(c: int, k: int = 3, s: int = 1, act: Callable[[], nn.Module] | None = nn.ReLU) -> nn.Sequential:
    return conv(c, c, k, s, c, act)


def inverted(
    i: int,
    o: int,
    expand: int = 3,
    k: int = 3,
    s: int = 1,
    act: Callable[[], nn.Module] = nn.ReLU6,
    gate: nn.Module | None = None,
) -> nn.Module:
    m = i * expand
    body = [
        conv(i, m, 1, act=act),
        depthwise(m, k, s, act),
        *([gate] if gate else []),
        conv(m, o, 1, act=None),
    ]
    return Residual(nn.Sequential(*body)) if i == o and s == 1 else nn.Sequential(*body)


def mobilenet_v1() -> Built:
    body = [
        depthwise(16),
        conv(16, 24, 1),
        depthwise(24, 3, 2),
        conv(24, 32, 1),
        depthwise(32),
        conv(32, 32, 1),
    ]
    return nn.Sequential(conv(3, 16, 3, 2), *body, head(32)), image(32)


def mobilenet_v2() -> Built:
    body = [
        inverted(16, 16),
        inverted(16, 24, s=2),
        inverted(24, 24),
        inverted(24, 24),
        conv(24, 48, 1, act=nn.ReLU6),
    ]
    return nn.Sequential(conv(3, 16, act=nn.ReLU6), *body, head(48)), image()


def mobilenet_v3() -> Built:
    def gate(c: int) -> Squeeze:
        return Squeeze(c, 4, gate=nn.Hardsigmoid)

    body = [
        inverted(16, 16, 2, gate=gate(32), act=nn.ReLU), inverted(16, 24, 3, 5, 2, nn.Hardswish, gate(48)),
        inverted(24, 24, 3, 5, 1, nn.Hardswish, gate(72)), conv(24, 48, 1, act=nn.Hardswish),
    ]  # fmt: skip
    top = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 64, 1), nn.Hardswish(), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(conv(3, 16, act=nn.Hardswish), *body, *top), image()


def mnasnet() -> Built:
    stem = [conv(3, 16, 3, 2), depthwise(16), conv(16, 16, 1, act=None)]
    body = [
        inverted(16, 24, 3, 3, 2, nn.ReLU),
        inverted(24, 24, 3, 5, 1, nn.ReLU, Squeeze(72)),
        conv(24, 32, 1),
    ]
    return nn.Sequential(*stem, *body, head(32)), image(32)


def efficientnet() -> Built:
    def gate(c: int) -> Squeeze:
        return Squeeze(c, 8, nn.SiLU)

    body = [inverted(16, 16, 1, act=nn.SiLU, gate=gate(16)), inverted(16, 24, 4, 5, 2, nn.SiLU, gate(64))]
    body += [inverted(24, 24, 4, 3, 1, nn.SiLU, gate(96)), conv(24, 48, 1, act=nn.SiLU)]
    return nn.Sequential(conv(3, 16, act=nn.SiLU), *body, head(48)), image()


def ghostnet() -> Built:
    class Ghost(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.first, self.cheap, self.o = conv(i, (o + 1) // 2, 1), depthwise((o + 1) // 2), o

        def forward(self, x: Tensor) -> Tensor:
            first = self.first(x)
            return torch.cat([first, self.cheap(first)], 1)[:, : self.o]

    def block(i: int, m: int, o: int) -> Residual:
        shortcut = nn.Sequential(depthwise(i, act=None), conv(i, o, 1, act=None)) if i != o else None
        return Residual(nn.Sequential(Ghost(i, m), Squeeze(m), Ghost(m, o)), shortcut)

    return nn.Sequential(conv(3, 16), block(16, 32, 16), block(16, 40, 25), conv(25, 32, 1), head(32)), image()


def mixnet() -> Built:
    class Mixed(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.sizes = [c // 2, c // 4, c - c // 2 - c // 4]
            self.parts = nn.ModuleList(depthwise(n, k) for n, k in zip(self.sizes, (3, 5, 7), strict=True))

        def forward(self, x: Tensor) -> Tensor:
            pieces = torch.split(x, self.sizes, 1)
            return torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=True)], 1)

    def block(c: int) -> Residual:
        return Residual(nn.Sequential(conv(c, 2 * c, 1), Mixed(2 * c), conv(2 * c, c, 1, act=None)))

    return nn.Sequential(conv(3, 18), block(18), block(18), head(18)), image()


def convnext() -> Built:
    def block(c: int) -> Residual:
        perceptron = [nn.LayerNorm(c), nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c)]
        last = nn.Sequential(
            Apply(lambda x: x.permute(0, 2, 3, 1)), *perceptron, Apply(lambda x: x.permute(0, 3, 1, 2))
        )
        return Residual(nn.Sequential(nn.Conv2d(c, c, 7, 1, 3, groups=c), last))

    down = [LayerNormChannels(16), nn.Conv2d(16, 24, 2, 2)]
    stem = [nn.Conv2d(3, 16, 4, 4), LayerNormChannels(16)]
    return nn.Sequential(*stem, block(16), *down, block(24), head(24)), image(32)


def depth_multiplier() -> Built:
    body = [
        nn.Conv2d(12, 36, 3, 1, 1, groups=12),
        nn.BatchNorm2d(36),
        nn.ReLU(),
        conv(36, 24, 1),
        conv(24, 24, 5, 2, 4),
    ]
    return nn.Sequential(conv(3, 12), *body, head(24)), image()


# --- shuffle


def shuffle(groups: int) -> Apply:
    def mix(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Apply(mix)


def shufflenet_v1() -> Built:
    def body(i: int, o: int, s: int) -> nn.Sequential:
        return nn.Sequential(conv(i, 12, 1, g=3), shuffle(3), depthwise(12, 3, s, None), conv(12, o, 1, g=3, act=None))

    down = Apply(lambda pool, b, x: F.relu(torch.cat([pool(x), b(x)], 1)), nn.AvgPool2d(3, 2, 1), body(24, 24, 2))
    return nn.Sequential(conv(3, 24), down, Residual(body(48, 48, 1), act=nn.ReLU()), head(48)), image()


def shufflenet_v2() -> Built:
    def branch(i: int, o: int, s: int) -> nn.Sequential:
        return nn.Sequential(conv(i, o, 1), depthwise(o, 3, s, None), conv(o, o, 1))

    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.body, self.mix = branch(c // 2, c // 2, 1), shuffle(2)

        def forward(self, x: Tensor) -> Tensor:
            left, right = x.chunk(2, 1)
            return self.mix(torch.cat([left, self.body(right)], 1))

    left = nn.Sequential(depthwise(16, 3, 2, None), conv(16, 16, 1))
    down = nn.Sequential(Cat(left, branch(16, 16, 2)), shuffle(2))
    return nn.Sequential(conv(3, 16), down, Block(32), Block(32), conv(32, 48, 1), head(48)), image()


# --- attention over channels and positions


def se_resnet() -> Built:
    def block(c: int) -> Residual:
        return Residual(nn.Sequential(conv(c, c), conv(c, c, act=None), Squeeze(c)), act=nn.ReLU())

    return nn.Sequential(conv(3, 16), block(16), conv(16, 32, 3, 2), block(32), head(32)), image()


def se_linear() -> Built:
    class Gate(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.fc = nn.Sequential(nn.Linear(c, c // 4), nn.ReLU(), nn.Linear(c // 4, c), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            n, c, _, _ = x.shape
            return x * self.fc(x.mean((2, 3))).view(n, c, 1, 1).expand_as(x)

    return nn.Sequential(conv(3, 24), Gate(24), conv(24, 32), Gate(32), head(32)), image()


def cbam() -> Built:
    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.mlp = nn.Sequential(nn.Conv2d(c, c // 4, 1), nn.ReLU(), nn.Conv2d(c // 4, c, 1))
            self.where = nn.Conv2d(2, 1, 7, padding=3)

        def forward(self, x: Tensor) -> Tensor:
            pooled = self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))
            x = x * pooled.sigmoid()
            return x * self.where(torch.cat([x.mean(1, True), x.amax(1, True)], 1)).sigmoid()

    return nn.Sequential(conv(3, 24), Block(24), conv(24, 32), Block(32), head(32)), image()


def efficient_channel_attention() -> Built:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x.mean((2, 3)).unsqueeze(1))
            return x * y.sigmoid().squeeze(1)[:, :, None, None]

    return nn.Sequential(conv(3, 16), Gate(), conv(16, 32), Gate(), conv(32, 32), head(32)), image()


def coordinate_attention() -> Built:
    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.squeeze, self.h, self.w = (
                conv(c, 8, 1, act=nn.Hardswish),
                nn.Conv2d(8, c, 1),
                nn.Conv2d(8, c, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            size = x.shape[2]
            y = torch.cat([x.mean(3, True), x.mean(2, True).transpose(2, 3)], 2)
            a, b = self.squeeze(y).split([size, x.shape[3]], 2)
            return x * self.h(a).sigmoid() * self.w(b.transpose(2, 3)).sigmoid()

    return nn.Sequential(conv(3, 24), Block(24), conv(24, 32), head(32)), image()


def non_local() -> Built:
    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Conv2d(c, c // 2, 1) for _ in range(3))
            self.out = conv(c // 2, c, 1, act=None)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (part(x).flatten(2) for part in (self.q, self.k, self.v))
            y = (q.transpose(1, 2) @ k / 4).softmax(-1) @ v.transpose(1, 2)
            return x + self.out(y.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:]))

    return nn.Sequential(conv(3, 16, 3, 2), Block(16), conv(16, 24), head(24)), image()


def group_normalised() -> Built:
    body = [
        nn.Conv2d(3, 24, 3, 1, 1),
        nn.GroupNorm(6, 24),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, 2, 1),
        nn.GroupNorm(32, 32),
    ]
    return nn.Sequential(*body, nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 24, 1), head(24)), image()


def standardised_weights() -> Built:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            w = self.weight / (self.weight.square().sum((1, 2, 3), keepdim=True) + 1e-5).sqrt()
            return F.conv2d(x, w, self.bias, self.stride, self.padding)

    body = [Standardised(3, 16, 3, padding=1), nn.ReLU(), Standardised(16, 24, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, Standardised(24, 24, 3, 2), nn.ReLU(), head(24)), image()


FAMILIES: dict[str, Callable[[], Built]] = {
    function.__name__: function
    for function in (
        vgg, vgg_batchnorm, alexnet, lenet, network_in_network, squeezenet, darknet, all_convolutional,
        prelu_stem, activations, maxout, crelu, resnet_basic, resnet_bottleneck, resnet_preactivation,
        resnet_option_a, resnet_d, wide_resnet, resnext, res2net, regnet, cspnet, deep_layer_aggregation,
        stochastic_fractal, dual_path, selective_kernel, layer_scale_residual, repvgg, densenet, vovnet,
        inception_v1, inception_v3, inception_resnet, xception, mobilenet_v1, mobilenet_v2, mobilenet_v3,
        mnasnet, efficientnet, ghostnet, mixnet, convnext, depth_multiplier, shufflenet_v1, shufflenet_v2,
        se_resnet, se_linear, cbam, efficient_channel_attention, coordinate_attention, non_local,
        group_normalised, standardised_weights,
    )
}  # fmt: skip
