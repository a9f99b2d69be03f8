"""The adding task: say at every step what two moments of the past, at fixed distances, amount to.

y_t = 0.5 + 0.5 x_{t-f} - 0.25 x_{t-s}, with x a sequence of fair coin flips, and silence before it begins. Pitis 2016,
https://r2rt.com/recurrent-neural-networks-in-tensorflow-i.html, there with outcomes drawn at these probabilities; used
to compare online rules by Marschall, Cho & Savin 2020, https://jmlr.org/papers/v21/19-562.html. Here the probability
itself is the target, with a squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Budget, Data, OptionError, Split, Task, hp
from rulezoo_tasks.networks import LeakyRNN

STEPS = 25
LEVELS = (0.25, 0.5, 0.75, 1.0)  #: what the four pairs of coins amount to, all equally likely
_DATA_SEED = 20160711
_SIZES = (2000, 500, 1000)


def targets(x: Tensor, first: int, second: int) -> Tensor:
    """What coin flips ``x`` of shape ``(sequences, time, 1)`` amount to, of the same shape."""

    def delayed(lag: int) -> Tensor:
        return F.pad(x, (0, 0, lag, 0))[:, : x.shape[1]]

    return 0.5 + 0.5 * delayed(first) - 0.25 * delayed(second)


@dataclass(frozen=True)
class AddingRNN(Task):
    """Inputs and targets ``(batch, 25, 1)``; the error counts at every step from the ``second`` on."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")
    metric: ClassVar[str] = "levels told"
    chance: ClassVar[float] = 1 / len(LEVELS)
    targets: ClassVar[Literal["labels", "numbers"] | None] = "numbers"

    width: int = hp(64, "hidden units", low=1)
    leak: float = hp(0.5, "share of the state that is new at each step", low=0.01, high=1)
    first: int = hp(2, "steps back to the coin that adds a half", low=0, high=STEPS - 2)
    second: int = hp(5, "steps back to the coin that takes a quarter; more than first", low=1, high=STEPS - 1)

    def __post_init__(self) -> None:
        """Refuse coins in the wrong order."""
        super().__post_init__()
        if self.second <= self.first:
            raise OptionError(f"second must be more than first={self.first}, got {self.second}")

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """2,000 / 500 / 1,000 sequences from a fixed seed; ``root`` and ``download`` are not needed."""
        gen = torch.Generator().manual_seed(_DATA_SEED)
        coins = (torch.randint(2, (n, STEPS, 1), generator=gen).float() for n in _SIZES)
        return Data(*(Split(x, targets(x, self.first, self.second)) for x in coins))

    def network(self) -> nn.Module:
        """A leaky recurrent network, read out at every step."""
        return LeakyRNN(1, self.width, 1, self.leak, every_step=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error of each example, averaged over the steps that count, ``(batch,)``."""
        return (output - target)[:, self.second :].square().mean((-2, -1))

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Share of the steps that count at which the output is nearest to the right level, ``(batch,)``.

        Whoever remembers neither coin gets a quarter, and whoever remembers one of them a half.
        """
        levels = output.new_tensor(LEVELS)
        told = levels[(output - levels).abs().argmin(-1)]
        return (told == target.squeeze(-1)).to(output.dtype)[:, self.second :].mean(-1)
