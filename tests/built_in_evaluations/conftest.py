"""Networks for the evaluations: a task of two moons of pixels, trained in a moment, and what is needed to make one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Budget, Data, LearningRule, Site, Split, Task, TrainedNetwork


@dataclass(frozen=True)
class Stripes(Task):
    """Images of 1×8×8 in [0, 1] with a bright row; which one is the class, one of three."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=10, lr=1e-2)
    chance: ClassVar[float] = 1 / 3
    targets: ClassVar[str] = "labels"
    classes: ClassVar[int] = 3

    def data(self, root, *, download=False):
        return Data(*(self.drawn(number, seed) for seed, number in enumerate((300, 100, 200))))

    @staticmethod
    def drawn(number, seed):
        gen = torch.Generator().manual_seed(seed)
        y = torch.arange(number) % 3
        x = 0.5 * torch.rand(number, 1, 8, 8, generator=gen)
        x[torch.arange(number), 0, 2 * y + 1] += 0.12
        x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.0, 1.0
        return Split(x, y)

    def network(self):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), Site("pre"), nn.Tanh(), Site("post"), nn.Linear(16, 3)
        )

    def loss(self, output, target):
        return F.cross_entropy(output, target, reduction="none")

    def score(self, output, target):
        return (output.argmax(-1) == target).float()


def descend(model, x, y, steps=60, lr=3e-2):
    """Backprop with Adam on all examples."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def trained_on(task, *, rule=None, steps=60):
    data = task.data(None)
    torch.manual_seed(0)
    model = descend(task.network(), task.prepare(data.train.x, None), data.train.y, steps)
    return TrainedNetwork.from_state_dict(
        model.state_dict(),
        task.prepare(data.train.x[:2], None),
        rule="backprop",
        task=type(task).__name__.lower(),
        seed=0,
        made_rule=rule or LearningRule(),
        made_task=task,
    )


@pytest.fixture(scope="session")
def stripes():
    return trained_on(Stripes())


class WithMemory(LearningRule):
    """A rule that reads its answer with its memory."""

    def predict(self, net, params, state, x):
        return net.run(params, x) * state.buffers["gain"]


@dataclass(frozen=True)
class Numbers(Stripes):
    """No classification: the targets are numbers."""

    targets: ClassVar[str] = "numbers"
    classes: ClassVar[None] = None


@pytest.fixture(scope="session")
def with_memory():
    return trained_on(Stripes(), rule=WithMemory())


@pytest.fixture(scope="session")
def no_labels():
    return trained_on(Numbers())
