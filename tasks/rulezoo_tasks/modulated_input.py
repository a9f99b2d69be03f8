"""CIFAR-10 by one hidden layer of 1,024 rectified units, in the setting of PEPITA's public code.

Dellaferrera & Kreiman 2022, https://arxiv.org/abs/2201.11665, and the notebook with its printed output in their code,
https://github.com/GiorgiaD/PEPITA: pixels in [0, 1]; 3072-1024-10 without biases; weights uniform with variance 2/inputs;
softmax; a tenth of the hidden units silent, the same in both passes; SGD with momentum 0.9 and batches of 64 for 100
epochs, learning rate 0.01, lowered to a tenth after 60 epochs and again after 90. The notebook prints the test accuracy of
one network after each epoch.

Deviations: 1,000 training images are held out, since every task has a validation part. In the notebook the read-out learns
from hidden activity before dropout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn

from rulezoo import Budget, Data, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.images import CIFAR10
from rulezoo_tasks.public_settings import dense, first, parts

_HELD_OUT = 1_000


@dataclass(frozen=True)
class CIFAR10ReLUMLP(Classification):
    """CIFAR-10, inputs ``(batch, 3, 32, 32)`` in [0, 1]; 3072-1024-10. Published, one network: PEPITA 52.58 %."""

    budget: ClassVar[Budget] = Budget(
        epochs=100,
        batch=64,
        lr=0.01,
        optimizer="SGD",
        optimizer_options={"momentum": 0.9},
        schedule="MultiStepLR",
        schedule_options={"milestones": [60, 90]},
        schedule_per="epoch",
    )

    examples: int | None = hp(
        None, "training examples that are used, the first of a fixed order; none = all", low=128
    )

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """All training images but 1,000 of a fixed shuffle, these 1,000 for validation, the test images."""
        return first(parts(CIFAR10, root, download=download, held_out=_HELD_OUT), self.examples)

    def network(self) -> nn.Module:
        """One hidden layer of 1,024 rectified units with dropout; no biases."""
        return dense((3072, 1024, 10), nn.ReLU, _he, bias=False, dropout=0.1)


def _he(layer: nn.Linear) -> None:
    limit = (6 / layer.in_features) ** 0.5
    nn.init.uniform_(layer.weight, -limit, limit)
