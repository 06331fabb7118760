"""Small networks, each with one trait."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Stem, one block with a 1x1 shortcut, pooling, a classifier; registered late-first on purpose."""

    def __init__(self, width=4):
        super().__init__()
        self.fc = nn.Linear(width * 2, 3)
        self.shortcut = nn.Conv2d(width, width * 2, 1, 2, bias=False)
        self.stem, self.stem_bn = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv1, self.bn1 = nn.Conv2d(width, width * 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width * 2)
        self.conv2, self.bn2 = nn.Conv2d(width * 2, width * 2, 3, padding=1, bias=False), nn.BatchNorm2d(width * 2)
        self.shortcut_bn = nn.BatchNorm2d(width * 2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.stem_bn(self.stem(x)))
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut_bn(self.shortcut(x))
        return self.fc(self.relu(out).mean((2, 3)))


class PreActivation(nn.Module):
    """BatchNorm and an in-place ReLU before each convolution; the shortcut reads what the ReLU overwrote."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn, self.conv = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.bn(self.stem(x))
        out = self.conv(F.relu(x, inplace=True))
        return self.fc((out + x).mean((2, 3)))


class Attention(nn.Module):
    """Patches, one attention head of plain Linears, layer norm, gelu."""

    def __init__(self, dim=8):
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 4, 4)
        self.norm, self.qkv, self.proj = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.place = nn.Parameter(torch.zeros(1, 4, dim))
        self.head = nn.Linear(dim, 3)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + self.proj(torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v)
        return self.head(F.gelu(x).mean(1))


class Twice(nn.Module):
    """One convolution called twice, on tensors of different size."""

    def __init__(self):
        super().__init__()
        self.conv, self.unused, self.fc = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 1), nn.Linear(2, 2)

    def forward(self, x, scale=None):
        x = self.conv(self.conv(x).relu())
        if scale is not None:
            x = x * scale
        return self.fc(x.amax((2, 3)))


class Body(nn.Module):
    """A convolution, then `after(self, x)`, then a classifier; `parts` become modules."""

    def __init__(self, after, **parts):
        super().__init__()
        self.conv, self.fc, self.after = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 2), after
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.fc(self.after(self, self.conv(x)).mean((2, 3)))
