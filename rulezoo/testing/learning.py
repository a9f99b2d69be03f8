"""The check that a rule learns, and that its hidden layers do their part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.testing.case import Case, generator
from rulezoo.testing.drawn import practice, title
from rulezoo.testing.expect import expect
from rulezoo.testing.nets import TinyNet

BUDGET, BUDGET_LR = 120, 0.02  # steps of Adam on 16 new examples each
BEYOND = 0.9  # share of the loss that the read-out alone reaches; rules that teach hidden layers reach 0.76 or less
GAINS = tuple(10 ** (n / 10) for n in range(-20, 21))


class Result(NamedTuple):
    """On new examples.

    Attributes:
        loss: the mean loss of the outputs times the gain that is best for them.
        errors: 1 minus the mean score.
    """

    loss: float
    errors: float


def check_learns(case: Case) -> str:
    """Within a small budget it learns new examples, and better than by training the read-out alone.

    Better by the loss, or by the score. The loss is that of the outputs times the best gain, so that a read-out that is
    not calibrated (a goodness, say) does not count against a rule. A rule that sends hidden layers no error need not be
    better than the read-out.
    """
    lr = case.rule.lr or BUDGET_LR
    params, state = case.begin()
    first = _tested(case, params, state)
    last = _tested(case, *_trained(case, params, state, lr))
    told = f"in {BUDGET} steps of Adam with learning rate {lr:g} on {title(case.tiny)}"
    went = f"the loss on new examples went from {first.loss:.3g} to {last.loss:.3g}"
    if case.unsupervised:
        expect(last.loss < first.loss or last.errors < first.errors, f"{told} {went}")
        return f"loss {first.loss:.3g} → {last.loss:.3g}"
    alone = _alone(case.tiny, lr)
    expect(
        last.loss < BEYOND * alone.loss or last.errors < BEYOND * alone.errors,
        f"{told} {went}, expected below {BEYOND:g} times the {alone.loss:.3g} to which training the read-out alone "
        f"brings it (and {last.errors:.0%} errors, {alone.errors:.0%} by the read-out alone)",
    )
    return f"loss {first.loss:.3g} → {last.loss:.3g}; read-out alone {alone.loss:.3g}"


@dataclass(frozen=True)
class _ReadOut(LearningRule):
    """The floor: hidden layers stay as they are."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y, only=net.readout)
        return Step(grads, state, mean)


@cache
def _alone(tiny: TinyNet, lr: float) -> Result:
    """What training the read-out alone gives; the same for every rule."""
    case = Case(_ReadOut(), None, tiny)
    return _tested(case, *_trained(case, *case.begin(), lr))


def _trained(case: Case, params: Tensors, state: State, lr: float) -> tuple[Tensors, State]:
    gen = generator(5)
    leaves = {name: p.clone() for name, p in params.items()}
    owned = {name: p.clone() for name, p in state.params.items()}
    optimiser = torch.optim.Adam([*leaves.values(), *owned.values()], lr=lr, foreach=True)
    for t in range(BUDGET):
        state = State(owned, state.buffers)
        batch = practice(case.tiny, 16, 1000 + t)
        step = case.step(leaves, state, batch, case.noise(state, batch, gen, t), t)
        for name, leaf in [*leaves.items(), *((f"rule.{n}", p) for n, p in owned.items())]:
            leaf.grad = step.grads.get(name)
        optimiser.step()
        for name, update in step.updates.items():
            (owned[name.removeprefix("rule.")] if name.startswith("rule.") else leaves[name]).add_(update)
        state = step.state
    return leaves, State(owned, state.buffers)


def _tested(case: Case, params: Tensors, state: State) -> Result:
    x, y = practice(case.tiny, 96, -2)
    output = case.predict(params, state, x)
    return Result(_best_loss(case, output, y), 1 - float(case.tiny.task.score(output, y).mean()))


def _best_loss(case: Case, output: Tensor, y: Tensor) -> float:
    return min(float(case.tiny.task.loss(gain * output, y).mean()) for gain in GAINS)
