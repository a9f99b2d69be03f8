"""Checks of what a rule's spec claims: no weight transport, no backward pass, and what the rule is in a limit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rulezoo import credit
from rulezoo.discovery.registry import discover
from rulezoo.measures.locality import crossings
from rulezoo.net import Tensors
from rulezoo.options import configure
from rulezoo.rule import Batch, LearningRule, State, directions
from rulezoo.specs import Limit
from rulezoo.testing.case import Case, Moment, flat, generator, walk
from rulezoo.testing.expect import NotApplicable, expect, expect_close, listed
from rulezoo.testing.results import first_served, true_gradient

UNHEARD = 1e-9  # of a tensor's norm: the activity moves by rounding, since weights change where it is zero
COPIES = 64  # of one example in a limit: at least as many as a tiny site has units


def check_weight_transport(case: Case) -> str:
    """The feedback path reads no forward weight, where the rule declares weight_transport=False.

    Each weight through which errors of backprop travel is changed, but only for inputs that do not occur, so that all
    activity stays as it is. Nothing that the rule returns may notice, save the gradient of that weight itself (which
    may decay it). Noise is set to zero: a response to a perturbation is no transport, though it goes through weights.
    """
    _needs_declaration(case, "weight_transport")
    *_, moment = walk(case)
    one = case.tiny.batch(1, seed=7)
    noise = {name: torch.zeros_like(z) for name, z in case.noise(moment.state, one, generator(0), 3).items()}
    moment = moment._replace(
        t=3, batch=one, noise=noise, step=case.step(moment.params, moment.state, one, noise, 3)
    )
    would = 0.0
    for name, params in _elsewhere(case, moment).items():
        _expect_unheard(case, moment, name, params)
        would = max(would, _heard_by_backprop(case, moment, params))
    if not would:
        raise NotApplicable("no weight of this network can be changed without changing activity")
    return f"0 where backprop's gradient changes by {would:.0%}"


def _elsewhere(case: Case, moment: Moment) -> dict[str, Tensors]:
    """Name of a weight → parameters in which it is another for inputs orthogonal to all that occur."""
    changed = {}
    for name in sorted(credit.backward_layers(case.tiny.net, moment.params)):
        weight = moment.params[name]
        (seen,) = credit.layer_inputs(case.tiny.net, moment.params, moment.batch.x, [name]).values()
        _, sizes, directions = torch.linalg.svd(seen, full_matrices=True)
        occupied = int((sizes > 1e-10 * sizes.max()).sum()) if len(sizes) else 0
        free = directions[occupied:]
        if not len(free) or weight[0].numel() != free.shape[1]:
            continue
        drawn = torch.randn(len(weight), len(free), generator=generator(3), dtype=weight.dtype)
        delta = (drawn @ free).view_as(weight)
        changed[name] = {**moment.params, name: weight + 3 * delta * weight.norm() / delta.norm()}
    return changed


def _expect_unheard(case: Case, moment: Moment, name: str, params: Tensors) -> None:
    step = case.step(params, moment.state, moment.batch, moment.noise, moment.t)
    for kind, got, wanted in (
        ("the gradient of", directions(step), directions(moment.step)),
        ("after the step,", flat(step.state), flat(moment.step.state)),
    ):
        heard = [n for n, p in got.items() if n != name and n in wanted and _moved(p, wanted[n])]
        expect(
            not heard,
            f"{name} was changed so that no activity changes, yet {kind} {listed(heard)} did: the feedback path reads "
            "a forward weight, though the spec declares weight_transport=False",
        )
    if case.plausibility is not None and not case.plausibility.perturbation:
        both = (
            flat(case.rule.init(case.tiny.net, p, moment.batch, generator(0)))
            for p in (moment.params, params)
        )
        before, after = (
            {n: _direction(p) for n, p in state.items()} for state in both
        )  # a size may be read off
        copied = [n for n in before if n in after and _moved(after[n], before[n])]
        expect(not copied, f"init() copies {name} into state.{listed(copied)}, though weight_transport=False")


def _moved(tensor: Tensor, wanted: Tensor) -> bool:
    if tensor.shape != wanted.shape:
        return True
    return float((tensor - wanted).double().norm()) > UNHEARD * max(float(wanted.double().norm()), 1e-12)


def _direction(tensor: Tensor) -> Tensor:
    size = tensor.double().norm()
    return tensor / size if size else tensor


def _heard_by_backprop(case: Case, moment: Moment, params: Tensors) -> float:
    before, after = (true_gradient(case, moment._replace(params=p)) for p in (moment.params, params))
    change = sum(float((after[n] - before[n]).norm()) ** 2 for n in case.hidden)
    size = sum(float(before[n].norm()) ** 2 for n in case.hidden)
    return float((change / size) ** 0.5) if size else 0.0


def check_backward_pass(case: Case) -> str:
    """No gradient goes on from one block of the network into the block in front, where backward_pass=False."""
    _needs_declaration(case, "backward_pass")
    tiny = case.tiny
    crossed = crossings(case.rule, tiny.net, tiny.task.loss, tiny.params(), tiny.batch())
    expect(
        not crossed,
        f"gradients went through {listed(crossed)} into the block in front, though the spec declares "
        "backward_pass=False; cut the graph there (rulezoo.credit.cut)",
    )
    return f"0 of {len(tiny.net.keys('post'))} sites crossed"


def _needs_declaration(case: Case, field: str) -> None:
    if case.plausibility is None:
        raise NotApplicable("no plausibility is declared")
    if getattr(case.plausibility, field):
        raise NotApplicable(f"the rule declares {field}=True")


def check_limits(case: Case) -> str:
    """With the options of a limit the rule equals the rule that its spec names.

    Both take a step on copies of one example, with noise that is white to the last digit: what stochastic rules equal
    on average only, they then equal exactly.
    """
    if case.spec is None:
        raise NotApplicable("a bare rule has no spec")
    if not case.spec.limits:
        raise NotApplicable("the spec declares no limits")
    return "; ".join(_checked(case, limit) for limit in case.spec.limits)


def _checked(case: Case, limit: Limit) -> str:
    zoo = discover()
    mine = type(case.rule)(**{**case.rule.resolved(), **_read(type(case.rule), limit.options)})
    other = zoo.make_rule(limit.equals, dict(word.split("=", 1) for word in limit.others))
    told = f"{', '.join(limit.options)} gives {limit.equals}"
    got, wanted = (_white_step(first_served(Case(rule, None, case.tiny))) for rule in (mine, other))
    expect(got.keys() == wanted.keys(), f"{told}: {listed(set(got) ^ set(wanted))} came or went")
    for name, grad in wanted.items():
        expect_close(f"{told}: the gradient of {name}", got[name], grad, limit.tolerance)
    size = sum(float(g.norm()) ** 2 for g in wanted.values()) ** 0.5
    error = sum(float((got[n] - wanted[n]).norm()) ** 2 for n in wanted) ** 0.5
    return f"{told} (off by {error / size:.0e})"


def _read(rule: type[LearningRule], words: tuple[str, ...]) -> dict[str, Any]:
    given = dict(word.split("=", 1) for word in words)
    made = configure(rule, rule.__name__, given).resolved()
    return {name: made[name] for name in given}


def _white_step(case: Case) -> Tensors:
    params, state = case.begin(batch=case.tiny.batch(COPIES))
    x, y = case.tiny.batch(1, seed=7)
    copies = Batch(x.expand(COPIES, *x.shape[1:]).clone(), y.expand(COPIES, *y.shape[1:]).clone())
    drawn = case.noise(state, copies, generator(1), 1)
    grads = directions(case.step(params, State(state.params, state.buffers), copies, _white(drawn), 1))
    return {name: grad for name, grad in grads.items() if not name.startswith("rule.")}


def _white(noise: Tensors) -> Tensors:
    """The same noise with a second moment of exactly one, ``zᵀ z / rows = 1``, where there are rows enough."""
    white = {}
    for name, z in noise.items():
        rows = z.reshape(-1, z.shape[-1])
        enough = len(rows) >= rows.shape[1]
        white[name] = (torch.linalg.qr(rows).Q * len(rows) ** 0.5).view_as(z) if enough else z
    return white
