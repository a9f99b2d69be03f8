"""scikit-learn's handwritten digits, at once by a convolutional network or row by row by a recurrent one.

Alpaydin & Kaynak (1998), https://doi.org/10.24432/C50P49: 1,797 images of 8×8 pixels, part of scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from rulezoo import Budget, Data, Split, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.networks import ConvNet, LeakyRNN

_SPLIT_SEED = 0


def digits() -> Data:
    """1,257 / 180 / 360 images, stratified by class; ``x`` is ``(examples, 8, 8)`` in [0, 1]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().div(16).view(-1, 8, 8)  # ink is counted from 0 to 16
    y = torch.from_numpy(labels).long()
    rest, test = train_test_split(range(len(y)), test_size=360, stratify=y, random_state=_SPLIT_SEED)
    train, validation = train_test_split(rest, test_size=180, stratify=y[rest], random_state=_SPLIT_SEED)
    return Data(*(Split(x[part], y[part]) for part in (train, validation, test)))


@dataclass(frozen=True)
class DigitsCNN(Classification):
    """Inputs ``(batch, 1, 8, 8)``; two convolutions of 16 channels, the second pooled; 128 dense units."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")

    width: float = hp(1.0, "factor on the width of every hidden layer", low=0.25, high=8)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The digits with a channel axis; ``root`` and ``download`` are not needed."""
        return Data(*(Split(part.x.unsqueeze(1), part.y) for part in digits()))

    def network(self) -> nn.Module:
        """Two convolutions and a dense layer: 1,024, 256 and 128 units at the default width."""
        *channels, hidden = (round(n * self.width) for n in (16, 16, 128))
        return ConvNet((1, 8, 8), channels, pool=(False, True), hidden=hidden, classes=10)


@dataclass(frozen=True)
class DigitsRNN(Classification):
    """Inputs ``(batch, 8, 8)``: eight steps of eight pixels, from the top row down; the answer comes at the end."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")

    width: int = hp(128, "hidden units", low=1)
    leak: float = hp(0.7, "share of the state that is new at each step", low=0.01, high=1)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The digits, a row being a step; ``root`` and ``download`` are not needed."""
        return digits()

    def network(self) -> nn.Module:
        """A leaky recurrent network, read out after the last row."""
        return LeakyRNN(8, self.width, 10, self.leak, every_step=False)
