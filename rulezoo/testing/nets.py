"""Tiny networks with sites, and a classification task for each: small enough to test a rule on in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rulezoo.net import Net, Site, Tensors
from rulezoo.options import hp
from rulezoo.rule import Batch
from rulezoo.task import Budget, Data, Split, Task

KINDS = ("mlp", "cnn", "rnn", "rnn-every-step")
CLASSES = 3
_IN_SHAPES = {"mlp": (5,), "cnn": (1, 6, 6), "rnn": (4, 3), "rnn-every-step": (4, 3)}


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
    """A leaky tanh network of 6 units over 4 steps, with a ``recurrent``, a ``pre`` and a ``post`` site, unrolled."""

    LEAK = 0.6

    def __init__(self, *, every_step: bool) -> None:
        super().__init__()
        self.every_step = every_step
        self.w_in, self.w_rec, self.w_out = (
            nn.Linear(3, 6),
            nn.Linear(6, 6, bias=False),
            nn.Linear(6, CLASSES),
        )
        self.recurrent = Site("recurrent", unrolled=True)
        self.pre = Site("pre", unrolled=True)
        self.hidden = Site("post", unrolled=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, 4, 3)`` → ``(batch, 3)``, or ``(batch, 4, 3)`` when it is read out at every step."""
        h, states = x.new_zeros(len(x), 6), []
        for x_t in x.unbind(1):
            pre = self.pre(self.w_rec(self.recurrent(h)) + self.w_in(x_t))
            h = self.hidden((1 - self.LEAK) * h + self.LEAK * torch.tanh(pre))
            states.append(h)
        output: Tensor = self.w_out(torch.stack(states, 1) if self.every_step else h)
        return output


@dataclass(frozen=True)
class TinyTask(Task):
    """Three classes, told by a linear teacher of normally distributed inputs (of each step, where each has an output).

    Outputs are ``(batch, 3)``, targets int64 ``(batch,)``; for ``rnn-every-step`` both have a second dimension, time.
    """

    budget: ClassVar[Budget] = Budget(epochs=2, batch=16, lr=0.01)
    chance: ClassVar[float] = 1 / CLASSES
    targets: ClassVar[Literal["labels", "numbers"] | None] = "labels"
    classes: ClassVar[int | None] = CLASSES

    kind: str = hp("mlp", "which network", choices=KINDS)

    def draw(self, size: int, seed: int) -> Split:
        """``size`` examples in float64, the same for the same seed."""
        shape = _IN_SHAPES[self.kind]
        x = torch.randn(size, *shape, generator=_generator(seed), dtype=torch.float64)
        seen = x if self.kind == "rnn-every-step" else x.flatten(1)
        teacher = torch.randn(seen.shape[-1], CLASSES, generator=_generator(-1), dtype=torch.float64)
        return Split(x, (seen @ teacher).argmax(-1))

    def data(self, root: Path | None = None, *, download: bool = False) -> Data:
        """96, 48 and 48 examples in float32; see `Task.data`."""
        splits = [self.draw(size, seed) for seed, size in enumerate((96, 48, 48))]
        return Data(*(Split(x.float(), y) for x, y in splits))

    def network(self) -> nn.Module:
        """The tiny network, in torch's default dtype; see `Task.network`."""
        if self.kind.startswith("rnn"):
            return TinyRNN(every_step=self.kind == "rnn-every-step")
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
        name: one of `KINDS`.
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
        return tiny_net(self.name, dtype, device)


def tiny_nets(dtype: torch.dtype = torch.float64, device: str = "cpu") -> dict[str, TinyNet]:
    """A multilayer perceptron, a convolutional and two recurrent networks with sites, by name."""
    return {kind: tiny_net(kind, dtype, device) for kind in KINDS}


def tiny_net(kind: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> TinyNet:
    """One of the `tiny_nets`."""
    task = TinyTask(kind)
    example = task.draw(1, seed=0).x.to(device, dtype)
    return TinyNet(kind, Net(_module(task, seed=0).to(device, dtype), example), task)


def _module(task: Task, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.network()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
