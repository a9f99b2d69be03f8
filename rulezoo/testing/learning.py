"""The check that a rule learns, and that its hidden layers do their part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.testing.case import Case, first_served, generator
from rulezoo.testing.drawn import practice, title
from rulezoo.testing.expect import CheckFailed
from rulezoo.testing.nets import TinyNet
from rulezoo.testing.networks import Network
from rulezoo.text import percent

BUDGET, BUDGET_LR = 120, 0.02  # steps of Adam on 16 new examples each
FACTORS = (
    1,
    0.25,
    0.1,
)  # on the learning rate, tried until one does: a rule may need smaller steps than Adam's default
HASTE = (
    100  # runs that were published for such rules have a hundred times as many steps as this check, or more
)
BEYOND = 0.9  # share of the loss that the read-out alone reaches; rules that teach hidden layers reach 0.76 or less
NO_HARM = 1.1  # times that loss, where hidden layers need not help
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
    """Within a small budget it learns new examples, and its hidden layers do their part.

    On the first network that it serves, it must learn better than by training the read-out alone; or, if it does not
    train the read-out, than the rule itself with hidden layers held. On the others hidden layers may be of no use, but do
    no harm. Better by the loss, or by the score. The loss is that of the outputs times the best gain, so that outputs
    that are not calibrated (a goodness, say) do not count against a rule. A rule that sends hidden layers no error need
    only learn. Where this does not hold with the rule's learning rate, smaller ones are tried; then, for a rule whose hidden
    layers learn more slowly than its read-out, the same rate for all layers, or a hundred times the slow one if that is
    less: published runs of such rules are that much longer than this budget.
    """
    lr = case.rule.lr or BUDGET_LR
    rates = case.rule.rates(case.tiny.net)
    slow = any(rate < 1 for rate in rates.values())
    tried = []
    for ratios in (rates, _faster(rates)) if slow else (rates,):
        for rate in (lr * factor for factor in FACTORS):
            found = _attempt(case, rate, ratios)
            if found.reason is None:
                return found.measured + _said(rate, lr, faster=ratios != rates)
            tried.append(found.reason)
    slower = ", ".join(f"{lr * factor:g}" for factor in FACTORS[1:])
    faster = ", or where slow layers learn faster" if slow else ""
    raise CheckFailed(f"{tried[0]}; nor is it so with learning rates of {slower}{faster}")


def _faster(rates: dict[str, float]) -> dict[str, float]:
    """The relative rates of a rule, with the slow ones nearer to that of the read-out."""
    return {name: min(HASTE * rate, 1.0) if rate < 1 else rate for name, rate in rates.items()}


def _said(rate: float, lr: float, *, faster: bool) -> str:
    """With which learning rate it was measured, where that is not the rule's own."""
    if faster:
        return f" (learning rate {rate:g}, slow layers faster)"
    return "" if rate == lr else f" (learning rate {rate:g})"


class _Attempt(NamedTuple):
    """What was measured with one learning rate, and why it is not enough; ``None`` where it is."""

    measured: str
    reason: str | None


def _attempt(case: Case, lr: float, ratios: dict[str, float]) -> _Attempt:
    first, last = _tested(case, *case.begin()), _learnt(case, lr, ratios)
    sentence = (
        f"in {BUDGET} steps of Adam with learning rate {lr:g} on {title(case.tiny)} the loss on new examples went from "
        f"{first.loss:.3g} to {last.loss:.3g}, with {percent(last.errors, 0)} errors"
    )
    measured = f"loss {first.loss:.3g} → {last.loss:.3g}"
    learns = _better(last, first, 1.0)
    if not learns or case.unsupervised:
        return _Attempt(measured, None if learns else sentence)
    factor = BEYOND if _is_first(case) else NO_HARM
    alone = _alone(case.tiny, lr)
    measured = f"{measured}; read-out alone {alone.loss:.3g}"
    if _better(last, alone, factor):
        return _Attempt(measured, None)
    held = _learnt(Case(cast(LearningRule, _Held(case.rule)), case.spec, case.tiny), lr, ratios)
    measured = f"{measured}; with hidden layers held {held.loss:.3g}"
    if _better(last, held, factor):
        return _Attempt(measured, None)
    return _Attempt(
        measured,
        f"{sentence}, expected below {factor:g} times the {alone.loss:.3g} ({percent(alone.errors, 0)} errors) to which training the "
        f"read-out alone brings it, or the {held.loss:.3g} ({percent(held.errors, 0)} errors) of the rule with hidden layers held",
    )


def _is_first(case: Case) -> bool:
    """Whether it is the first tiny network that the rule serves, or that of a task."""
    return not isinstance(case.tiny, TinyNet) or first_served(case).tiny.name == case.tiny.name


def _better(one: Result, other: Result, factor: float) -> bool:
    return one.loss < factor * other.loss or one.errors < factor * other.errors


def _learnt(case: Case, lr: float, ratios: dict[str, float]) -> Result:
    return _tested(case, *_trained(case, *case.begin(), lr, ratios))


class _Held:
    """A rule whose hidden layers stay as they are."""

    def __init__(self, rule: LearningRule) -> None:
        self._rule = rule

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._rule, name)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """The rule's step without what it does to hidden layers."""
        step = self._rule.step(net, loss, params, state, batch, noise, t)

        def kept(changes: Tensors) -> Tensors:
            return {n: c for n, c in changes.items() if n in net.readout or n.startswith("rule.")}

        return step._replace(grads=kept(step.grads), updates=kept(step.updates))


@dataclass(frozen=True)
class _ReadOut(LearningRule):
    """The floor: hidden layers stay as they are."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y, only=net.readout)
        return Step(grads, state, mean)


@cache
def _alone(tiny: Network, lr: float) -> Result:
    """What training the read-out alone gives; the same for every rule."""
    return _learnt(Case(_ReadOut(), None, tiny), lr, {})


def _trained(
    case: Case, params: Tensors, state: State, lr: float, ratios: dict[str, float]
) -> tuple[Tensors, State]:
    gen = generator(5)
    leaves = {name: p.clone() for name, p in params.items()}
    owned = {name: p.clone() for name, p in state.params.items()}
    named = [*leaves.items(), *((f"rule.{name}", p) for name, p in owned.items())]
    if ratios:
        groups = [{"params": [p], "lr": lr * ratios.get(name, 1.0)} for name, p in named]
        optimiser = torch.optim.Adam(groups, lr=lr, foreach=True)
    else:
        optimiser = torch.optim.Adam([p for _, p in named], lr=lr, foreach=True)
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
