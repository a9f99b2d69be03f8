"""scikit-learn's handwritten digits by a multilayer perceptron; the images are those of `rulezoo_tasks.digits`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import nn

from rulezoo import Budget, Data, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.digits import digits
from rulezoo_tasks.networks import MLP


@dataclass(frozen=True)
class DigitsMLP(Classification):
    """Inputs ``(batch, 8, 8)``; two dense layers of 128 units."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")

    width: int = hp(128, "units of each hidden layer", low=1)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The digits; ``root`` and ``download`` are not needed."""
        return digits()

    def network(self) -> nn.Module:
        """64 pixels, two dense hidden layers, 10 classes."""
        return MLP((64, self.width, self.width, 10))
