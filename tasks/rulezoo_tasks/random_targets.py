"""Networks with one hidden layer of 500 tanh units, in the setting of the public code of DRTP.

Frenkel, Lefebvre & Bol 2021, https://doi.org/10.3389/fnins.2021.629892, and their code,
https://github.com/ChFrenkel/DirectRandomTargetProjection: pixels in [0, 1] (MNIST), or standardised with the channels' mean
and sd (CIFAR-10); weights and biases as torch draws them; sigmoid outputs, the mean of their cross-entropies; Adam.
Batch sizes and learning rates are those of the paper's table as https://github.com/fluegelk/DEFP has it in its parameters:
MNIST, batches of 60, 0.00015 for backprop and DRTP; CIFAR-10, batches of 100, 0.000015 for backprop and 0.00015 for DRTP.
That repository's tests hold what the authors' code reaches after 10 epochs, to two digits; the paper trains MNIST for
100 epochs, CIFAR-10 for 200.

Deviation: 1,000 training images are held out, since every task has a validation part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Budget, Data, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.images import CIFAR10, MNIST, Source
from rulezoo_tasks.public_settings import dense, first, parts

_HELD_OUT = 1_000


@dataclass(frozen=True)
class _TanhMLP(Classification):
    """Inputs ``(batch, channels, height, width)``, outputs ``(batch, 10)``: the drives of sigmoid units."""

    source: ClassVar[Source]
    shape: ClassVar[tuple[int, int, int]]
    mean: ClassVar[Sequence[float]] = (0.0,)
    sd: ClassVar[Sequence[float]] = (1.0,)

    examples: int | None = hp(
        None, "training examples that are used, the first of a fixed order; none = all", low=128
    )

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """All training images but 1,000 of a fixed shuffle, these 1,000 for validation, the test images."""
        data = parts(self.source, root, download=download, held_out=_HELD_OUT, mean=self.mean, sd=self.sd)
        return first(data, self.examples)

    def network(self) -> nn.Module:
        """One hidden layer of 500 tanh units."""
        return dense((prod(self.shape), 500, 10), nn.Tanh)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of the sigmoid outputs against 1 for the class and 0 for others, ``(batch,)``, in nats."""
        hot = F.one_hot(target, output.shape[-1]).to(output.dtype)
        return F.binary_cross_entropy_with_logits(output, hot, reduction="none").mean(-1)


@dataclass(frozen=True)
class MNISTTanhMLP(_TanhMLP):
    """MNIST, 784-500-10. Published, the authors' code after 10 epochs: backprop 97 %, DRTP 93."""

    budget: ClassVar[Budget] = Budget(epochs=10, batch=60, lr=1.5e-4, optimizer="Adam")
    source: ClassVar[Source] = MNIST
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)


@dataclass(frozen=True)
class CIFAR10TanhMLP(_TanhMLP):
    """CIFAR-10, 3072-500-10. Published, the authors' code after 10 epochs: backprop 42 %, DRTP 43."""

    budget: ClassVar[Budget] = Budget(epochs=10, batch=100, lr=1.5e-4, optimizer="Adam")
    source: ClassVar[Source] = CIFAR10
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    mean: ClassVar[Sequence[float]] = (125.3 / 255, 123.0 / 255, 113.9 / 255)
    sd: ClassVar[Sequence[float]] = (63.0 / 255, 62.1 / 255, 66.7 / 255)
