"""Dense networks and 1,000 updates, in the setting of the public code of conditioned direct feedback alignment.

Safaai, Reddy & Sabatini 2026, https://github.com/KempnerInstitute/conditioned-dfa: entries P6 and P7 of its scorecard of
predictions, which were registered before the runs. P6 is Fashion-MNIST and 784-300-300-300-10, tanh units, weights
uniform with variance 2/(inputs + outputs), sigmoid outputs with the cross-entropy of each, summed, learning rate
0.001. P7 is MNIST and 784-256-128-10, rectified units, weights normal with variance 2/inputs, softmax, learning rate
0.03. Both: pixels in [0, 1], biases that start at 0, 5,000 training images held out, 1,000 steps of plain SGD with batches
of 128 that are drawn with replacement, feedback weights with a standard deviation of 1, which is what rules of this zoo with
feedback weights of 1/√units have here (`public_settings.dense`, ``unit_feedback``).

Deviations: which images are drawn is the same for every seed, whose order differs; there, the seed decides both. Means there
are over three feedback matrices for each of five (P6) or eight (P7) networks; here every seed has its own of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Budget, Data, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.images import FASHION_MNIST, MNIST, Source
from rulezoo_tasks.public_settings import dense, drawn, parts

_HELD_OUT = 5_000


@dataclass(frozen=True)
class _ThousandUpdates(Classification):
    """Inputs ``(batch, 1, 28, 28)`` in [0, 1]; one pass through the examples drawn is 1,000 batches."""

    source: ClassVar[Source]

    examples: int = hp(128_000, "training examples, drawn with replacement from 55,000 images", low=128)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """55,000 training images, of which examples are drawn with replacement; 5,000; the test images."""
        return drawn(parts(self.source, root, download=download, held_out=_HELD_OUT), self.examples)


@dataclass(frozen=True)
class FashionTanhMLP(_ThousandUpdates):
    """Fashion-MNIST, 784-300-300-300-10, tanh. Published: DFA 61.98 %; conditioned by activity 80.29, error 63.74, both 80.79."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=128, lr=1e-3, optimizer="SGD")
    source: ClassVar[Source] = FASHION_MNIST

    def network(self) -> nn.Module:
        """Three hidden layers of 300 tanh units."""
        return dense((784, 300, 300, 300, 10), nn.Tanh, _glorot, unit_feedback=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each sigmoid output against 1 for its class and 0 for others, summed, ``(batch,)``, in nats."""
        hot = F.one_hot(target, output.shape[-1]).to(output.dtype)
        return F.binary_cross_entropy_with_logits(output, hot, reduction="none").sum(-1)


@dataclass(frozen=True)
class MNISTReLUMLP(_ThousandUpdates):
    """MNIST, 784-256-128-10, ReLU. Published: DFA 87.08 %; conditioned by activity 95.81, error 94.61, both 96.71."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=128, lr=0.03, optimizer="SGD")
    source: ClassVar[Source] = MNIST

    def network(self) -> nn.Module:
        """Rectified hidden layers of 256 and 128 units."""
        return dense((784, 256, 128, 10), nn.ReLU, _he, unit_feedback=True)


def _glorot(layer: nn.Linear) -> None:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


def _he(layer: nn.Linear) -> None:
    nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5)
    nn.init.zeros_(layer.bias)
