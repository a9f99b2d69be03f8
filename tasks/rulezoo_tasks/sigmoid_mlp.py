"""Sigmoid networks with one hidden layer on MNIST and CIFAR-10, in the setting of the weight mirror's public code.

Akrout, Wilson, Humphreys, Lillicrap & Tweed 2019, https://arxiv.org/abs/1904.05391; the settings and, epoch by epoch, the
accuracies of one seed are in the logs of the code that its authors published: pixels in [0, 1]; 784-500-10 and 3072-1000-10;
sigmoid units in the hidden and the output layer; the cross-entropy of every output unit, summed; weights and biases
normal with variance 1/(inputs + outputs) of their layer; plain SGD with batches of 128 for 400 epochs, learning rate 0.2 for
backprop and feedback alignment, 0.05 for the weight mirror and 0.3 for Kolen-Pollack, without decay.

Deviations: 1,000 training images are held out, since every task has a validation part; biases learn at the rate of the
weights, there at 1/128 of it; a last batch of fewer than 128 images is dropped, as there.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Budget, Data, Site, Split, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.images import CIFAR10, MNIST, Source

_SPLIT_SEED = 0
_HELD_OUT = 1_000


@dataclass(frozen=True)
class _SigmoidMLP(Classification):
    """Inputs ``(batch, channels, height, width)`` in [0, 1], outputs ``(batch, 10)``: the drives of the output units."""

    budget: ClassVar[Budget] = Budget(epochs=400, batch=128, lr=0.2, optimizer="SGD")
    source: ClassVar[Source]
    shape: ClassVar[tuple[int, int, int]]
    hidden: ClassVar[int]

    examples: int | None = hp(
        None, "training examples that are used, the first of a fixed order; none = all", low=128
    )

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """All training images but 1,000 of a fixed shuffle, these 1,000 for validation, the test images."""
        original, test = self.source.read(root, download=download)
        order = torch.randperm(len(original.y), generator=torch.Generator().manual_seed(_SPLIT_SEED))
        held_out = min(_HELD_OUT, len(order) // 2)
        train, validation = order[:-held_out][: self.examples], order[-held_out:]

        def part(x: Tensor, y: Tensor) -> Split:
            return Split((x.float() / 255).contiguous(), y)

        return Data(
            train=part(original.x[train], original.y[train]),
            validation=part(original.x[validation], original.y[validation]),
            test=part(test.x, test.y),
        )

    def network(self) -> nn.Module:
        """One hidden layer of sigmoid units with a ``pre`` and a ``post`` site; a read-out."""
        widths = (prod(self.shape), self.hidden, self.classes or 10)
        fc, readout = (_linear(n_in, n_out) for n_in, n_out in pairwise(widths))
        hidden = OrderedDict(layer=fc, pre=Site("pre"), sigmoid=nn.Sigmoid(), post=Site("post"))
        return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Sequential(hidden), readout=readout))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each output unit against 1 for its class and 0 for others, summed, ``(batch,)``, in nats."""
        hot = F.one_hot(target, output.shape[-1]).to(output.dtype)
        return F.binary_cross_entropy_with_logits(output, hot, reduction="none").sum(-1)


@dataclass(frozen=True)
class MNISTSigmoidMLP(_SigmoidMLP):
    """MNIST, 784-500-10. Published, one seed, 400 epochs: backprop 98.50 %, weight mirror 98.49, Kolen-Pollack 98.45, FA 97.80."""

    source: ClassVar[Source] = MNIST
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    hidden: ClassVar[int] = 500


@dataclass(frozen=True)
class CIFAR10SigmoidMLP(_SigmoidMLP):
    """CIFAR-10, 3072-1000-10. Published, one seed, at its best epoch: weight mirror 52.40 %, backprop 51.97, Kolen-Pollack 50.67, FA 49.54."""

    source: ClassVar[Source] = CIFAR10
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    hidden: ClassVar[int] = 1000


def _linear(n_in: int, n_out: int) -> nn.Linear:
    layer = nn.Linear(n_in, n_out)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=(n_in + n_out) ** -0.5)
    return layer
