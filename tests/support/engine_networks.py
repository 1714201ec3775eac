"""Small networks of many kinds, on which the engine is compared with full forward passes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """A stem, two blocks with a sum around them, a head."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.norm1(self.conv1(x)).relu()
        x = F.max_pool2d(x, 2)
        return self.fc((x + self.conv2(x).relu()).mean((2, 3)))


class Dense(nn.Module):
    """Batch norms before their convolutions, and each layer reads all that came before, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i, affine=i != 1) for i in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.fc = nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, layer(norm(x).relu())], 1)
        return self.fc(self.norms[3](x).relu().mean((2, 3)))


class Own(nn.Module):
    """A network of two layers `a` and `b` with something between and behind them."""

    def __init__(self, a: nn.Module, b: nn.Module, between: Callable[[Tensor], Tensor], n: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.between = a, b, between
        self.fc = nn.Linear(n, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.between(self.a(x))).relu()
        return 5 * self.fc(x.mean((2, 3)) if x.ndim == 4 else x.mean(1) if x.ndim == 3 else x)


class Tied(nn.Module):
    """Two layers that share one weight; only the first has a bias, or none."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 8, 3)
        self.a = nn.Conv2d(8, 8, 3, padding=1, bias=bias)
        self.b = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 5 * self.fc(self.b(self.a(self.i(x).relu()).relu()).relu().mean((2, 3)))


class SharedNorm(nn.Module):
    """One batch norm under two names, one convolution called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 8, 3)
        self.a = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = self.again = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.again(self.a(self.norm(self.a(self.i(x))).relu())).relu().mean((2, 3)))


class LateBias(nn.Linear):
    """A linear layer whose bias, zero so far, is added behind an activation."""

    def __init__(self) -> None:
        super().__init__(20, 8)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight).tanh() + self.bias


class Standardized(nn.Conv2d):
    """Its weight is standardized before use."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (std + 0.1), self.bias, self.stride, self.padding)


class Windows(nn.Module):
    """Linear layers on windows, of which there are four a sample on the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 16, 1)
        self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x).relu()
        n, c, _, _ = x.shape
        x = x.reshape(n, c, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(n * 4, 16, c)
        x = self.b(self.a(x).relu()).relu().reshape(n, 64, c)
        return 5 * self.fc(x.mean(1))


class TokensFirst(nn.Module):
    """An attention layer of torch, whose first axis is that of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 16, 4, 4)
        self.a = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0)
        self.b = nn.Linear(16, 16)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return 5 * self.fc(self.b(self.a(self.i(x).flatten(2).permute(2, 0, 1))).relu().mean(0))


class Skipped(nn.Module):
    """The first layer's output is read until the end, so that it can't be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.i = nn.Conv2d(3, 3, 3, padding=1)
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.i(x), self.a(x)
        return 5 * self.fc((y.relu() + z).mean((2, 3))) + y.mean((2, 3))[:, :2]


class WithLogits(nn.Sequential):
    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=super().forward(x))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused, self.inner, self.fc = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.inner(x).relu())


class Branching(nn.Module):
    """Vectors to logits, with a step in between, such as one that torch.export cannot handle."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.how = how
        self.inner, self.fc = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.how(self.inner(x)))


def conv(n: int = 8, of: int = 8, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(of, n, size, **options)


def chunked(x: Tensor) -> Tensor:
    one, two = x.chunk(2, 1)
    return one * two.sigmoid()


def same(x: Tensor) -> Tensor:
    return x


IMAGES, VECTORS, TOKENS, SIGNALS = (3, 8, 8), (6,), (5, 6), (3, 12)
OWN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "dense": (Dense, IMAGES, ["stem:1", "convs.0:2", "convs.1:0,convs.2:3"]),
    "grouped": (lambda: Own(conv(of=3), conv(groups=2, bias=False), F.relu), IMAGES, ["a:1", "b:3", "a:0,b:7"]),
    "depthwise": (lambda: Own(conv(of=3), conv(groups=8), F.relu), IMAGES, ["a:1", "b:3", "a:0,b:7"]),
    "many groups": (
        lambda: Own(conv(16, of=3), conv(32, 16, groups=8, stride=2, bias=False), F.relu, 32),
        IMAGES,
        ["a:1", "b:3", "a:0,b:7", "b:3,b:30"],
    ),
    "string padding": (
        lambda: Own(conv(of=3, padding="same"), conv(padding="same", dilation=2, bias=False), F.relu),
        IMAGES,
        ["a:1", "b:3", "a:0,b:7"],
    ),
    "circular padding": (
        lambda: Own(conv(of=3), conv(padding=1, padding_mode="circular"), F.relu),
        IMAGES,
        ["a:1", "a:0,b:7"],
    ),
    "stride and dilation": (
        lambda: Own(conv(of=3, bias=False, stride=(1, 2)), conv(stride=2, dilation=(2, 1), padding=(2, 1)), F.gelu),
        IMAGES,
        ["a:1", "b:3", "a:0,b:7"],
    ),
    "stride of one by one": (
        lambda: Own(conv(of=3), nn.Sequential(conv(size=1, stride=2), conv(size=1, padding=1)), F.silu),
        IMAGES,
        ["a:1", "b.0:3", "a:0,b.1:7"],
    ),
    "one channel": (lambda: Own(conv(1, 3), conv(8, 1), F.relu), IMAGES, ["a:0", "b:3", "a:0,b:7"]),
    "gate": (lambda: Own(conv(16, 3), conv(8, 8), chunked), IMAGES, ["a:1", "a:12", "a:3,b:7"]),
    "linear along the width": (
        lambda: Own(conv(of=3, padding=1), nn.Sequential(nn.Linear(8, 8), nn.ReLU(), conv()), F.relu),
        IMAGES,
        ["a:1", "b.0:3", "a:0,b.0:1,b.2:7"],
    ),
    "standardized": (
        lambda: Own(Standardized(3, 8, 3, bias=False), Standardized(8, 8, 3), F.relu),
        IMAGES,
        ["a:1", "b:3"],
    ),
    "tied": (lambda: Tied(True), IMAGES, ["i:1", "a:3", "i:0,a:7"]),
    "tied without bias": (lambda: Tied(False), IMAGES, ["i:1", "a:3", "i:0,a:7"]),
    "shared norm": (SharedNorm, IMAGES, ["i:1", "a:3", "i:0,a:7"]),
    "late bias": (lambda: Own(nn.Linear(6, 20), LateBias(), torch.tanh), VECTORS, ["a:1", "b:3", "a:0,b:7"]),
    "windows": (lambda: nn.Sequential(conv(16, 3, 1), nn.ReLU(), conv(3, 16, 1), Windows()), IMAGES, ["0:1,3.b:4"]),
    "tokens first": (TokensFirst, IMAGES, ["i:1", "a.linear1:3,b:1", "i:0,a.linear2:2,b:3"]),
    "no cuts": (Skipped, IMAGES, ["i:1", "a:2", "i:0,a:1"]),
    "vectors": (lambda: Own(nn.Linear(6, 20), nn.Linear(20, 8), torch.tanh), VECTORS, ["a:1", "b:3", "a:0,b:7"]),
    "tokens": (lambda: Own(nn.Linear(6, 20), nn.Linear(20, 8), F.gelu), TOKENS, ["a:1", "b:3", "a:0,b:7"]),
    "signals": (
        lambda: Own(
            nn.Conv1d(3, 8, 3),
            nn.Sequential(nn.Conv1d(8, 8, 3, bias=False), nn.BatchNorm1d(8), nn.Flatten(2), nn.Linear(8, 8)),
            F.relu,
        ),
        SIGNALS,
        ["a:1", "b.0:3", "a:0,b.0:7"],
    ),
    "logits": (
        lambda: WithLogits(conv(of=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
        IMAGES,
        ["0:1"],
    ),
}
