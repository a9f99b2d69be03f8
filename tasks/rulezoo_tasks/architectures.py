"""Networks of the literature, as plain torch modules: LeNet and ResNet-20 for 32 px, AlexNet and ResNet-18 for 64 px.

A task gives them sites with `rulezoo.add_sites`; the names of their parameters are those of the modules here.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn


def lenet(classes: int = 10, width: float = 1.0) -> nn.Sequential:
    """The network that BioTorch calls LeNet, for images of 3×32×32.

    Sanfiz & Akrout 2021, https://arxiv.org/abs/2108.13446: 3×3 convolutions without padding of 32, 64 and 128
    channels, the first two max-pooled and the last averaged over its map, a dense layer of 256 units. Weights are drawn
    as there: Xavier uniform, biases zero.

    Args:
        classes: units of the read-out.
        width: factor on the width of every hidden layer.
    """
    a, b, c, dense = (max(1, round(n * width)) for n in (32, 64, 128, 256))
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, a, 3),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(a, b, 3),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(b, c, 3),
            relu3=nn.ReLU(),
            pool3=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(c, dense),
            relu4=nn.ReLU(),
            fc2=nn.Linear(dense, classes),
        )
    )
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # all of them have one
    return network


class ResNet20(nn.Module):
    """The residual network of 20 layers for images of 3×32×32, about 0.27 million parameters.

    He, Zhang, Ren & Sun 2016, https://arxiv.org/abs/1512.03385, section 4.2: a convolution, three stages of three
    residual blocks with 16, 32 and 64 channels, global average pooling and a linear read-out; shortcuts without
    parameters (option A); weights drawn as by He et al. 2015.

    Args:
        classes: units of the read-out.
        width: factor on the channels of every stage.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        first, *_ = channels = [max(2, 2 * round(n * width / 2)) for n in (16, 32, 64)]
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        stages, before = [], first
        for stage, after in enumerate(channels):
            blocks = [_Block(before, after, stride=1 if stage == 0 else 2)]
            blocks += [_Block(after, after) for _ in range(2)]
            stages.append(nn.Sequential(*blocks))
            before = after
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, 3, height, width)`` → ``(batch, classes)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        output: Tensor = self.fc(x.mean((-2, -1)))
        return output


class _Block(nn.Module):
    """Two convolutions and a shortcut; where the size changes, the shortcut skips pixels and pads channels with zeros."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.more = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more or self.stride > 1:
            front = self.more // 2
            x = F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, front, self.more - front))
        return F.relu(out + x)


def alexnet(classes: int, size: int = 64, width: float = 1.0, dropout: float = 0.5) -> nn.Sequential:
    """AlexNet for small images: five convolutions and two dense layers with dropout, as in torchvision's.

    Krizhevsky 2014, https://arxiv.org/abs/1404.5997, which is torchvision's form, has its first convolution of 11×11
    with stride 4 for images of 224 px. For images of 64 px it is one of 5×5 with stride 2, for 32 px and less of 3×3
    with stride 1, so that the maps keep some extent; the dense layers are of 1,024 units instead of 4,096, since the
    last map has fewer numbers.

    Args:
        classes: units of the read-out.
        size: height and width of an image, 16 or more.
        width: factor on the width of every hidden layer.
        dropout: probability that a dense layer's input is dropped.
    """
    c1, c2, c3, c4, c5, dense = (max(1, round(n * width)) for n in (64, 192, 384, 256, 256, 1024))
    first = nn.Conv2d(3, c1, 5, stride=2, padding=2) if size > 32 else nn.Conv2d(3, c1, 3, padding=1)
    maps = (size + 1) // 2 if size > 32 else size
    for _ in range(3):
        maps //= 2
    features = nn.Sequential(
        first,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(c1, c2, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(c2, c3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c3, c4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c4, c5, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    classifier = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(c5 * maps * maps, dense),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(dense, dense),
        nn.ReLU(),
        nn.Linear(dense, classes),
    )
    return nn.Sequential(OrderedDict(features=features, flatten=nn.Flatten(), classifier=classifier))


def resnet18(classes: int, size: int = 64, width: float = 1.0) -> nn.Module:
    """Torchvision's ResNet-18; for images of 64 px and less its first convolution is 3×3 with stride 1, without pooling.

    Args:
        classes: units of the read-out.
        size: height and width of an image.
        width: factor on the channels of every stage.
    """
    from torchvision.models.resnet import BasicBlock, ResNet

    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=classes)
    channels = [max(1, round(n * width)) for n in (64, 128, 256, 512)]
    if size <= 64 or width != 1:
        kernel, stride = (3, 1) if size <= 64 else (7, 2)
        network.conv1 = nn.Conv2d(3, channels[0], kernel, stride=stride, padding=kernel // 2, bias=False)
        network.bn1 = nn.BatchNorm2d(channels[0])
    if size <= 64:
        network.maxpool = nn.Identity()
    if width != 1:
        network.inplanes = channels[0]
        for number, after in enumerate(channels, 1):
            stage = network._make_layer(BasicBlock, after, 2, stride=1 if number == 1 else 2)
            setattr(network, f"layer{number}", stage)
        network.fc = nn.Linear(channels[-1], classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network  # type: ignore[no-any-return]  # torchvision has no types
