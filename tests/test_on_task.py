"""The checks of a rule on the network of any task: one with dropout and BatchNorm, of integers, through time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from rulezoo import Budget, Data, DataMissing, Site, Split
from rulezoo.discovery.registry import discover
from rulezoo.testing import TaskNet, TinyTask, check_rule, task_net


@dataclass(frozen=True)
class Normalised(TinyTask):
    """With statistics that training moves, and dropout."""

    def network(self):
        return nn.Sequential(
            nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), Site(), nn.Linear(16, 3)
        )


@dataclass(frozen=True)
class Words(TinyTask):
    """Inputs are integers."""

    def data(self, root=None, *, download=False):
        gen = torch.Generator().manual_seed(0)
        x = torch.randint(9, (300, 4), generator=gen)
        y = (x == 3).any(1).long() + (x == 5).any(1).long()
        return Data(*(Split(x[i : i + 100], y[i : i + 100]) for i in (0, 100, 200)))

    def network(self):
        return nn.Sequential(
            nn.Embedding(9, 6), nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), Site(), nn.Linear(16, 3)
        )


@dataclass(frozen=True)
class Numbers(TinyTask):
    """Targets are numbers."""

    budget: ClassVar[Budget] = Budget(epochs=2, batch=16, lr=0.01)
    chance: ClassVar[float] = 0.0
    targets: ClassVar[str] = "numbers"
    classes: ClassVar[None] = None

    def data(self, root=None, *, download=False):
        return Data(*(Split(x, x[:, :3].tanh()) for x, _ in super().data(root)))

    def loss(self, output, target):
        return (output - target).square().mean(1)

    def score(self, output, target):
        return 1 - (output - target).square().mean(1) / 0.4


@pytest.mark.parametrize("rule", ["direct-feedback-alignment", "feedback-alignment", "backprop", "nmnc"])
@pytest.mark.parametrize("task", [Normalised(), Words(), Numbers()], ids=lambda task: type(task).__name__)
def test_a_built_in_rule_keeps_its_promises_on_it(rule, task):
    results = check_rule(discover().rule(rule).spec, nets=(), on=[TaskNet("one", task)])

    there = {result.check: result for result in results if result.net == "one"}
    if there["examined"].outcome == "not examined":
        assert rule == "feedback-alignment", there[
            "examined"
        ].message  # which may refuse a network in a sentence
        return
    assert [(r.check, r.message) for r in there.values() if r.outcome == "failed"] == []
    deep = there["weight_transport"].message.startswith("this network has blocks of 2 layers in series")
    assert deep == isinstance(task, Words)
    assert {"vmap", "checkpoint", "predict"} <= {r.check for r in there.values() if r.outcome == "passed"}


def test_parameters_are_those_of_a_training():
    from rulezoo.training.trainer import build

    on, task = TaskNet("one", TinyTask()), TinyTask()
    _, values = build(task, [0, 1], task.data().train.x[:2], torch.device("cpu"))
    for seed, wanted in enumerate(values):
        for name, value in on.params(seed).items():
            torch.testing.assert_close(value.float(), wanted.params[name], rtol=0, atol=0)
    assert {p.dtype for p in on.params().values()} == {torch.float64}


def test_batches_are_training_examples_the_same_for_the_same_seed():
    on = TaskNet("one", TinyTask())
    x, y = on.batch(20, seed=4)
    train = on.data.train
    same = (x[:, None].float() == train.x).all(2)
    assert same.any(1).all()
    torch.testing.assert_close(train.y[same.int().argmax(1)], y)
    torch.testing.assert_close(on.batch(20, seed=4).x, x)
    assert not torch.equal(on.batch(20, seed=5).x, x)


@dataclass(frozen=True)
class Single(TinyTask):
    """Its network computes in float32 whatever it is given."""

    def network(self):
        class Stubborn(nn.Linear):
            def forward(self, x):
                return super().forward(torch.zeros(len(x), 5) + x.float())

        return nn.Sequential(Stubborn(5, 8), Site(), nn.Linear(8, 3))


@dataclass(frozen=True)
class Absent(TinyTask):
    """Its data are missing."""

    def data(self, root=None, *, download=False):
        raise DataMissing("no file here")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Single(), "the network of task 'one' does not compute in float64"),
        (Absent(), "the data of task 'one' are not there: no file here"),
    ],
)
def test_what_cannot_be_used_is_not_examined_and_said_once(task, message):
    results = check_rule(discover().rule("frozen").spec, nets=(), on=[TaskNet("one", task)])
    (result,) = [result for result in results if result.outcome == "not examined"]
    assert message in result.message
    assert not [r for r in results if r.net == "one" and r.outcome in ("passed", "failed")]


def test_a_task_by_its_name():
    assert task_net("digits-cnn", {"width": "0.25"}).net.visits
