"""Networks of the field at the sizes that benchmarks use, as plain modules with sites."""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import add_sites


def alexnet(classes: int = 100, *, stride: int = 2, before_pooling: bool = False) -> nn.Module:
    """AlexNet for images of 64 px: torchvision's, with a first convolution of 5 × 5 and stride 2, and 3 × 3 maps at last.

    Args:
        classes: outputs.
        stride: of the first convolution; with 1 its map has 64 × 64 × 64 = 262,144 units.
        before_pooling: sites behind every ReLU, in place of what the next layer sees.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width, kernel, step, pool in (
        (64, 5, stride, True),
        (192, 5, 1, True),
        (384, 3, 1, False),
        (256, 3, 1, False),
        (256, 3, 1, True),
    ):
        layers += [nn.Conv2d(channels, width, kernel, step, kernel // 2), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if pool else []
        channels = width
    layers += (
        [nn.AdaptiveAvgPool2d(3)] if stride == 1 else []
    )  # torchvision's way to be independent of the size
    head = [nn.Dropout(), nn.Linear(256 * 9, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
    module = nn.Sequential(OrderedDict(
        features=nn.Sequential(*layers), flatten=nn.Flatten(),
        classifier=nn.Sequential(*head, nn.Linear(4096, classes)),
    ))  # fmt: skip
    return add_sites(module, {nn.ReLU: "post"} if before_pooling else None)


class Block(nn.Module):
    """Two 3 × 3 convolutions with BatchNorm, and a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.more = stride, width - channels

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        if self.more:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(h + shortcut)


def resnet20(classes: int = 10) -> nn.Module:
    """ResNet-20 for images of 32 px (He et al. 2016, section 4.2)."""
    blocks: list[nn.Module] = []
    channels = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for number in range(3):
            blocks.append(Block(channels, width, stride if number == 0 else 1))
            channels = width
    return add_sites(nn.Sequential(OrderedDict(
        conv=nn.Conv2d(3, 16, 3, 1, 1, bias=False), bn=nn.BatchNorm2d(16), relu=nn.ReLU(),
        blocks=nn.Sequential(*blocks), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        readout=nn.Linear(64, classes),
    )))  # fmt: skip
