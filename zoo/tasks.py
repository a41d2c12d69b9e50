"""Networks for other tasks and shapes: dense prediction, detection, generation, 1-D, 3-D, attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from zoo.layers import Apply, Cat, Residual, conv, head, transformer

Built = tuple[nn.Module, tuple[Tensor, ...]]


def image(size: int = 16, channels: int = 3) -> tuple[Tensor, ...]:
    return (torch.randn(1, channels, size, size),)


# --- dense prediction


class UNet(nn.Module):
    def __init__(self, up: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(16, 24), conv(24, 32)
        self.up_b, self.up_a = up(32, 24), up(24, 16)
        self.out_b, self.out_a, self.last = conv(48, 24), conv(32, 16), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        y = self.up_b(self.c(F.max_pool2d(b, 2)))
        y = self.up_a(self.out_b(torch.cat([b, y], 1)))
        return self.last(self.out_a(torch.cat([a, y], 1)))


def unet_transposed() -> Built:
    return UNet(lambda i, o: nn.ConvTranspose2d(i, o, 2, 2)), image()


def unet_resized() -> Built:
    return UNet(lambda i, o: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv(i, o))), image()


def linknet() -> Built:
    class Link(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 16), conv(16, 24, 3, 2), conv(24, 32, 3, 2)
            self.up_b = nn.Sequential(nn.ConvTranspose2d(32, 24, 3, 2, 1, 1), nn.BatchNorm2d(24), nn.ReLU())
            self.up_a = nn.Sequential(nn.ConvTranspose2d(24, 16, 4, 2, 1, groups=2), nn.BatchNorm2d(16), nn.ReLU())
            self.last = nn.Conv2d(16, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            b = self.b(a)
            return self.last(a + self.up_a(b + self.up_b(self.c(b))))

    return Link(), image()


def feature_pyramid() -> Built:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([conv(3, 16, 3, 2), conv(16, 24, 3, 2), conv(24, 32, 3, 2)])
            self.lateral = nn.ModuleList([nn.Conv2d(c, 16, 1) for c in (16, 24, 32)])
            self.smooth = nn.ModuleList([nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)])

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            found = []
            for stage, lateral in zip(self.stages, self.lateral, strict=True):
                x = stage(x)
                found.append(lateral(x))
            for k in (1, 0):
                found[k] = found[k] + F.interpolate(found[k + 1], scale_factor=2.0, mode="nearest")
            return tuple(smooth(y) for smooth, y in zip(self.smooth, found, strict=True))

    return Pyramid(), image(32)


def deeplab() -> Built:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 12, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(self.body(x), size=x.shape[-2:], mode="bilinear", align_corners=False)

    def atrous(rate: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(32, 12, 3, 1, rate, rate, bias=False), nn.BatchNorm2d(12), nn.ReLU())

    spatial = nn.Sequential(Cat(conv(32, 12, 1), atrous(2), atrous(3), Pooled()), conv(48, 16, 1), nn.Conv2d(16, 5, 1))
    return nn.Sequential(
        conv(3, 16, 3, 2), conv(16, 32), spatial, nn.Upsample(scale_factor=2, mode="bilinear")
    ), image()


def pyramid_pooling() -> Built:
    class Pool(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.AvgPool2d(size, size), conv(24, 8, 1), nn.Upsample(scale_factor=size))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    return nn.Sequential(
        conv(3, 24), Cat(Pool(2), Pool(4), Pool(8), dense=True), conv(48, 16), nn.Conv2d(16, 4, 1)
    ), image()


def segnet() -> Built:
    down = [conv(3, 16), conv(16, 16), nn.MaxPool2d(2), conv(16, 24), nn.MaxPool2d(2)]
    up = [nn.Upsample(scale_factor=2), conv(24, 16), nn.Upsample(scale_factor=2), conv(16, 16)]
    return nn.Sequential(*down, *up, nn.Conv2d(16, 4, 3, padding=1), nn.Softmax(1)), image()


def labels() -> Built:
    last = Apply(lambda x: x.argmax(1))
    return nn.Sequential(conv(3, 16), conv(16, 24), nn.Conv2d(24, 6, 1), last), image()


def high_resolution() -> Built:
    class Exchange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down = conv(3, 16), conv(16, 24, 3, 2)
            self.fine, self.coarse = conv(16, 16), conv(24, 24)
            self.to_coarse, self.to_fine = conv(16, 24, 3, 2, act=None), conv(24, 16, 1, act=None)
            self.head = nn.Conv2d(40, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.stem(x)
            b = self.down(a)
            for _ in range(2):
                p, q = self.fine(a), self.coarse(b)
                a = F.relu(p + F.interpolate(self.to_fine(q), scale_factor=2.0))
                b = F.relu(q + self.to_coarse(p))
            return self.head(torch.cat([a, F.interpolate(b, scale_factor=2.0)], 1))

    return Exchange(), image()


def hourglass() -> Built:
    class Glass(nn.Module):
        def __init__(self, depth: int, c: int) -> None:
            super().__init__()
            self.skip, self.low, self.back = conv(c, c), conv(c, c), conv(c, c)
            self.inner = Glass(depth - 1, c) if depth else conv(c, c)

        def forward(self, x: Tensor) -> Tensor:
            y = self.back(self.inner(self.low(F.max_pool2d(x, 2))))
            return self.skip(x) + F.interpolate(y, scale_factor=2.0)

    return nn.Sequential(conv(3, 16), Glass(1, 16), nn.Conv2d(16, 4, 1)), image()


# --- super-resolution, style, generation


def espcn() -> Built:
    body = [
        nn.Conv2d(1, 24, 5, 1, 2),
        nn.Tanh(),
        nn.Conv2d(24, 16, 3, 1, 1),
        nn.Tanh(),
        nn.Conv2d(16, 9, 3, 1, 1),
    ]
    return nn.Sequential(*body, nn.PixelShuffle(3)), image(12, 1)


def edsr() -> Built:
    def block() -> Residual:
        body = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
        return Residual(Apply(lambda body, x: body(x) * 0.1, body))

    up = [nn.Conv2d(16, 64, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(16, 3, 3, 1, 1)]
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), Residual(nn.Sequential(block(), block())), *up), image(12)


def srgan() -> Built:
    body = Residual(nn.Sequential(conv(16, 16, act=lambda: nn.PReLU(16)), conv(16, 16, act=None)))
    up = [nn.Conv2d(16, 32, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU(), nn.Conv2d(8, 3, 9, 1, 4), nn.Tanh()]
    return nn.Sequential(nn.Conv2d(3, 16, 9, 1, 4), nn.PReLU(), body, *up), image(12)


def space_to_depth() -> Built:
    down = [nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.PixelUnshuffle(2), nn.Conv2d(32, 24, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*down, nn.Conv2d(24, 12, 3, 1, 1), nn.PixelShuffle(2)), image()


def style_transfer() -> Built:
    def layer(i: int, o: int, k: int, s: int = 1) -> nn.Sequential:
        pad = nn.ReflectionPad2d(k // 2)
        conv = nn.Conv2d(i, o, k, s, bias=False)  # the norm takes it away again, up to rounding
        return nn.Sequential(pad, conv, nn.InstanceNorm2d(o, affine=True), nn.ReLU())

    body = Residual(nn.Sequential(layer(24, 24, 3), nn.ReplicationPad2d(1), nn.Conv2d(24, 24, 3)))
    up = [nn.Upsample(scale_factor=2), layer(24, 16, 3), nn.ReflectionPad2d(4), nn.Conv2d(16, 3, 9)]
    return nn.Sequential(layer(3, 16, 9), layer(16, 24, 3, 2), body, *up), image()


def autoencoder() -> Built:
    down = [
        nn.Conv2d(1, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(384, 12),
    ]
    up = [
        nn.Linear(12, 384),
        nn.ReLU(),
        nn.Unflatten(1, (24, 4, 4)),
        nn.ConvTranspose2d(24, 16, 3, 2, 1, 1),
        nn.ReLU(),
    ]
    return nn.Sequential(*down, *up, nn.ConvTranspose2d(16, 1, 3, 2, 1, 1), nn.Sigmoid()), image(16, 1)


def generator() -> Built:
    body = [nn.ConvTranspose2d(12, 32, 4), nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 24, 4, 2, 1)]
    body += [nn.BatchNorm2d(24), nn.ReLU(), nn.ConvTranspose2d(24, 3, 4, 2, 1), nn.Tanh()]
    return nn.Sequential(*body), (torch.randn(1, 12, 1, 1),)


def vae_decoder() -> Built:
    class Sample(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2), nn.Flatten())
            self.mean, self.spread = nn.Linear(384, 8), nn.Linear(384, 8)
            self.grow = nn.Linear(8, 24 * 16)
            self.up = nn.Sequential(nn.ConvTranspose2d(24, 16, 2, 2), nn.ReLU(), nn.ConvTranspose2d(16, 3, 2, 2))

        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            y = self.body(x)
            z = self.mean(y) + noise * (self.spread(y) / 2).tanh().exp()
            return self.up(F.relu(self.grow(z)).view(-1, 24, 4, 4))

    return Sample(), (*image(), torch.randn(1, 8))


# --- detection


def yolo() -> Built:
    class Yolo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([conv(3, 16, 3, 2), conv(16, 24, 3, 2)])
            self.heads = nn.ModuleList([nn.Conv2d(c, 3 * 7, 1) for c in (16, 24)])

        def forward(self, x: Tensor) -> Tensor:
            found = []
            for stage, last in zip(self.stages, self.heads, strict=True):
                x = stage(x)
                n, _, h, w = x.shape
                y = last(x).view(n, 3, 7, h, w).permute(0, 1, 3, 4, 2)
                found.append(
                    torch.cat([y[..., :2].sigmoid() * 2, y[..., 2:4].exp(), y[..., 4:].sigmoid()], -1).view(n, -1, 7)
                )
            return torch.cat(found, 1)

    return Yolo(), image()


def yolox() -> Built:
    class Focus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x[..., i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))], 1)

    pools = Cat(nn.MaxPool2d(5, 1, 2), nn.MaxPool2d(9, 1, 4), nn.MaxPool2d(13, 1, 6), dense=True)

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(24, 16, act=nn.SiLU), conv(24, 16, act=nn.SiLU)
            self.label, self.box, self.sure = nn.Conv2d(16, 5, 1), nn.Conv2d(16, 4, 1), nn.Conv2d(16, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            y = torch.cat([self.box(b), self.sure(b).sigmoid(), self.label(a).sigmoid()], 1)
            return y.flatten(2).permute(0, 2, 1)

    body = [Focus(), conv(12, 16), conv(16, 12, 1), pools, conv(48, 24, 1)]
    return nn.Sequential(*body, Heads()), image()


def ssd() -> Built:
    class Ssd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([conv(3, 16, 3, 2), conv(16, 24, 3, 2), conv(24, 32, 3, 2)])
            self.boxes = nn.ModuleList([nn.Conv2d(c, 8, 3, padding=1) for c in (16, 24, 32)])
            self.labels = nn.ModuleList([nn.Conv2d(c, 6, 3, padding=1) for c in (16, 24, 32)])

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            boxes, labels = [], []
            for stage, box, label in zip(self.stages, self.boxes, self.labels, strict=True):
                x = stage(x)
                boxes.append(box(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
                labels.append(label(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3))
            return torch.cat(boxes, 1), torch.cat(labels, 1).softmax(-1)

    return Ssd(), image()


def retina() -> Built:
    class Shared(nn.Module):
        """One head on three levels: its convolutions are applied three times."""

        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([conv(3, 16, 3, 2), conv(16, 16, 3, 2), conv(16, 16, 3, 2)])
            self.head = nn.Sequential(nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU(), nn.Conv2d(24, 8, 3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            found = []
            for stage in self.stages:
                x = stage(x)
                found.append(self.head(x).flatten(2))
            return torch.cat(found, 2)

    return Shared(), image()


def centernet() -> Built:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(nn.Sequential(conv(24, 16), nn.Conv2d(16, n, 1)) for n in (4, 2, 2))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            heat, size, offset = (part(x) for part in self.heads)
            return heat.sigmoid() * (F.max_pool2d(heat, 3, 1, 1) == heat).float(), size, offset

    up = [nn.ConvTranspose2d(32, 24, 4, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    return nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), *up, Heads()), image()


# --- other dimensions


def audio() -> Built:
    body = [nn.Conv1d(1, 24, 16, 4), nn.BatchNorm1d(24), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(24, 32, 3)]
    body += [nn.BatchNorm1d(32), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*body), (torch.randn(1, 1, 128),)


def temporal() -> Built:
    def causal(i: int, o: int, rate: int) -> nn.Sequential:
        layers = [
            nn.Conv1d(i, o, 3, padding=2 * rate, dilation=rate),
            Apply(lambda x: x[:, :, : -2 * rate]),
            nn.ReLU(),
        ]
        return nn.Sequential(*layers, nn.Dropout(0.2))

    def block(i: int, o: int, rate: int) -> Residual:
        body = nn.Sequential(causal(i, o, rate), causal(o, o, rate))
        return Residual(body, nn.Conv1d(i, o, 1) if i != o else None, nn.ReLU())

    last = Apply(lambda linear, x: linear(x[:, :, -1]), nn.Linear(24, 10))
    return nn.Sequential(block(4, 16, 1), block(16, 24, 2), last), (torch.randn(1, 4, 32),)


def gated_wave() -> Built:
    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(1, 16, 1)
            self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=rate) for rate in (1, 2, 4))
            self.back = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(3))
            self.skip = nn.ModuleList(nn.Conv1d(16, 24, 1) for _ in range(3))
            self.last = nn.Conv1d(24, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            x, total = self.stem(x), torch.zeros(1)
            for gate, back, skip in zip(self.gates, self.back, self.skip, strict=True):
                a, b = gate(x).chunk(2, 1)
                y = a.tanh() * b.sigmoid()
                x = x[..., -y.shape[-1] :] + back(y)
                total = total[..., -y.shape[-1] :] + skip(y)
            return self.last(F.relu(total))

    return Wave(), (torch.randn(1, 1, 40),)


def text() -> Built:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 16)
            self.convs = nn.ModuleList(nn.Conv1d(16, 12, k) for k in (2, 3, 4))
            self.last = nn.Linear(36, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.table(x).transpose(1, 2)
            return self.last(torch.cat([F.relu(part(y)).amax(2) for part in self.convs], 1))

    return Text(), (torch.randint(0, 10, (1, 20)),)


def video() -> Built:
    body = [
        nn.Conv3d(3, 12, 3, padding=1),
        nn.BatchNorm3d(12),
        nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(12, 24, 3),
    ]
    body += [nn.BatchNorm3d(24), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(24, 6)]
    return nn.Sequential(*body), (torch.randn(1, 3, 6, 12, 12),)


def factored_video() -> Built:
    def block(i: int, o: int) -> nn.Sequential:
        space = [nn.Conv3d(i, 16, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(16), nn.ReLU()]
        return nn.Sequential(*space, nn.Conv3d(16, o, (3, 1, 1), padding=(1, 0, 0), bias=False), nn.BatchNorm3d(o))

    top = [nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 6)]
    return nn.Sequential(block(3, 16), nn.ReLU(), Residual(block(16, 16)), *top), (torch.randn(1, 3, 4, 12, 12),)


def point_cloud() -> Built:
    body = [
        nn.Conv1d(3, 16, 1),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 32, 1),
        nn.BatchNorm1d(32),
        nn.ReLU(),
    ]
    pooled = Apply(lambda x: x.max(2)[0])
    top = [nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 8)]
    return nn.Sequential(*body, pooled, *top), (torch.randn(1, 3, 30),)


def text_recogniser() -> Built:
    class Recogniser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(1, 16), nn.MaxPool2d(2), conv(16, 24), nn.MaxPool2d((2, 1)))
            self.rnn, self.last = nn.LSTM(24, 12, bidirectional=True, batch_first=True), nn.Linear(24, 9)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.rnn(self.body(x).mean(2).transpose(1, 2))[0])

    return Recogniser(), (torch.randn(1, 1, 12, 20),)


# --- attention and mixing


def vision_transformer() -> Built:
    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 24, 4, 4)
            self.token, self.place = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))
            self.body = nn.Sequential(transformer(24), transformer(24), nn.LayerNorm(24))
            self.last = nn.Linear(24, 10)

        def forward(self, x: Tensor) -> Tensor:
            y = self.patch(x).flatten(2).transpose(1, 2)
            y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.place
            return self.last(self.body(y)[:, 0])

    return Vit(), image()


def hybrid_transformer() -> Built:
    class Fold(nn.Module):
        def __init__(self, c: int, d: int) -> None:
            super().__init__()
            self.into, self.body, self.back, self.out = (
                conv(c, d, 1),
                transformer(d),
                conv(d, c, 1),
                conv(2 * c, c),
            )

        def forward(self, x: Tensor) -> Tensor:
            y = self.into(x)
            n, d, h, w = y.shape
            y = self.body(y.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, d, h, w)
            return self.out(torch.cat([x, self.back(y)], 1))

    return nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2), Fold(24, 32), head(24)), image(32)


def conv_attention() -> Built:
    tokens = [Apply(lambda x: x.flatten(2).transpose(1, 2)), transformer(24), Apply(lambda x: x.mean(1))]
    return nn.Sequential(conv(3, 16, 3, 2), conv(16, 32), conv(32, 24, 3, 2), *tokens, nn.Linear(24, 10)), image()


def mlp_mixer() -> Built:
    def swap(body: nn.Module) -> Apply:
        return Apply(lambda body, x: body(x.transpose(1, 2)).transpose(1, 2), body)

    def block() -> nn.Sequential:
        tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        channels = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))
        return nn.Sequential(Residual(nn.Sequential(nn.LayerNorm(24), swap(tokens))), Residual(channels))

    patches = [nn.Conv2d(3, 24, 4, 4), Apply(lambda x: x.flatten(2).transpose(1, 2))]
    return nn.Sequential(*patches, block(), block(), Apply(lambda x: x.mean(1)), nn.Linear(24, 10)), image()


def pool_former() -> Built:
    def block(c: int) -> nn.Sequential:
        mix = Apply(lambda pool, x: pool(x) - x, nn.AvgPool2d(3, 1, 1, count_include_pad=False))
        mlp = nn.Sequential(nn.GroupNorm(1, c), nn.Conv2d(c, 2 * c, 1), nn.GELU(), nn.Conv2d(2 * c, c, 1))
        return nn.Sequential(Residual(nn.Sequential(nn.GroupNorm(1, c), mix)), Residual(mlp))

    return nn.Sequential(nn.Conv2d(3, 24, 4, 4), block(24), block(24), head(24)), image()


def conv_mixer() -> Built:
    def block(c: int) -> nn.Sequential:
        mix = nn.Sequential(nn.Conv2d(c, c, 5, 1, 2, groups=c), nn.GELU(), nn.BatchNorm2d(c))
        return nn.Sequential(Residual(mix), nn.Conv2d(c, c, 1), nn.GELU(), nn.BatchNorm2d(c))

    return nn.Sequential(nn.Conv2d(3, 24, 4, 4), nn.GELU(), nn.BatchNorm2d(24), block(24), block(24), head(24)), image()


# --- several inputs


def siamese() -> Built:
    body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2), nn.Flatten(), nn.Linear(24 * 16, 12))
    return Apply(lambda body, a, b: (body(a) - body(b)).abs().sum(1), body), (*image(), *image())


def fused_inputs() -> Built:
    parts = (conv(3, 16), conv(1, 16), nn.Linear(4, 16), conv(16, 24), head(24))

    def both(
        colour: nn.Module, depth: nn.Module, side: nn.Module, body: nn.Module, last: nn.Module, *x: Tensor
    ) -> Tensor:
        return last(body(colour(x[0]) + depth(x[1]) * side(x[2])[:, :, None, None]))

    return Apply(both, *parts), (*image(), *image(channels=1), torch.randn(1, 4))


def conditioned() -> Built:
    def modulate(layer: nn.Module, table: nn.Module, last: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        gain, shift = table(y)[:, :, None, None].chunk(2, 1)
        return last(F.relu(layer(x) * (1 + gain) + shift))

    return Apply(modulate, nn.Conv2d(3, 24, 3, 1, 1), nn.Linear(6, 48), nn.Conv2d(24, 4, 3)), (
        *image(),
        torch.randn(1, 6),
    )


FAMILIES: dict[str, Callable[[], Built]] = {
    function.__name__: function
    for function in (
        unet_transposed, unet_resized, linknet, feature_pyramid, deeplab, pyramid_pooling, segnet, labels,
        high_resolution, hourglass, espcn, edsr, srgan, space_to_depth, style_transfer, autoencoder,
        generator, vae_decoder, yolo, yolox, ssd, retina, centernet, audio, temporal, gated_wave, text,
        video, factored_video, point_cloud, text_recogniser, vision_transformer, hybrid_transformer,
        conv_attention, mlp_mixer, pool_former, conv_mixer, siamese, fused_inputs, conditioned,
    )
}  # fmt: skip
