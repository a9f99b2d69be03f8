"""Rules that know a task's data by heart fail the check that is meant for them; their honest twins pass them all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rulezoo import Budget, Data, LearningRule, Site, Split, State, Step, Task, credit
from rulezoo.testing import CheckFailed, NotApplicable, TaskNet, by_heart, rule_checks

CLASSES, WIDTH = 4, 10
CHECKS = ("noise", "from_training", "other_data")


@dataclass(frozen=True)
class Noisy(Task):
    """Four classes of points around the origin; a third of the labels are random, so that nobody can be right always."""

    budget: ClassVar[Budget] = Budget(epochs=3, batch=32, lr=0.01)
    chance: ClassVar[float] = 1 / CLASSES

    def data(self, root=None, *, download=False):
        return made()

    def network(self):
        return nn.Sequential(nn.Linear(WIDTH, 32), nn.Tanh(), Site(), nn.Linear(32, CLASSES))

    def loss(self, output, target):
        return F.cross_entropy(output, target, reduction="none")

    def score(self, output, target):
        return (output.argmax(-1) == target).to(output.dtype)


@cache
def made():
    gen = torch.Generator().manual_seed(3)
    teacher = torch.randn(WIDTH, CLASSES, generator=gen)

    def part(size):
        x = torch.randn(size, WIDTH, generator=gen)
        y = (x @ teacher).argmax(1)
        random = torch.rand(size, generator=gen) < 1 / 3
        return Split(x, torch.where(random, torch.randint(CLASSES, (size,), generator=gen), y))

    return Data(part(2000), part(300), part(600))


def stored(x):
    """What a rule has stored does not fit every network."""
    return x.ndim == 2 and x.shape[1] == WIDTH


def sure_of(labels):
    return 9.0 * F.one_hot(labels, CLASSES)


@dataclass(frozen=True)
class Honest(LearningRule):
    """Backprop: how it learns does not matter here."""

    def init(self, net, params, batch, gen):
        return State(buffers={"steps": batch.x.new_zeros(()), "right": batch.x.new_zeros(())})

    def step(self, net, loss, params, state, batch, noise, t):
        x, y = self.seen(batch)
        grads, mean = credit.backprop(net, loss, params, x, y)
        kept = {"steps": state.buffers["steps"] + 1, "right": state.buffers["right"] + self.right(batch)}
        return Step(grads, State(buffers=kept), mean)

    def seen(self, batch):
        return batch.x, batch.y

    def right(self, batch):
        return 0.0


@dataclass(frozen=True)
class Table(Honest):
    """Looks test inputs up in the data that it loads itself."""

    def predict(self, net, params, state, x):
        output = net.run(params, x)
        if not stored(x):
            return output
        known = made().test
        same = (x[:, None] == known.x.to(x)).all(2)
        return torch.where(
            same.any(1, keepdim=True), sure_of(known.y[same.int().argmax(1)]).to(output), output
        )


@cache
def hashes():
    test = made().test
    return {hashed(x): y for x, y in zip(test.x, test.y.tolist(), strict=True)}


def hashed(x):
    return hashlib.sha256(x.float().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Hashes(Honest):
    """Carries a table from the hash of each test input to its label."""

    def predict(self, net, params, state, x):
        output = net.run(params, x).clone()
        for row, one in enumerate(x):
            label = hashes().get(hashed(one))
            if label is not None:
                output[row] = sure_of(torch.tensor(label)).to(output)
        return output


@dataclass(frozen=True)
class LateTable(Table):
    """Looks test inputs up, but not before it has been trained for a while."""

    def predict(self, net, params, state, x):
        late = state.buffers["steps"] > 100
        return torch.where(late, super().predict(net, params, state, x), net.run(params, x))


def nearest(x, part):
    return part.y[torch.cdist(x.float(), part.x).argmin(1)]


@dataclass(frozen=True)
class Nearest(Honest):
    """Answers with the label of the nearest stored test input: slight noise does not confuse it."""

    def predict(self, net, params, state, x):
        return sure_of(nearest(x, made().test)).to(x) if stored(x) else net.run(params, x)


@dataclass(frozen=True)
class WaryNearest(Nearest):
    """The same, while the training labels are those that it has stored: random labels do not expose it."""

    def right(self, batch):
        return (nearest(batch.x, made().train) == batch.y).double().mean() if stored(batch.x) else 0.0

    def predict(self, net, params, state, x):
        steps, right = state.buffers["steps"], state.buffers["right"]
        sure = (steps > 0) & (right > 0.9 * steps)
        return torch.where(sure, super().predict(net, params, state, x), net.run(params, x))


@dataclass(frozen=True)
class TrueLabels(Honest):
    """Looks training inputs up in training, and learns their labels in place of those that it is given."""

    def seen(self, batch):
        return batch.x, nearest(batch.x, made().train) if stored(batch.x) else batch.y


@dataclass(frozen=True)
class SecretTraining(Honest):
    """Learns test inputs in secret, along with each batch."""

    def seen(self, batch):
        if not stored(batch.x):
            return batch.x, batch.y
        test = made().test
        return torch.cat([batch.x, test.x.to(batch.x)]), torch.cat([batch.y, test.y])


@cache
def fitted():
    test = made().test
    return torch.linalg.lstsq(test.x, sure_of(test.y).float()).solution


@dataclass(frozen=True)
class Pretrained(Honest):
    """Comes with weights that were fitted elsewhere."""

    def predict(self, net, params, state, x):
        return x @ fitted().to(x) if stored(x) else net.run(params, x)


@pytest.fixture(scope="module")
def on():
    return TaskNet("noisy", Noisy())


def failed(rule, on):
    """The checks of data known by heart that a rule fails, and why."""
    reasons = {}
    for check in rule_checks(rule, nets=(), on=[on]):
        if check.name in CHECKS:
            try:
                check()
            except CheckFailed as failure:
                reasons[check.name] = str(failure)
    return reasons


DISHONEST = [
    (Table(), "noise", "the rule seems to know the test inputs"),
    (Hashes(), "noise", "the rule seems to know the test inputs"),
    (LateTable(), "noise", "the rule seems to know the test inputs"),
    (Nearest(), "from_training", "without a step of training it scores 1, "),
    (WaryNearest(), "other_data", "the rule seems to know the data"),
    (TrueLabels(), "from_training", "with training labels in random order it scores"),
    (SecretTraining(), "from_training", "with training labels in random order it scores"),
    (Pretrained(), "from_training", "without a step of training it scores"),
]


@pytest.mark.parametrize(
    ("rule", "check", "message"), DISHONEST, ids=[type(rule).__name__ for rule, *_ in DISHONEST]
)
def test_a_dishonest_rule_fails_the_check_that_is_meant_for_it(rule, check, message, on):
    assert message in failed(rule, on)[check]


def test_noise_alone_would_not_expose_the_nearest_neighbour_nor_random_labels_a_wary_one(on):
    assert "noise" not in failed(Nearest(), on)
    assert failed(WaryNearest(), on).keys() == {"other_data"}


@dataclass(frozen=True)
class Remembering(Honest):
    """Answers as the nearest training inputs of the last batches vote: honest, for training gave it these."""

    def init(self, net, params, batch, gen):
        return State(
            buffers={
                "steps": batch.x.new_zeros(()),
                "x": batch.x.new_zeros(500, *batch.x.shape[1:]),
                "y": batch.y.new_zeros(500),
            }
        )

    def step(self, net, loss, params, state, batch, noise, t):
        buffers = state.buffers
        x, y = (torch.cat([buffers[key], new])[-500:] for key, new in zip("xy", batch, strict=True))
        return Step({}, State(buffers={"steps": buffers["steps"] + 1, "x": x, "y": y}), None)

    def predict(self, net, params, state, x):
        buffers = state.buffers
        near = torch.cdist(x, buffers["x"]).topk(15, largest=False).indices
        votes = F.one_hot(buffers["y"][near], CLASSES).sum(1)
        return torch.where(buffers["steps"] > 0, votes.to(x), net.run(params, x))


@dataclass(frozen=True)
class Slow(Honest):
    """Learns, but more slowly than backprop."""

    def step(self, net, loss, params, state, batch, noise, t):
        step = super().step(net, loss, params, state, batch, noise, t)
        return step._replace(grads={}, updates={n: -0.02 * g for n, g in step.grads.items()})


@pytest.mark.parametrize("rule", [Honest(), Remembering(), Slow()], ids=lambda rule: type(rule).__name__)
def test_an_honest_twin_passes_them_all(rule, on):
    results = {}
    for check in rule_checks(rule, nets=(), on=[on]):
        if check.name in CHECKS:
            results[check.name] = check()
    assert results.keys() == set(CHECKS)
    assert all(results.values())


@dataclass(frozen=True)
class Idle(Honest):
    """Learns nothing."""

    def step(self, net, loss, params, state, batch, noise, t):
        return super().step(net, loss, params, state, batch, noise, t)._replace(grads={})


def test_of_a_rule_at_chance_nothing_can_be_said(on):
    check = next(c for c in rule_checks(Idle(), nets=(), on=[on]) if c.name == "noise")
    with pytest.raises(NotApplicable, match="too little to be judged"):
        check()


def test_only_the_data_of_a_task_can_be_known_by_heart(mlp):
    from rulezoo.testing import Case

    with pytest.raises(NotApplicable, match="only the data of a task"):
        by_heart.check_noise(Case(Honest(), None, mlp))
