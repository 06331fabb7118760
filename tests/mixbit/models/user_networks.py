"""Small networks as users write them, each with one operation or shape that deployment has to get right."""

import torch
import torch.nn.functional as F
from torch import nn

SHAPE = (3, 12, 12)


def unit(in_channels, out_channels, kernel=3, activation=nn.ReLU, **options):
    padding = options.pop("padding", kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), activation())


class Net(nn.Module):
    """A stem, `body(self, x)` over named parts, then pooling and a classifier."""

    def __init__(self, body, channels=16, **parts):
        super().__init__()
        self.stem, self.fc, self.body = unit(3, 16), nn.Linear(channels, 5), body
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.fc(self.body(self, self.stem(x)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Scales channels by a sigmoid of their means."""

    def __init__(self, channels, gate):
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), gate
        self.down, self.up = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)

    def forward(self, x):
        return x * self.gate(self.up(F.relu(self.down(self.pool(x)))))


class Inception(nn.Module):
    """Four branches of one tensor, concatenated."""

    def __init__(self):
        super().__init__()
        self.one = unit(16, 8, 1)
        self.three = nn.Sequential(unit(16, 8, 1), unit(8, 16))
        self.five = nn.Sequential(unit(16, 4, 1), unit(4, 8, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(16, 8, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


class Tokens(nn.Module):
    """Patches as a sequence, an expanding pair of Linears around an activation, a residual."""

    def __init__(self, activation, *, bias=True):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.norm = nn.LayerNorm(16)
        self.up, self.down, self.act = nn.Linear(16, 48, bias=bias), nn.Linear(48, 16, bias=bias), activation
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.down(self.act(self.up(self.norm(x))))
        return self.fc(x.mean(1))


class Perceptron(nn.Module):
    """Flattened pictures, BatchNorm1d between Linears."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(432, 32), nn.BatchNorm1d(32), nn.Linear(32, 24)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.one(torch.flatten(x, 1))))
        return self.fc(F.relu(self.two(x)))


class Reused(nn.Module):
    """One Linear called at every position and again on the mean: 3-D and 2-D inputs of one layer."""

    def __init__(self):
        super().__init__()
        self.patches, self.mix, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.mix(self.patches(x).flatten(2).transpose(1, 2)))
        return self.fc(F.relu(self.mix(x.mean(1))))


def dense(net, x):
    x = torch.cat([x, net.first(x)], 1)
    return torch.cat([x, net.second(x)], 1)


def pre_activation(net, x):
    return x + net.conv(F.relu(net.norm(x)))


def halves(net, x):
    left, right = x.chunk(2, 1)
    return torch.cat([left, net.right(right)], 1)


def through(net, x):
    return net.part(x)


def residual(net, x):
    return F.relu(net.part(x) + net.side(x))


def linear(activation=nn.Identity):
    """A 1x1 projection without ReLU, as in inverted residuals."""
    return unit(48, 16, 1, activation)


NETWORKS = {
    "grouped": lambda: Net(through, part=unit(16, 16, groups=4)),
    "depthwise": lambda: Net(through, 24, part=nn.Sequential(unit(16, 16, groups=16), unit(16, 24, 1))),
    "dilated": lambda: Net(through, part=unit(16, 16, dilation=2, padding=2)),
    "oblong": lambda: Net(through, part=nn.Sequential(nn.Conv2d(16, 16, (1, 5), (1, 2), (0, 2)), nn.ReLU())),
    "reused": lambda: Net(lambda net, x: net.part(net.part(x)), part=unit(16, 16)),
    "perceptron": Perceptron,
    "tokens": lambda: Tokens(nn.GELU()),
    "tokens_without_bias": lambda: Tokens(nn.ReLU(), bias=False),
    "reused_linear": Reused,
    "pre_activation": lambda: Net(pre_activation, norm=nn.BatchNorm2d(16), conv=nn.Conv2d(16, 16, 3, padding=1)),
    "relu6": lambda: Net(through, part=nn.Sequential(unit(16, 48, 1, nn.ReLU6), unit(48, 16, 3, nn.ReLU6))),
    "silu": lambda: Net(through, part=nn.Sequential(unit(16, 16, activation=nn.SiLU), unit(16, 16))),
    "hardswish": lambda: Net(through, part=nn.Sequential(unit(16, 16, activation=nn.Hardswish), unit(16, 16))),
    "gelu": lambda: Net(through, part=nn.Sequential(unit(16, 16, activation=nn.GELU), unit(16, 16))),
    "max_pool": lambda: Net(through, part=nn.Sequential(nn.MaxPool2d(2), unit(16, 16))),
    "average_pool": lambda: Net(through, part=nn.Sequential(nn.AvgPool2d(3, 2, 1), unit(16, 16))),
    "adaptive_pool": lambda: Net(through, part=nn.Sequential(nn.AdaptiveAvgPool2d(4), unit(16, 16))),
    "flattened": lambda: nn.Sequential(
        unit(3, 8), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(288, 20), nn.ReLU(), nn.Linear(20, 5)
    ),
    "residual": lambda: Net(
        residual, 24, part=nn.Sequential(unit(16, 8, 1), unit(8, 24, 3, nn.Identity)), side=unit(16, 24, 1, nn.Identity)
    ),
    "inverted_residual": lambda: Net(
        lambda net, x: x + net.part(x),
        part=nn.Sequential(unit(16, 48, 1, nn.ReLU6), unit(48, 48, 3, nn.ReLU6, groups=48), linear()),
    ),
    "dense": lambda: Net(dense, 32, first=unit(16, 8), second=unit(24, 8)),
    "halves": lambda: Net(halves, right=unit(8, 8)),
    "inception": lambda: Net(through, 40, part=nn.Sequential(Inception(), unit(40, 40, 1))),
    "squeeze_excite": lambda: Net(
        through, part=nn.Sequential(unit(16, 16), SqueezeExcite(16, nn.Sigmoid()), unit(16, 16, 1))
    ),
    "mobile": lambda: Net(
        lambda net, x: x + net.part(x),
        part=nn.Sequential(
            unit(16, 48, 1, nn.Hardswish), unit(48, 48, 3, nn.Hardswish, groups=48),
            SqueezeExcite(48, nn.Hardsigmoid()), linear(),
        ),
    ),
}  # fmt: skip
