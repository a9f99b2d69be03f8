"""Checks of a rule on a task's data: does its score come from training, or are the data known by heart?

A rule is trained for 200 steps, as a comparison would train it, and so is plain backprop as a reference:

- on examples that nobody has seen: test inputs with slight noise. A rule that looks test inputs up scores less on them;
- without training, and with training labels in a random order. What still scores knows the answers from elsewhere, by
  near as by equal inputs;
- on other data of the same kind: every input with the opposite sign, in training and in the test. They are as easy to learn,
  and no table of the data holds them.

Not caught is a rule that behaves while these checks run: one that begins to look answers up after more steps than they take,
or that tells a short training from a long one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.task import Split
from rulezoo.testing.case import Case, generator
from rulezoo.testing.expect import NotApplicable, expect
from rulezoo.testing.on_task import TaskNet
from rulezoo.text import percent
from rulezoo.training.batches import Batches
from rulezoo.training.trainer import Trainer, build

STEPS = 200
SEEN = 10_000  # training inputs from which the size of the noise is taken
TESTED = 1000  # test examples at most
CHUNK = 250  # examples that are evaluated together
NOISE = 0.1  # of the inputs' standard deviation
MARGIN = 0.05  # of the score above chance, by which a rule may lose more than backprop
LUCK = 3.0  # standard errors of what is lost, in addition: test examples are a sample
DISGUISED = 0.25  # likewise, where both are trained anew: two short trainings differ
UNTAUGHT = 0.5  # of the score above chance: what may come by luck, without training or from random labels
DRAWS = 4  # of initial weights, and of random labels: a rule fails where it fails for all of them
WELL = 0.5  # of backprop's score above chance: below, two short trainings differ too much to be compared
LEARNT = 0.25  # of backprop's score above chance: below, there is nothing to examine


@dataclass(frozen=True)
class Reference(LearningRule):
    """Plain backprop."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `rulezoo.LearningRule.step`."""
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y)
        return Step(grads, state, mean)


def check_noise(case: Case) -> str:
    """Test inputs with slight noise score as well as test inputs, up to what backprop loses: none is known by heart."""
    on = _subject(case)
    _needs_numbers(on)
    above, usual = _learnt(on, case.rule), _scores(on, _Training(Reference())).lost

    def lost(seed: int) -> _Lost:
        scores = _scores(on, _Training(case.rule, seed=seed))
        return _Lost(scores.lost, max(usual, 0.0) + MARGIN * above + LUCK * scores.error)

    found = _least(lost)
    effect = f"the score falls by {found.lost:.3g} (backprop's by {usual:.3g})"
    expect(
        found.excess <= 0,
        f"after {STEPS} steps, with noise of {NOISE:g} standard deviations on the test inputs, {effect}, expected at most "
        f"{found.allowed:.3g} (backprop's, {percent(MARGIN, 0)} of the score above chance and {LUCK:g} standard errors): the rule "
        "seems to know the test inputs",
    )
    return effect


def check_from_training(case: Case) -> str:
    """The score comes from training: without steps, or trained on labels in random order, it is near chance."""
    on = _subject(case)
    chance, above = on.task.chance, _learnt(on, case.rule)
    allowed = chance + UNTAUGHT * above
    said = (
        f"expected at most {allowed:.3g}, halfway from chance ({chance:.3g}) to its score after {STEPS} steps"
    )

    def score(training: _Training) -> float:
        return _least(lambda seed: _Lost(_scores(on, replace(training, seed=seed)).plain, allowed)).lost

    untrained = score(_Training(case.rule, steps=0))
    expect(
        untrained <= allowed,
        f"without a step of training it scores {untrained:.3g}, {said}: it knows answers that no training taught it",
    )
    shuffled = score(_Training(case.rule, shuffled=True))
    expect(
        shuffled <= allowed,
        f"after {STEPS} steps with training labels in random order it scores {shuffled:.3g}, {said} with the true labels: "
        "the answers come from elsewhere",
    )
    return f"{untrained:.3g} untrained, {shuffled:.3g} with labels in random order; chance {chance:.3g}"


def check_other_data(case: Case) -> str:
    """Trained and tested on inputs of the opposite sign, it scores as well, up to what backprop loses by that."""
    on = _subject(case)
    _needs_numbers(on)
    above, usual = _learnt(on, case.rule, WELL), _lost_by_sign(on, Reference())
    allowed = max(usual, 0.0) + DISGUISED * above
    found = _least(lambda seed: _Lost(_lost_by_sign(on, case.rule, seed), allowed))
    effect = f"the score falls by {found.lost:.3g} (backprop's by {usual:.3g})"
    expect(
        found.excess <= 0,
        f"with the opposite sign of every input, in training and in the test, {effect}, expected at most {allowed:.3g} "
        f"(backprop's and {percent(DISGUISED, 0)} of the score above chance): the rule seems to know the data",
    )
    return effect


class _Lost(NamedTuple):
    """What was measured with one seed, and what is allowed."""

    lost: float
    allowed: float

    @property
    def excess(self) -> float:
        return self.lost - self.allowed


def _least(measured: Callable[[int], _Lost]) -> _Lost:
    """The least excess of several seeds, of which no more are tried than it takes: bad luck does not last."""
    least = measured(0)
    for seed in range(1, DRAWS):
        if least.excess <= 0:
            break
        least = min(least, measured(seed), key=lambda one: one.excess)
    return least


def _subject(case: Case) -> TaskNet:
    if not isinstance(case.tiny, TaskNet):
        raise NotApplicable("only the data of a task can be known by heart")
    return case.tiny


def _needs_numbers(on: TaskNet) -> None:
    if not on.data.test.x[:1].is_floating_point():
        raise NotApplicable("inputs are integers, which have no sign to turn and take no slight noise")


def _learnt(on: TaskNet, rule: LearningRule, share: float = LEARNT) -> float:
    """The score above chance after a short training, if it is so much of backprop's."""
    above, usual = (_scores(on, _Training(r)).plain - on.task.chance for r in (rule, Reference()))
    if not above > share * max(usual, 0.0):  # nor where it is not a number
        raise NotApplicable(
            f"after {STEPS} steps the score is {on.task.chance + above:.3g} (backprop's {on.task.chance + usual:.3g}), "
            f"expected more than {percent(share, 0)} of the way from chance ({on.task.chance:.3g}) to backprop's: too little to be judged"
        )
    return above


def _lost_by_sign(on: TaskNet, rule: LearningRule, seed: int = 0) -> float:
    training = _Training(rule, seed=seed)
    return _scores(on, training).plain - _scores(on, replace(training, sign=-1)).plain


# Trainings ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Training:
    """A short training.

    Attributes:
        rule: the rule.
        steps: how long.
        seed: of initial weights, of the order of the examples, and of that of the labels.
        sign: by which every input is multiplied.
        shuffled: whether training labels are in random order.
    """

    rule: LearningRule
    steps: int = STEPS
    seed: int = 0
    sign: int = 1
    shuffled: bool = False


class _Scores(NamedTuple):
    """What a training led to.

    Attributes:
        plain: the mean score on test inputs.
        lost: by how much it falls with slight noise on them.
        error: the standard error of that: the same examples are scored twice.
    """

    plain: float
    lost: float = 0.0
    error: float = 0.0


def _scores(on: TaskNet, training: _Training) -> _Scores:
    """Train and test; training that was done before is not done again."""
    if training not in on.memo:
        trainer = _trained(on, training)
        part = on.data.test
        which = torch.randperm(len(part.x), generator=generator(13))[:TESTED]
        x, y = part.x[which], part.y[which]
        plain = _score(on, trainer, -x if training.sign < 0 else x, y)
        scores = _Scores(float(plain.mean()))
        if x.is_floating_point() and training.sign > 0:
            lost = plain - _score(on, trainer, _noisy(on, x), y)
            scores = scores._replace(lost=float(lost.mean()), error=float(lost.std()) / len(lost) ** 0.5)
        on.memo[training] = scores
    return cast(_Scores, on.memo[training])


def _trained(on: TaskNet, training: _Training) -> Trainer:
    task, rule, seeds = on.task, training.rule, [training.seed]
    x, y = on.data.train
    if training.shuffled:
        y = y[torch.randperm(len(y), generator=generator(31 + training.seed))]
    lr, decay = task.budget.lr, task.budget.weight_decay
    budget = replace(
        task.budget,
        lr=lr if rule.lr is None else rule.lr,
        weight_decay=decay if rule.weight_decay is None else rule.weight_decay,
    )
    net, values = build(task, seeds, x[:2], y.device)
    batches = Batches(Split(x, y), budget.batch, seeds)

    def batch(t: int) -> Batch:
        epoch, place = divmod(t, batches.per_epoch)
        if place == 0 or epoch not in orders:
            orders.clear()
            orders[epoch] = batches.epoch(epoch)
        taken = batches.take(orders[epoch][:, place], epoch)
        return taken if training.sign > 0 else Batch(-taken.x, taken.y)

    orders: dict[int, Tensor] = {}
    trainer = Trainer(rule, net, task.loss, values, batch(0), seeds, budget, max(1, training.steps))
    for t in range(training.steps):
        trainer.step(batch(t))
    return trainer


def _noisy(on: TaskNet, x: Tensor) -> Tensor:
    spread = on.data.train.x[:SEEN].std()
    return x + NOISE * spread * torch.randn(x.shape, generator=generator(17), dtype=x.dtype)


def _score(on: TaskNet, trainer: Trainer, x: Tensor, y: Tensor) -> Tensor:
    """The score of each test example, in chunks of equal size as far as that goes."""
    chunks = max(1, -(-len(x) // CHUNK))
    parts = zip(x.tensor_split(chunks), y.tensor_split(chunks), strict=True)
    scores = [on.task.score(trainer.predict(part)[0], target).double() for part, target in parts]
    return torch.cat(scores)
