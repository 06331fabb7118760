"""MobileNetV2 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2), for large and small pictures."""

from typing import Literal

from torch import Tensor, nn

# (expansion, channels, blocks, stride of the first)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS, LAST_CHANNELS = 32, 1280
# Small pictures keep their size through the stem and the first of the halvings.
SMALL_PICTURES_KEEP = 24


class InvertedResidual(nn.Module):
    """1x1 out, 3x3 per channel, 1x1 back without activation; added to the input where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        parts = [] if expansion == 1 else [_unit(in_channels, hidden, 1)]
        parts += [_unit(hidden, hidden, 3, stride, groups=hidden)]
        parts += [nn.Sequential(nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))]
        self.parts = nn.Sequential(*parts)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        return x + self.parts(x) if self.adds else self.parts(x)  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals, a 1x1 convolution, global average pooling, one Linear."""

    def __init__(self, num_classes: int, in_channels: int, multiplier: float, *, small: bool) -> None:
        super().__init__()
        channels = _rounded(STEM_CHANNELS * multiplier)
        self.stem = _unit(in_channels, channels, 3, 1 if small else 2)
        blocks = []
        for expansion, wanted, depth, stride in STAGES:
            first = 1 if small and wanted == SMALL_PICTURES_KEEP else stride
            for place in range(depth):
                out_channels = _rounded(wanted * multiplier)
                blocks.append(InvertedResidual(channels, out_channels, first if place == 0 else 1, expansion))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        last = _rounded(LAST_CHANNELS * max(1.0, multiplier))
        self.last = _unit(channels, last, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W], of any size -> logits [N, num_classes]."""
        return self.fc(self.pool(self.last(self.blocks(self.stem(x)))).flatten(1))  # type: ignore[no-any-return]


def _unit(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def mobilenet_v2(
    num_classes: int, in_channels: int = 3, multiplier: float = 1.0, stem: Literal["imagenet", "cifar"] = "imagenet"
) -> MobileNetV2:
    """MobileNetV2: 3.5 million weights and 0.301 GMAC at multiplier 1, 1000 classes, 224 pixels."""
    return MobileNetV2(num_classes, in_channels, multiplier, small=stem == "cifar")
