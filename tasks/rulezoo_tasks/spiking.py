"""Two tasks for networks of spiking neurons: digits as spikes, and a cue that has to be recalled after a delay.

How an image becomes spikes, one input channel for each pixel: by rate, a pixel spikes at each step with a probability that
is its brightness; or by latency, it spikes once, the earlier the brighter it is, and a black pixel not at all (the two codes
of snnTorch's ``spikegen.rate`` and ``spikegen.latency`` with linear times). The random spikes of the rate code are drawn
once, with a fixed seed, and are part of the data.

Delayed recall is the store-and-recall task of Bellec, Salaj, Subramoney, Legenstein & Maass 2018
(https://arxiv.org/abs/1803.09574) with one cue in a trial and times in steps: the cue is gone long before it is asked for, so
it has to be held in spikes or in raised thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo import Budget, Data, Split, hp, nets
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.digits import digits

_CODE_SEED = 20201102
_GAIN = {"rate": 1.0, "latency": 3.0}  # of the first layer: latency-coded pixels spike once

CUES = 4
CHANNELS = 5  #: for each cue, and for the signal that asks for it
SHOWN = ASKED = 4  #: steps for which a cue is shown, and for which it is asked for
ACTIVE, SILENT = 0.4, 0.02  #: probability that a channel spikes at a step, within its time and outside of it
_RECALL_SEED = 20180326
_SIZES = (1000, 250, 500)


def rate_code(x: Tensor, steps: int, gen: torch.Generator) -> Tensor:
    """Spikes ``(n, steps, pixels)``, each with the probability ``x``, ``(n, pixels)`` in [0, 1]."""
    return (torch.rand(len(x), steps, x.shape[1], generator=gen) < x.unsqueeze(1)).to(x.dtype)


def latency_code(x: Tensor, steps: int) -> Tensor:
    """One spike of each pixel ``(n, steps, pixels)``, at the first step where ``x`` is 1 and at the last where it is nearly 0."""
    when = ((1 - x) * (steps - 1)).round().long()
    return F.one_hot(when, steps).transpose(1, 2).to(x.dtype) * (x > 0).unsqueeze(1)


def recall_trials(number: int, delay: int, gen: torch.Generator) -> Split:
    """``number`` trials, the cues being equally frequent up to rounding; targets are the cues.

    Inputs are spikes ``(number, SHOWN + delay + ASKED, (CUES + 1) * CHANNELS)``.
    """
    cue = (torch.arange(number) % CUES)[torch.randperm(number, generator=gen)]
    chance = torch.full((number, SHOWN + delay + ASKED, CUES + 1), SILENT)
    chance[torch.arange(number), :SHOWN, cue] = ACTIVE
    chance[:, -ASKED:, CUES] = ACTIVE
    chance = chance.repeat_interleave(CHANNELS, 2)
    return Split((torch.rand(chance.shape, generator=gen) < chance).to(chance.dtype), cue)


@dataclass(frozen=True)
class DigitsSNN(Classification):
    """Inputs ``(batch, 16, 64)``: spikes of 64 pixels; two layers of spiking neurons; the answer comes at the end."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")

    code: str = hp(
        "rate", "spike code of a pixel: the number of its spikes, or the time of a single one", choices=("rate", "latency")
    )  # fmt: skip
    steps: int = hp(16, "time steps for which an image is shown", low=2, high=1000)
    width: int = hp(64, "neurons of each of the two layers", low=1)

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """The digits as spikes; ``root`` and ``download`` are not needed."""
        gen = torch.Generator().manual_seed(_CODE_SEED)
        parts = [(part.x.flatten(1), part.y) for part in digits()]
        if self.code == "latency":
            return Data(*(Split(latency_code(x, self.steps), y) for x, y in parts))
        return Data(*(Split(rate_code(x, self.steps, gen), y) for x, y in parts))

    def network(self) -> nn.Module:
        """Two layers of LIF neurons without recurrent synapses, and a leaky read-out."""
        widths = (64, self.width, self.width, 10)
        return nets.SpikingNetwork(widths, decay=0.95, readout_decay=0.95, gain=(_GAIN[self.code], 3.0))


@dataclass(frozen=True)
class RecallSNN(Classification):
    """Inputs ``(batch, 20, 25)`` at the default delay: spikes of four cues and of the signal to answer, which comes last."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")
    chance: ClassVar[float] = 1 / CUES
    classes: ClassVar[int | None] = CUES

    delay: int = hp(12, "steps between the end of the cue and the signal to answer", low=0, high=1000)
    width: int = hp(64, "neurons", low=1)
    adaptation: float = hp(
        0.5,
        "increase of a neuron's threshold by one of its spikes, in units of the threshold",
        low=0,
        high=10,
    )

    def data(self, root: Path | None, *, download: bool = False) -> Data:
        """1,000 / 250 / 500 trials from a fixed seed; ``root`` and ``download`` are not needed."""
        gen = torch.Generator().manual_seed(_RECALL_SEED)
        return Data(*(recall_trials(number, self.delay, gen) for number in _SIZES))

    def network(self) -> nn.Module:
        """One recurrent layer of LIF neurons with adaptive thresholds, and a leaky read-out."""
        widths = ((CUES + 1) * CHANNELS, self.width, CUES)
        return nets.SpikingNetwork(
            widths, recurrent=True, adaptation=self.adaptation, readout_decay=0.8, gain=1.5
        )
