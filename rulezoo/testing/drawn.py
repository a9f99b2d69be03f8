"""Tiny networks of the known kinds whose sizes, names, number of classes and data are drawn from a seed.

No rule knows them by heart, so what it does on them is what it does on a network that it has never met.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rulezoo.net import Site
from rulezoo.options import hp
from rulezoo.rule import Batch
from rulezoo.testing.nets import SPIKING, TinyNet, TinyRNN, TinyTask, net_of, tiny_snn
from rulezoo.testing.networks import Network

_APART = 1_000_003  # between the seeds of data of two drawn networks


class _Sizes(NamedTuple):
    """Of a drawn network."""

    inputs: tuple[int, ...]
    widths: tuple[int, int]
    classes: int

    @classmethod
    def of(cls, kind: str, seed: int) -> _Sizes:
        """Wide enough that a few passes leave some directions of every layer's input free."""
        draw = random.Random(f"{kind} {seed}").randint
        classes = draw(3, 5)
        if kind == "mlp":
            return cls((draw(6, 12),), (draw(24, 32), draw(20, 28)), classes)
        if kind == "cnn":
            channels = draw(6, 8)
            return cls((draw(1, 2), 6, 6), (channels, channels), classes)
        width = draw(20, 28)
        steps = draw(5, 6) if kind in SPIKING else draw(3, 4)
        return cls((steps, draw(4, 6)), (width, width), classes)


class _Skip(nn.Module):
    """A connection that skips a module."""

    def __init__(self, around: nn.Module) -> None:
        super().__init__()
        self.around = around

    def forward(self, x: Tensor) -> Tensor:
        """What the module computes, plus its input."""
        output: Tensor = x + self.around(x)
        return output


@dataclass(frozen=True)
class DrawnTask(TinyTask):
    """A `TinyTask` of drawn sizes."""

    seed: int = hp(1, "what sizes and data are drawn from", low=0)

    @property
    def sizes(self) -> _Sizes:
        """Of the network."""
        return _Sizes.of(self.kind, self.seed)

    @property
    def labels(self) -> int:
        """See `TinyTask.labels`."""
        return self.sizes.classes

    @property
    def in_shape(self) -> tuple[int, ...]:
        """See `TinyTask.in_shape`."""
        return self.sizes.inputs

    def generator(self, seed: int) -> torch.Generator:
        """See `TinyTask.generator`."""
        return super().generator(seed + _APART * (self.seed + 1))

    def network(self) -> nn.Module:
        """See `Task.network`; sites and layers have other names than those of the standard networks."""
        inputs, (first, second), classes = self.sizes
        if self.kind.startswith("rnn"):
            every_step = self.kind == "rnn-every-step"
            return TinyRNN(every_step=every_step, inputs=inputs[1], width=first, classes=classes)
        if self.kind in SPIKING:
            return tiny_snn(self.kind, inputs[1], first, classes)
        if self.kind == "mlp":
            return nn.Sequential(
                nn.Linear(inputs[0], first), Site("pre"), nn.Tanh(), Site("post"),
                nn.Linear(first, second), Site("pre"), nn.Tanh(), Site("post"),
                nn.Linear(second, classes),
            )  # fmt: skip
        around = nn.Sequential(nn.Conv2d(first, first, 3, padding=1), Site("pre"), nn.ReLU())
        return nn.Sequential(
            nn.Conv2d(inputs[0], first, 3, padding=1), Site("pre"), nn.ReLU(), nn.MaxPool2d(2), Site("post"),
            _Skip(around), Site("post"),
            nn.Flatten(), nn.Linear(first * 3 * 3, classes),
        )  # fmt: skip


@cache
def drawn_net(kind: str, seed: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> TinyNet:
    """A tiny network of a kind, of drawn sizes."""
    return net_of(_task(kind, seed), dtype, device)


def _task(kind: str, seed: int) -> DrawnTask:
    own = {"classes": _Sizes.of(kind, seed).classes}  # which a task declares as a variable of its class
    made: DrawnTask = type("DrawnTask", (DrawnTask,), own)(kind, seed)
    return made


def is_drawn(network: object) -> bool:
    """Whether a network is one of drawn sizes."""
    return isinstance(network, TinyNet) and isinstance(network.task, DrawnTask)


def title(network: Network) -> str:
    """What messages call a network."""
    task = network.task
    return f"{network.name} of seed {task.seed}" if isinstance(task, DrawnTask) else network.name


def practice(network: Network, size: int, seed: int) -> Batch:
    """Examples to learn within a small budget: `TinyTask.practice`, or any batch of another network."""
    if not isinstance(network, TinyNet):
        return network.batch(size, seed)
    x, y = network.task.practice(size, seed)
    return Batch(x.to(network.net.example), y.to(network.net.example.device))
