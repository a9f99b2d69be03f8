"""Every built-in task keeps the promises of its conformance suite, and every check catches the task that breaks its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from rulezoo import Budget, Data, DataMissing, Site, Split, TaskSpec, hp
from rulezoo.discovery.registry import discover
from rulezoo.testing import CheckFailed, TinyTask, check_task, parametrize_task_checks
from rulezoo.testing.task_suite import task_checks_of

EMBEDDED = [
    found.spec
    for found in discover().tasks.values()
    if found.distribution == "rulezoo" and found.spec.embedded and not found.spec.is_family
]


@parametrize_task_checks(EMBEDDED)
def test_built_in_tasks_keep_every_promise(check):
    check()


@dataclass(frozen=True)
class Honest(TinyTask):
    """A task in which nothing is wrong; the broken ones are this, with one thing wrong."""


def with_data(change):
    """A task whose data are what ``change`` makes of them."""

    @dataclass(frozen=True)
    class Broken(Honest):
        """Broken."""

        def data(self, root=None, *, download=False):
            return change(super().data(root))

    return Broken


def declaring(**attributes):
    """A task that declares something else of its targets."""
    return type("Declaring", (Honest,), {"__doc__": "Broken.", **attributes})


def with_network(make):
    """A task with another network."""

    @dataclass(frozen=True)
    class Broken(Honest):
        """Broken."""

        def network(self):
            return make()

    return Broken


def labels_in(data):
    """The label in place of an input."""
    return Data(*(Split(torch.cat([y[:, None].float(), x[:, 1:]], 1), y) for x, y in data))


def reseeding(data):
    """The same at every call, and the global generator is not what it was."""
    torch.manual_seed(0)
    return data


def other_seed_each_call(data):
    return data._replace(train=Split(data.train.x + torch.randn(()), data.train.y))


class Branching(nn.Sequential):
    """A network that branches on a value, which vmap cannot."""

    def forward(self, x):
        h = super().forward(x)
        return h if h.mean() > -100 else -h


def mlp(*, between=Site, seed=None):
    if seed is not None:
        torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), between(), nn.Linear(8, 3))


@dataclass(frozen=True)
class MeanLoss(Honest):
    """Broken."""

    def loss(self, output, target):
        return super().loss(output, target).mean()


@dataclass(frozen=True)
class LossWithoutGradient(Honest):
    """Broken."""

    def loss(self, output, target):
        return super().loss(output.detach(), target)


@dataclass(frozen=True)
class LossInCompany(Honest):
    """Broken."""

    def loss(self, output, target):
        return super().loss(output - output.mean(0), target)


@dataclass(frozen=True)
class Upside(Honest):
    """Broken."""

    def score(self, output, target):
        return 1 - super().score(output, target)


@dataclass(frozen=True)
class Modest(Honest):
    """Broken."""

    chance: ClassVar[float] = 0.01


@dataclass(frozen=True)
class Uphill(Honest):
    """Broken: the value is right, and its gradient points the other way."""

    def loss(self, output, target):
        right = super().loss(output, target)
        return 2 * right.detach() - right


@dataclass(frozen=True)
class Undone(Honest):
    """Broken."""

    budget: ClassVar[object] = {"epochs": 3}


@dataclass(frozen=True)
class Warm(Honest):
    """Broken."""

    budget: ClassVar[Budget] = Budget(epochs=1, batch=8, lr=0.1, schedule="warmup-cosine")


@dataclass(frozen=True)
class BadLabels(Honest):
    """Broken."""

    def data(self, root=None, *, download=False):
        data = super().data(root)
        data.test.y[3] = -1
        return data


@dataclass(frozen=True)
class RightOrWrong(Honest):
    """Not broken: whether an answer is right, as it is."""

    def score(self, output, target):
        return output.argmax(-1) == target


@dataclass(frozen=True)
class Terse(Honest):
    """Broken."""

    width: int = hp(3, "", low=1)


@dataclass(frozen=True)
class Writable(Honest):
    """Broken."""


Writable.__setattr__ = object.__setattr__

Floats = with_data(lambda d: Data(*(Split(part.x, part.y.float()) for part in d)))
FloatsDeclared = type("FloatsDeclared", (Floats,), {"targets": "numbers", "classes": None})

BROKEN = [
    (
        with_data(lambda d: d._replace(test=Split(d.test.x[:0], d.test.y))),
        "trainable",
        "0 inputs and 48 targets",
    ),
    (
        with_data(lambda d: d._replace(train=Split(d.train.x.double(), d.train.y))),
        "trainable",
        "validation are of type float32",
    ),
    (with_data(lambda d: d._replace(test=Split(d.test.x / 0, d.test.y))), "trainable", "contain infinity"),
    (
        with_data(lambda d: d._replace(test=Split(d.test.x[:, :3], d.test.y))),
        "trainable",
        r"have shape \(3,\)",
    ),
    (
        declaring(classes=2),
        "trainable",
        "2 classes are declared, and the labels of train reach from 0 to 2; expected labels from 0 to 1",
    ),
    (declaring(classes=1), "budget", "classes must be a whole number, 2 or more, where .*, got 1"),
    (declaring(classes=None), "budget", "classes must be a whole number, 2 or more, where .*, got None"),
    (declaring(targets="label"), "budget", "targets must be 'labels', 'numbers' or None .*, got 'label'"),
    (
        declaring(targets="numbers"),
        "budget",
        "classes are of 'labels', and targets are 'numbers'; got classes=3",
    ),
    (
        declaring(targets="numbers", classes=None),
        "trainable",
        "targets are declared to be 'numbers', and those of train are of type int64",
    ),
    (Floats, "trainable", "targets are declared to be 'labels', and those of train are of type float32"),
    (
        FloatsDeclared,
        "trainable",
        r"those of train have shape \(\); expected \(3,\), the shape of the output",
    ),
    (
        with_data(other_seed_each_call),
        "trainable",
        r"other data when it was called a second time \(train inputs\)",
    ),
    (with_data(reseeding), "data_deterministic", "draws from torch's global generator"),
    (with_data(lambda d: (torch.rand(1), d)[1]), "data_deterministic", "draws from torch's global generator"),
    (
        with_data(lambda d: d._replace(test=d.validation)),
        "disjoint",
        "48 of 48 examples of test are in validation",
    ),
    (
        with_data(lambda d: d._replace(validation=Split(*(p[:48] for p in d.train)))),
        "disjoint",
        "are in train",
    ),
    (with_data(labels_in), "no_leak", "input 0 .* says what the label is"),
    (with_network(lambda: mlp(between=nn.Identity)), "network", r"has no Site\('post'\)"),
    (with_network(lambda: nn.Sequential(nn.Linear(5, 3), Site())), "network", "behind the last site"),
    (with_network(lambda: nn.Sequential(Site(), nn.Linear(5, 3))), "network", "nothing hidden"),
    (with_network(lambda: mlp(seed=3)), "network", "the same for two seeds"),
    (with_network(lambda: Branching(*mlp())), "seeds_together", "vmap"),
    (MeanLoss, "trainable", r"loss\(\) returned shape \(\) .* expected shape \(8,\)"),
    (LossWithoutGradient, "trainable", "no gradient with respect to the output"),
    (LossInCompany, "loss", "one example alone"),
    (Upside, "score", "right answers score 0, no more than chance"),
    (Modest, "chance", "chance is declared to be 0.01"),
    (Uphill, "learnable", "the loss went from"),
    (Warm, "budget", "schedule must be 'constant', 'cosine' or a schedule of torch"),
    (BadLabels, "trainable", "1 of 48 examples of test have labels out of range"),
    (Undone, "budget", "budget must be a rulezoo.Budget"),
    (Terse, "options", "has no doc"),
    (Writable, "frozen_value", "can be written to"),
]


@pytest.mark.parametrize(("broken", "name", "message"), BROKEN, ids=[f"{n}-{m}" for _, n, m in BROKEN])
def test_a_broken_task_is_caught_by_the_check_that_is_meant_for_it(broken, name, message):
    check = next(c for c in task_checks_of(broken()) if c.name == name)

    with pytest.raises((CheckFailed, RuntimeError), match=message):
        check()


@pytest.mark.parametrize(
    "attributes", [{"targets": None}, {"targets": None, "classes": None}, {"targets": lambda self: 1}]
)
def test_a_task_need_not_declare_its_targets(attributes):
    """Nor does it matter what a task that does not calls otherwise by these names."""
    check = next(c for c in task_checks_of(declaring(**attributes)()) if c.name == "trainable")

    assert "targets that are not declared" in check()


def test_what_targets_are_is_measured():
    found = {r.id: r.measured for r in check_task(Honest())}
    assert found["Honest:trainable"].endswith("outputs of shape (3,), labels of 3 classes")


@dataclass(frozen=True)
class Masked(Honest):
    """Nothing is wrong: every third example has an answer that does not count, marked by a label below 0."""

    targets: ClassVar[None] = None
    classes: ClassVar[None] = None

    def data(self, root=None, *, download=False):
        def masked(part):
            return Split(part.x, torch.where(torch.arange(len(part.y)) % 3 == 0, -1, part.y))

        return Data(*map(masked, super().data(root)))

    def loss(self, output, target):
        return torch.nn.functional.cross_entropy(output, target, ignore_index=-1, reduction="none")

    def score(self, output, target):
        return torch.where(target < 0, self.chance, (output.argmax(-1) == target).to(output.dtype))


def test_labels_below_0_mark_answers_that_do_not_count():
    found = {r.check: (r.outcome, r.message or r.measured) for r in check_task(Masked())}
    assert {check: said for check, (outcome, said) in found.items() if outcome == "failed"} == {}
    assert found["score"][1].startswith("right answers score 0.7")
    assert "the commonest label" in found["chance"][1]


def test_the_honest_task_passes_them_all():
    assert {r.id: r.message for r in check_task(Honest()) if r.outcome != "passed"} == {
        "Honest:task_spec": "a bare task has no spec"
    }


def test_a_score_may_be_a_truth_value():
    assert [r.message for r in check_task(RightOrWrong()) if r.outcome == "failed"] == []


def test_every_check_has_a_broken_task_of_its_own():
    assert {check.name for check in task_checks_of(Honest())} - {n for _, n, _ in BROKEN} == {"task_spec"}


@dataclass(frozen=True)
class Absent(Honest):
    """Its data are not here."""

    def data(self, root=None, *, download=False):
        raise DataMissing("no file here; get it there")


def test_data_that_are_not_here_cannot_be_checked_unless_they_are_said_to_be():
    spec = TaskSpec("absent", f"{__name__}:Absent", "A task.")
    needed = {r.check: (r.outcome, r.message) for r in check_task(Absent(), spec=spec)}
    assert needed["trainable"] == ("not examined", "the data are not here: no file here; get it there")
    assert needed["disjoint"] == ("skipped", "the data are not here: no file here; get it there")
    assert needed["frozen_value"][0] == "passed"

    liar = TaskSpec("absent", f"{__name__}:Absent", "A task.", embedded=True)
    (outcome, message) = next(
        (r.outcome, r.message) for r in check_task(Absent(), spec=liar) if r.check == "trainable"
    )
    assert (outcome, "embedded=True" in message) == ("failed", True)
