"""Delayed match to sample: are two stimuli, with a delay between them, the same?

The rate-network form of a classic of working memory; with two stimuli it is a delayed exclusive or, which no linear
read-out of a linear memory can solve. Used for learning by perturbation by Miconi 2017,
https://doi.org/10.7554/eLife.20899, whose times are in milliseconds; here they are in steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from rulezoo import Budget, Data, Split, hp
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.networks import LeakyRNN

STIMULI = 2
SHOWN = 2  #: steps for which a stimulus is shown
WAIT = 2  #: steps between the end of the second stimulus and the answer
STRENGTH, NOISE = 0.75, 0.25  #: of a stimulus on its channel; half-width of the uniform noise on all channels
_DATA_SEED = 20170223
_SIZES = (2000, 500, 1000)


def trials(number: int, delay: int, gen: torch.Generator) -> Split:
    """``number`` trials of two stimuli, ``delay`` steps apart; targets are 1 where they match, else 0.

    Inputs are ``(number, 2 * SHOWN + delay + WAIT, STIMULI)``. The four pairs are equally frequent, up to rounding.
    """
    pair = (torch.arange(number) % STIMULI**2)[torch.randperm(number, generator=gen)]
    sample, test = pair // STIMULI, pair % STIMULI
    steps = 2 * SHOWN + delay + WAIT
    x = (2 * torch.rand(number, steps, STIMULI, generator=gen) - 1) * NOISE
    for stimulus, start in ((sample, 0), (test, SHOWN + delay)):
        x[torch.arange(number), start : start + SHOWN, stimulus] += STRENGTH
    return Split(x, (sample == test).long())


@dataclass(frozen=True)
class DelayedMatchRNN(Classification):
    """Inputs ``(batch, 12, 2)`` at the default delay; the answer, match or not, comes at the end."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")
    chance: ClassVar[float] = 0.5
    classes: ClassVar[int | None] = 2

    width: int = hp(64, "hidden units", low=1)
    leak: float = hp(0.2, "share of the state that is new at each step", low=0.01, high=1)
    delay: int = hp(6, "steps between the end of one stimulus and the start of the other", low=0, high=1000)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """2,000 / 500 / 1,000 trials from a fixed seed; ``root`` and ``download`` are not needed."""
        gen = torch.Generator().manual_seed(_DATA_SEED)
        return Data(*(trials(number, self.delay, gen) for number in _SIZES))

    def network(self) -> nn.Module:
        """A leaky recurrent network, read out after the last step."""
        return LeakyRNN(STIMULI, self.width, 2, self.leak, every_step=False)
