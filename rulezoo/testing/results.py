"""Checks of what a step returns: gradients, loss, and whether they teach anything.

The first line of a check's docstring is the promise to which it holds a rule, as a report prints it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from rulezoo import credit
from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch, LearningRule, State, Step, directions
from rulezoo.testing.case import Case, Moment, flat_step, generator, walk
from rulezoo.testing.expect import (
    CheckFailed,
    NotApplicable,
    expect,
    expect_close,
    expect_finite,
    expect_like,
    listed,
)
from rulezoo.testing.nets import KINDS, tiny_net
from rulezoo.training.rule_output import check_directions, check_rates

ROUNDING = 1e-7  # of a tensor's norm, in float64
MIN_ANGLE = 1.0  # degrees; backprop under another name differs by rounding, the best of approximations by 3
BUDGET, BUDGET_LR = 120, 0.02  # steps of Adam on 16 new examples each
BEYOND = 0.9  # share of the loss that the read-out alone reaches; rules that teach hidden layers reach 0.76 or less


def check_gradients(case: Case) -> None:
    """Gradients, updates and rates belong to parameters; tensors have their shapes and dtypes, are finite, carry no graph."""
    for moment in walk(case):
        known = moment.params | {f"rule.{n}": p for n, p in moment.state.params.items()}
        step = moment.step
        with _as_failure():
            check_rates(case.rule.rates(case.tiny.net), known)
            check_directions(step.grads, step.updates, {name: tuple(p.shape) for name, p in known.items()})
        for kind, tensors in (("grads", step.grads), ("updates", step.updates)):
            for name, tensor in tensors.items():
                expect_like(f"{kind}[{name!r}] of step {moment.t}", tensor, known[name])
        expect_finite(f"of step {moment.t}", flat_step(moment.step))
        for name, tensor in flat_step(moment.step).items():
            expect(not tensor.requires_grad, f"{name} of step {moment.t} still carries a graph; detach it")


@contextmanager
def _as_failure() -> Iterator[None]:
    """What the trainer refuses, in its words."""
    try:
        yield
    except ValueError as error:
        raise CheckFailed(str(error)) from error


def check_loss(case: Case) -> None:
    """The loss, if there is one, is the mean loss, before the update, of what the rule predicts; logs are scalars."""
    for t, params, state, batch, _, step in walk(case):
        if step.loss is not None:
            expect(
                step.loss.shape == (),
                f"the loss of step {t} must be a scalar, got shape {tuple(step.loss.shape)}",
            )
            mean = case.tiny.task.loss(case.predict(params, state, batch.x), batch.y).mean()
            expect_close(
                f"the loss of step {t}, beside the mean loss of predict(),", step.loss, mean, ROUNDING
            )
        for name, log in step.logs.items():
            expect(
                log.shape == (), f"logs[{name!r}] of step {t} must be a scalar, got shape {tuple(log.shape)}"
            )


def check_hidden_gradients(case: Case) -> str:
    """Every hidden parameter is taught something; none is, where the rule declares signal="none"."""
    steps = [{**moment.step.grads, **moment.step.updates} for moment in walk(case)]
    taught = {
        name for name in case.hidden if any(name in grads and bool(grads[name].any()) for grads in steps)
    }
    if case.silent:
        expect(not taught, f'the rule declares signal="none", yet it teaches {listed(taught)}')
    else:
        untaught = set(case.hidden) - taught
        expect(not untaught, f"in {len(steps)} steps no gradient other than zero reached {listed(untaught)}")
    return f"{len(taught)} of {len(case.hidden)} hidden parameters taught"


def check_backprop(case: Case) -> str:
    """Hidden gradients differ from backprop's at initialisation; all equal them, where the rule is tagged "exact"."""
    moment = next(walk(case))
    true = true_gradient(case, moment)
    names = list(true) if case.exact else case.hidden
    down = directions(moment.step)
    got = torch.cat([down.get(name, torch.zeros_like(true[name])).flatten() for name in names])
    wanted = torch.cat([true[name].flatten() for name in names])
    if case.exact:
        told = 'the gradient of a rule that is tagged "exact", beside that of autograd,'
        expect_close(told, got, wanted, ROUNDING)
        return "0° from autograd"
    if bool(got.any()):
        angle = math.degrees(math.acos(float(torch.cosine_similarity(got, wanted, dim=0).clamp(-1, 1))))
        expect(
            angle > MIN_ANGLE,
            f"hidden gradients lie {angle:.2g}° from those of backprop, expected more than {MIN_ANGLE:g}°: this is "
            'backprop under another name. If it is meant to be, tag its spec "exact"; if it comes that near by other '
            "means, declare the failure as expected, with the reason",
        )
        return f"{angle:.0f}° from backprop"
    return "hidden gradients are still zero"


def true_gradient(case: Case, moment: Moment) -> Tensors:
    """By plain autograd, which shares nothing with the numerics that rules are made of."""
    leaves = {name: p.clone().requires_grad_() for name, p in moment.params.items()}
    mean = case.tiny.task.loss(case.tiny.net.run(leaves, moment.batch.x), moment.batch.y).mean()
    return dict(zip(leaves, torch.autograd.grad(mean, list(leaves.values())), strict=True))


def check_learns(case: Case) -> str:
    """Within a small budget the loss on new examples falls, and further than by training the read-out alone.

    On the first tiny network that the rule can serve; a rule that declares signal="none" need not beat the read-out.
    """
    served = first_served(case)
    lr = case.rule.lr or BUDGET_LR
    first, last = _losses(served, lr)
    told = f"{BUDGET} steps of Adam with learning rate {lr:g} on {served.tiny.name}"
    if case.silent:
        expect(last < first, f"in {told} the loss on new examples went from {first:.3g} to {last:.3g}")
        return f"loss {first:.3g} → {last:.3g}"
    _, alone = _losses(replace(served, rule=_ReadOut()), lr)
    expect(
        last < BEYOND * alone,
        f"in {told} the loss on new examples went from {first:.3g} to {last:.3g}, expected below {BEYOND:g} times "
        f"the {alone:.3g} to which training the read-out alone brings it",
    )
    return f"loss {first:.3g} → {last:.3g}; read-out alone {alone:.3g}"


@dataclass(frozen=True)
class _ReadOut(LearningRule):
    """The floor: hidden layers stay as they are."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        grads, mean = credit.backprop(net, loss, params, batch.x, batch.y, only=net.readout)
        return Step(grads, state, mean)


def _losses(case: Case, lr: float) -> tuple[float, float]:
    params, state = case.begin()
    return _test_loss(case, params, state), _test_loss(case, *_trained(case, params, state, lr))


def first_served(case: Case) -> Case:
    """The case on the first tiny network that the rule can serve."""
    for kind in KINDS:
        tiny = tiny_net(kind)
        if case.rule.skip(tiny.net, tiny.task) is None:
            return replace(case, tiny=tiny)
    raise NotApplicable("the rule skips every tiny network")


def _trained(case: Case, params: Tensors, state: State, lr: float) -> tuple[Tensors, State]:
    gen = generator(5)
    leaves = {name: p.clone() for name, p in params.items()}
    owned = {name: p.clone() for name, p in state.params.items()}
    optimiser = torch.optim.Adam([*leaves.values(), *owned.values()], lr=lr)
    for t in range(BUDGET):
        state = State(owned, state.buffers)
        batch = case.tiny.batch(16, seed=1000 + t)
        step = case.step(leaves, state, batch, case.noise(state, batch, gen, t), t)
        for name, leaf in [*leaves.items(), *((f"rule.{n}", p) for n, p in owned.items())]:
            leaf.grad = step.grads.get(name)
        optimiser.step()
        for name, update in step.updates.items():
            (owned[name.removeprefix("rule.")] if name.startswith("rule.") else leaves[name]).add_(update)
        state = step.state
    return leaves, State(owned, state.buffers)


def _test_loss(case: Case, params: Tensors, state: State) -> float:
    x, y = case.tiny.batch(96, seed=-2)
    return float(case.tiny.task.loss(case.predict(params, state, x), y).mean())
