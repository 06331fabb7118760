"""Residual networks for small pictures (He et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2)."""

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; a 1x1 convolution on the shortcut where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity()
            if same_shape
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, ceil(H / stride), ceil(W / stride)]."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A stem, three stages of equal depth at widths w, 2w, 4w, global average pooling, one Linear."""

    def __init__(self, blocks_per_stage: int, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.stages = nn.Sequential(
            *(
                BasicBlock(width << max(stage - (block == 0), 0), width << stage, 2 if stage and block == 0 else 1)
                for stage in range(3)
                for block in range(blocks_per_stage)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width << 2, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W], H and W at least 1 -> logits [N, num_classes]."""
        out = self.stages(self.relu(self.bn(self.conv(x))))
        return self.fc(self.pool(out).flatten(1))  # type: ignore[no-any-return]


def resnet8(num_classes: int, in_channels: int = 3, width: int = 16) -> ResNet:
    """ResNet-8: one block per stage, 78 000 weights at width 16."""
    return ResNet(1, num_classes, in_channels, width)


def resnet20(num_classes: int, in_channels: int = 3, width: int = 16) -> ResNet:
    """ResNet-20: three blocks per stage, 272 000 weights at width 16."""
    return ResNet(3, num_classes, in_channels, width)
