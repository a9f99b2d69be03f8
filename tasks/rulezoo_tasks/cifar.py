"""CIFAR-10 and CIFAR-100 as the literature trains on them: augmented, with the budgets of published results.

Images are kept as bytes; crops of 32×32 from images padded by 4 pixels and mirror images are drawn for each example
and epoch, the same for every rule. He, Zhang, Ren & Sun 2016, https://arxiv.org/abs/1512.03385, section 4.2; Sanfiz &
Akrout 2021 (BioTorch), https://arxiv.org/abs/2108.13446.

Deviations: images are standardised by channel, where He et al. subtract the mean of each pixel; the 5,000 images for
validation are another fixed draw than theirs; a last batch of fewer than 128 images is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from rulezoo import Budget, Data, Split, add_sites, datasets, hp
from rulezoo_tasks.architectures import ResNet20, lenet
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.images import CIFAR10, Source

CIFAR100 = Source("CIFAR100", "cifar-100-python", ("train", "test", "meta"))

_SPLIT_SEED = 0
_EXAMPLES = "training examples that are used, the first of a fixed order; none = all"
_AUGMENT = "whether training images are cropped and mirrored at random"
_WIDTH = "factor on the width of every hidden layer"
_PADDING = 4


@dataclass(frozen=True)
class _CIFAR(Classification):
    """Stored images are uint8 of ``(3, 32, 32)``; inputs ``(batch, 3, 32, 32)``, standardised by channel."""

    source: ClassVar[Source] = CIFAR10
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4821, 0.4465)  # of the training images, in [0, 1]
    sd: ClassVar[tuple[float, ...]] = (0.2470, 0.2435, 0.2616)

    width: float = hp(1.0, _WIDTH, low=0.125, high=8)
    augment: bool = hp(True, _AUGMENT)
    examples: int | None = hp(None, _EXAMPLES, low=128, high=45_000)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """45,000 / 5,000 / 10,000 images: the last tenth of a fixed shuffle of the training images is for validation."""
        original, test = self.source.read(root, download=download)
        order = torch.randperm(len(original.y), generator=torch.Generator().manual_seed(_SPLIT_SEED))
        held_out = len(order) // 10
        train, validation = order[:-held_out][: self.examples], order[-held_out:]
        return Data(
            train=Split(original.x[train], original.y[train]),
            validation=Split(original.x[validation], original.y[validation]),
            test=Split(test.x.contiguous(), test.y),
        )

    def prepare(self, x: Tensor, draw: datasets.Draw | None) -> Tensor:
        """Crop, mirror and standardise; only standardise for evaluation."""
        if draw is not None and self.augment:
            x = datasets.flip(datasets.crop(x, draw, padding=_PADDING), draw)
        return datasets.standardise(x.float() / 255, self.mean, self.sd)


def _steps(optimizer: str, lr: float, epochs: int, milestones: tuple[int, ...], **options: float) -> Budget:
    """A tenth of the learning rate after each milestone, in epochs; weight decay 1e-4."""
    return Budget(
        epochs=epochs,
        batch=128,
        lr=lr,
        optimizer=optimizer,
        optimizer_options=options,
        weight_decay=1e-4,
        schedule="MultiStepLR",
        schedule_options={"milestones": list(milestones), "gamma": 0.1},
        schedule_per="epoch",
    )


@dataclass(frozen=True)
class CIFAR10ResNet20(_CIFAR):
    """CIFAR-10 with ResNet-20 as in He et al. 2016: 64,000 steps, a tenth of the learning rate after 32,000 and 48,000.

    Published: 8.75 % error by backprop.
    """

    budget: ClassVar[Budget] = _steps("SGD", 0.1, 182, (91, 137), momentum=0.9)

    def network(self) -> nn.Module:
        """A site behind every convolution, 19 in all."""
        return add_sites(ResNet20(self.classes or 10, self.width))


@dataclass(frozen=True)
class CIFAR100ResNet20(CIFAR10ResNet20):
    """CIFAR-100 with ResNet-20, trained as on CIFAR-10."""

    source: ClassVar[Source] = CIFAR100
    classes: ClassVar[int | None] = 100
    chance: ClassVar[float] = 0.01
    mean: ClassVar[tuple[float, ...]] = (0.5071, 0.4867, 0.4408)
    sd: ClassVar[tuple[float, ...]] = (0.2675, 0.2565, 0.2761)


@dataclass(frozen=True)
class CIFAR10LeNet(_CIFAR):
    """CIFAR-10 with BioTorch's LeNet, trained by Adam as there: 250 epochs, a tenth of the rate after 100, 150 and 200.

    Published error of one seed with Adam: backprop 15.92 %, FA 40.67, DFA 37.59, uSF 16.34, brSF 17.08, frSF 16.83. There
    feedback alignment and direct feedback alignment have a learning rate of 1e-4 (``-o feedback-alignment.lr=1e-4``).
    """

    budget: ClassVar[Budget] = _steps("Adam", 1e-3, 250, (100, 150, 200))

    def network(self) -> nn.Module:
        """Three convolutions and a dense layer; a site behind each."""
        return add_sites(lenet(self.classes or 10, self.width))
