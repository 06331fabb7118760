"""ResNet-18 and ResNet-50 (He et al. 2016, https://arxiv.org/abs/1512.03385, table 1), for large and small pictures."""

from typing import Literal

from torch import Tensor, nn

from mixbit.models.resnet import BasicBlock

Stem = Literal["imagenet", "cifar"]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; the stride is in the 3x3, as most published weights have it."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, 4 width, ceil(H / stride), ceil(W / stride)]."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + self.shortcut(x))  # type: ignore[no-any-return]


class DeepResNet(nn.Module):
    """A stem, four stages at widths w, 2w, 4w, 8w, global average pooling, one Linear."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, ...], *, num_classes: int, in_channels: int,
        width: int, stem: Stem,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = small_stem(in_channels, width) if stem == "cifar" else large_stem(in_channels, width)
        expansion = getattr(block, "expansion", 1)
        stages, channels = [], width
        for stage, depth in enumerate(depths):
            blocks = []
            for place in range(depth):
                blocks.append(block(channels, width << stage, 2 if stage and place == 0 else 1))
                channels = (width << stage) * expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W], of any size -> logits [N, num_classes]."""
        return self.fc(self.pool(self.stages(self.stem(x))).flatten(1))  # type: ignore[no-any-return]


def large_stem(in_channels: int, width: int) -> nn.Sequential:
    """A 7x7 convolution and a 3x3 maximum, four times smaller: for pictures of about 224 pixels."""
    conv = nn.Conv2d(in_channels, width, 7, 2, padding=3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1))


def small_stem(in_channels: int, width: int) -> nn.Sequential:
    """One 3x3 convolution of stride 1: for pictures of about 32 pixels."""
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def resnet18(num_classes: int, in_channels: int = 3, width: int = 64, stem: Stem = "imagenet") -> DeepResNet:
    """ResNet-18: 11.7 million weights and 1.814 GMAC at width 64, 1000 classes, 224 pixels."""
    depths = (2, 2, 2, 2)
    return DeepResNet(BasicBlock, depths, num_classes=num_classes, in_channels=in_channels, width=width, stem=stem)


def resnet50(num_classes: int, in_channels: int = 3, width: int = 64, stem: Stem = "imagenet") -> DeepResNet:
    """ResNet-50: 25.5 million weights and 4.089 GMAC at width 64, 1000 classes, 224 pixels."""
    depths = (3, 4, 6, 3)
    return DeepResNet(Bottleneck, depths, num_classes=num_classes, in_channels=in_channels, width=width, stem=stem)
