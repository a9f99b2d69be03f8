"""The 3-bit flip-flop: hold the sign of the last pulse on each channel.

Sussillo & Barak (2013), Opening the black box, Neural Computation 25:626, https://doi.org/10.1162/NECO_a_00409.
Here time is in steps rather than continuous, and every channel starts with a pulse, so that a target always exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rulezoo import Budget, Data, Split, Task, hp
from rulezoo_tasks.networks import LeakyRNN

BITS = 3
STEPS = 20
PULSE = 0.15  #: probability of a pulse per bit and step, after the first
_DATA_SEED = 20130301
_SIZES = (2000, 500, 1000)


def pulses(sequences: int, gen: torch.Generator) -> Tensor:
    """Inputs of shape ``(sequences, STEPS, BITS)``: 0, or a pulse of +1 or -1; a pulse at step 0 on every bit."""
    shape = (sequences, STEPS, BITS)
    sign = torch.randint(2, shape, generator=gen) * 2 - 1
    present = torch.rand(shape, generator=gen) < PULSE
    present[:, 0] = True
    return (sign * present).float()


def last_pulse(x: Tensor) -> Tensor:
    """The last pulse so far on each bit, of the shape of ``x``, ``(sequences, time, bits)``; 0 before the first."""
    steps = torch.arange(x.shape[1]).view(1, -1, 1)
    latest = torch.where(x != 0, steps, 0).cummax(1).values
    return x.gather(1, latest)


@dataclass(frozen=True)
class FlipFlopRNN(Task):
    """Inputs and targets ``(batch, 20, 3)``; the error counts at every step."""

    budget: ClassVar[Budget] = Budget(epochs=10, batch=64, lr=1e-2, schedule="cosine")
    metric: ClassVar[str] = "bits held"
    chance: ClassVar[float] = 0.5
    targets: ClassVar[Literal["labels", "numbers"] | None] = "numbers"

    width: int = hp(64, "hidden units", low=1)
    leak: float = hp(0.5, "share of the state that is new at each step", low=0.01, high=1)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """2,000 / 500 / 1,000 sequences from a fixed seed; ``root`` and ``download`` are not needed."""
        gen = torch.Generator().manual_seed(_DATA_SEED)
        inputs = (pulses(sequences, gen) for sequences in _SIZES)
        return Data(*(Split(x, last_pulse(x)) for x in inputs))

    def network(self) -> nn.Module:
        """A leaky recurrent network, read out at every step."""
        return LeakyRNN(BITS, self.width, BITS, self.leak, every_step=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error of each example, averaged over time and bits, ``(batch,)``."""
        return (output - target).square().mean((-2, -1))

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Share of time steps and bits whose sign is right, of each example, ``(batch,)``."""
        return (output * target > 0).to(output.dtype).mean((-2, -1))
