"""Image classification on data that torchvision reads: MNIST, Fashion-MNIST and CIFAR-10."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn

from rulezoo import Budget, Data, Split, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.images import CIFAR10, FASHION_MNIST, MNIST, Source, split
from rulezoo_tasks.networks import MLP, ConvNet, LeakyRNN

_EXAMPLES = "training examples that are used, the first of a fixed order; none = all"


@dataclass(frozen=True)
class _Vision(Classification):
    """Inputs ``(batch, channels, height, width)``, standardised with the training data's mean and sd per channel."""

    source: ClassVar[Source]
    examples: int | None

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The images, the last tenth of a fixed shuffle of the training images being the validation part."""
        return split(*self.source.read(root, download=download), examples=self.examples)


@dataclass(frozen=True)
class MNISTMLP(_Vision):
    """MNIST, 784-512-256-10."""

    budget: ClassVar[Budget] = Budget(epochs=10, batch=128, lr=1e-3, schedule="cosine")
    source: ClassVar[Source] = MNIST

    examples: int | None = hp(None, _EXAMPLES, low=128, high=54_000)

    def network(self) -> nn.Module:
        """Two dense hidden layers."""
        return MLP((784, 512, 256, 10))


@dataclass(frozen=True)
class FashionCNN(_Vision):
    """Fashion-MNIST, convolutions of 32 and 64 channels, a dense layer of 128 units."""

    budget: ClassVar[Budget] = Budget(epochs=10, batch=128, lr=1e-3, schedule="cosine")
    source: ClassVar[Source] = FASHION_MNIST

    examples: int | None = hp(None, _EXAMPLES, low=128, high=54_000)

    def network(self) -> nn.Module:
        """Two convolutions with pooling and a dense layer."""
        return ConvNet((1, 28, 28), (32, 64), pool=(True, True), hidden=128, classes=10)


@dataclass(frozen=True)
class FashionRNN(_Vision):
    """Fashion-MNIST read row by row: inputs ``(batch, 28, 28)``, a step for each row; the answer comes at the end."""

    budget: ClassVar[Budget] = Budget(epochs=10, batch=128, lr=1e-3, schedule="cosine")
    source: ClassVar[Source] = FASHION_MNIST

    width: int = hp(128, "hidden units", low=1)
    leak: float = hp(0.5, "share of the state that is new at each step", low=0.01, high=1)
    examples: int | None = hp(None, _EXAMPLES, low=128, high=54_000)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The images of `FashionCNN` without their channel axis."""
        return Data(*(Split(part.x.squeeze(1), part.y) for part in super().data(root, download=download)))

    def network(self) -> nn.Module:
        """A leaky recurrent network, read out after the last row."""
        return LeakyRNN(28, self.width, 10, self.leak, every_step=False)


@dataclass(frozen=True)
class CIFAR10CNN(_Vision):
    """CIFAR-10, convolutions of 64, 128 and 256 channels, a dense layer of 512 units.

    At ``width=1`` the sites have 16,384, 8,192, 4,096 and 512 units.
    """

    budget: ClassVar[Budget] = Budget(epochs=20, batch=128, lr=1e-3, schedule="cosine")
    source: ClassVar[Source] = CIFAR10

    width: float = hp(1.0, "factor on the width of every hidden layer", low=0.25, high=8)
    examples: int | None = hp(None, _EXAMPLES, low=128, high=45_000)

    def network(self) -> nn.Module:
        """Three convolutions with pooling and a dense layer."""
        *channels, hidden = (round(n * self.width) for n in (64, 128, 256, 512))
        return ConvNet((3, 32, 32), channels, pool=(True, True, True), hidden=hidden, classes=10)
