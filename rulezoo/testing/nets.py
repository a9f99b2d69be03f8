"""Tiny networks with sites, and a classification task for each: small enough to test a rule on in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo.net import Net, Site, Tensors
from rulezoo.nets import SpikingNetwork
from rulezoo.options import hp
from rulezoo.rule import Batch
from rulezoo.task import Budget, Data, Split, Task

KINDS = ("mlp", "cnn", "rnn", "rnn-every-step")
SPIKING = ("snn", "snn-deep")  # for rules whose spec has the tag "snn"
CLASSES = 3
_IN_SHAPES = {
    "mlp": (5,), "cnn": (1, 6, 6), "rnn": (4, 3), "rnn-every-step": (4, 3), "snn": (6, 3), "snn-deep": (6, 3),
}  # fmt: skip
_PATTERN = 5.0  # size of the pattern in an image, where the noise is of size 1 in each pixel
_SEQUENCE = 6.0  # likewise, of the sequence that spiking networks are shown


class TinyMLP(nn.Module):
    """5 → 8 → 7 → 3 with tanh; a ``pre`` and a ``post`` site at each hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.readout = nn.Linear(5, 8), nn.Linear(8, 7), nn.Linear(7, CLASSES)
        self.pre1, self.post1, self.pre2, self.post2 = Site("pre"), Site("post"), Site("pre"), Site("post")

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, 5)`` → ``(batch, 3)``."""
        h = self.post1(torch.tanh(self.pre1(self.fc1(x))))
        h = self.post2(torch.tanh(self.pre2(self.fc2(h))))
        output: Tensor = self.readout(h)
        return output


class TinyCNN(nn.Module):
    """Two convolutions with ReLU; max-pooling after the first, a skip connection around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.readout = nn.Linear(4 * 3 * 3, CLASSES)
        self.pre1, self.post1, self.pre2, self.post2 = Site("pre"), Site("post"), Site("pre"), Site("post")

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, 1, 6, 6)`` → ``(batch, 3)``."""
        h = self.post1(F.max_pool2d(F.relu(self.pre1(self.conv1(x))), 2))
        h = self.post2(h + F.relu(self.pre2(self.conv2(h))))
        output: Tensor = self.readout(h.flatten(1))
        return output


class TinyRNN(nn.Module):
    """A leaky tanh network with a ``recurrent``, a ``pre`` and a ``post`` site, unrolled.

    Args:
        every_step: whether it is read out at every step.
        inputs: numbers of a step's input.
        width: number of units.
        classes: number of outputs.
    """

    LEAK = 0.6

    def __init__(self, *, every_step: bool, inputs: int = 3, width: int = 6, classes: int = CLASSES) -> None:
        super().__init__()
        self.every_step = every_step
        self.w_in, self.w_rec, self.w_out = (
            nn.Linear(inputs, width),
            nn.Linear(width, width, bias=False),
            nn.Linear(width, classes),
        )
        self.recurrent = Site("recurrent", unrolled=True)
        self.pre = Site("pre", unrolled=True)
        self.hidden = Site("post", unrolled=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, time, inputs)`` → ``(batch, classes)``, or ``(batch, time, classes)`` when read out at every step."""
        h, states = x.new_zeros(len(x), self.w_rec.in_features), []
        for x_t in x.unbind(1):
            pre = self.pre(self.w_rec(self.recurrent(h)) + self.w_in(x_t))
            h = self.hidden((1 - self.LEAK) * h + self.LEAK * torch.tanh(pre))
            states.append(h)
        output: Tensor = self.w_out(torch.stack(states, 1) if self.every_step else h)
        return output


def tiny_snn(kind: str, inputs: int = 3, width: int = 12, classes: int = CLASSES) -> SpikingNetwork:
    """A recurrent layer of adaptive neurons (``snn``), or two layers of neurons with fixed thresholds (``snn-deep``)."""
    deep = kind == "snn-deep"
    widths = (inputs, width, width - 1, classes) if deep else (inputs, width, classes)
    return SpikingNetwork(
        widths, recurrent=not deep, adaptation=0.0 if deep else 0.4, adaptation_decay=0.9, decay=0.8, readout_decay=0.8,
        gain=(2.0, 3.0),
    )  # fmt: skip


@dataclass(frozen=True)
class TinyTask(Task):
    """Three classes, told by a linear teacher of normally distributed inputs (of each step, where each has an output).

    Outputs are ``(batch, 3)``, targets int64 ``(batch,)``; for ``rnn-every-step`` both have a second dimension, time.
    """

    budget: ClassVar[Budget] = Budget(epochs=2, batch=16, lr=0.01)
    chance: ClassVar[float] = 1 / CLASSES
    targets: ClassVar[Literal["labels", "numbers"] | None] = "labels"
    classes: ClassVar[int | None] = CLASSES

    kind: str = hp("mlp", "which network", choices=(*KINDS, *SPIKING))

    @property
    def labels(self) -> int:
        """How many classes there are."""
        return CLASSES

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the input of one example."""
        return _IN_SHAPES[self.kind]

    def generator(self, seed: int) -> torch.Generator:
        """For data of a seed; -1 is that of the teacher."""
        return torch.Generator().manual_seed(seed)

    def draw(self, size: int, seed: int) -> Split:
        """``size`` examples in float64, the same for the same seed."""
        x = torch.randn(size, *self.in_shape, generator=self.generator(seed), dtype=torch.float64)
        seen = x if self.kind == "rnn-every-step" else x.flatten(1)
        teacher = torch.randn(seen.shape[-1], self.labels, generator=self.generator(-1), dtype=torch.float64)
        return Split(x, (seen @ teacher).argmax(-1))

    def practice(self, size: int, seed: int) -> Split:
        """Examples to learn within a small budget, by more than the read-out.

        Those of `draw`; for the convolutional network, images tiled with one 3 × 3 pattern for each class, each tile of
        a sign drawn by chance, in normally distributed noise; for spiking networks, one sequence for each class, of a
        sign drawn by chance, in such noise.
        """
        if self.kind in SPIKING:
            return self._sequences(size, seed)
        if self.kind != "cnn":
            return self.draw(size, seed)
        patterns = torch.randn(self.labels, 3, 3, generator=self.generator(-1), dtype=torch.float64)
        patterns = patterns - patterns.mean((1, 2), keepdim=True)
        patterns = _PATTERN * patterns / patterns.norm(dim=(1, 2), keepdim=True)
        gen = self.generator(seed)
        y = torch.randint(self.labels, (size,), generator=gen)
        signs = 2.0 * torch.randint(2, (size, 1, 2, 2), generator=gen, dtype=torch.float64) - 1
        noise = torch.randn(size, *self.in_shape, generator=gen, dtype=torch.float64)
        tiles = patterns[y].repeat(1, 2, 2).unsqueeze(1)
        return Split(tiles * signs.repeat_interleave(3, 2).repeat_interleave(3, 3) + noise, y)

    def _sequences(self, size: int, seed: int) -> Split:
        patterns = torch.randn(self.labels, *self.in_shape, generator=self.generator(-1), dtype=torch.float64)
        patterns = _SEQUENCE * patterns / patterns.flatten(1).norm(dim=1).view(-1, 1, 1)
        gen = self.generator(seed)
        y = torch.randint(self.labels, (size,), generator=gen)
        signs = 2.0 * torch.randint(2, (size, 1, 1), generator=gen, dtype=torch.float64) - 1
        noise = torch.randn(size, *self.in_shape, generator=gen, dtype=torch.float64)
        return Split(patterns[y] * signs + noise, y)

    def data(self, root: Path | None = None, *, download: bool = False) -> Data:
        """96, 48 and 48 examples in float32; see `Task.data`."""
        splits = [self.draw(size, seed) for seed, size in enumerate((96, 48, 48))]
        return Data(*(Split(x.float(), y) for x, y in splits))

    def network(self) -> nn.Module:
        """The tiny network, in torch's default dtype; see `Task.network`."""
        if self.kind.startswith("rnn"):
            return TinyRNN(every_step=self.kind == "rnn-every-step")
        if self.kind in SPIKING:
            return tiny_snn(self.kind)
        return TinyMLP() if self.kind == "mlp" else TinyCNN()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy in nats, ``(batch,)``; the mean over time where there is time."""
        losses = F.cross_entropy(output.flatten(0, -2), target.flatten(), reduction="none")
        return losses.view(len(target), -1).mean(1)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """The share of right answers of each example, ``(batch,)``."""
        return (output.argmax(-1) == target).to(output.dtype).view(len(target), -1).mean(1)


class TinyNet(NamedTuple):
    """A tiny network with everything that a step needs.

    Attributes:
        name: one of `KINDS` or `SPIKING`.
        net: the network.
        task: its task; ``task.loss`` is a loss per example.
    """

    name: str
    net: Net
    task: TinyTask

    def params(self, seed: int = 0) -> Tensors:
        """Initial parameters, the same for the same seed; torch's global generator is left alone."""
        like = next(self.net.module.parameters())
        return {n: p.detach().to(like) for n, p in _module(self.task, seed).named_parameters()}

    def batch(self, size: int = 12, seed: int = 0) -> Batch:
        """``size`` examples, the same for the same seed."""
        x, y = self.task.draw(size, seed)
        return Batch(x.to(self.net.example), y.to(self.net.example.device))

    def to(self, dtype: torch.dtype, device: str = "cpu") -> TinyNet:
        """The same network in another type, or elsewhere."""
        return net_of(self.task, dtype, device)


def tiny_nets(dtype: torch.dtype = torch.float64, device: str = "cpu") -> dict[str, TinyNet]:
    """A multilayer perceptron, a convolutional and two recurrent networks with sites, by name."""
    return {kind: tiny_net(kind, dtype, device) for kind in KINDS}


def tiny_net(kind: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> TinyNet:
    """One of the `tiny_nets`, or of the tiny spiking networks: ``snn``, ``snn-deep``."""
    return net_of(TinyTask(kind), dtype, device)


def net_of(task: TinyTask, dtype: torch.dtype = torch.float64, device: str = "cpu") -> TinyNet:
    """The network of a tiny task."""
    example = task.draw(1, seed=0).x.to(device, dtype)
    return TinyNet(task.kind, Net(_module(task, seed=0).to(device, dtype), example), task)


cached_net = cache(tiny_net)
"""`tiny_net`, made once."""


def _module(task: Task, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.network()
