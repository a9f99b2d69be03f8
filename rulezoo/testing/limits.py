"""Checks of what a rule's spec claims of its limits: with some options, the rule is another one."""

from __future__ import annotations

from typing import Any

import torch

from rulezoo.discovery.registry import discover
from rulezoo.net import Tensors
from rulezoo.options import configure
from rulezoo.rule import Batch, LearningRule, State, directions
from rulezoo.specs import Limit
from rulezoo.testing.case import Case, first_served, generator
from rulezoo.testing.expect import NotApplicable, expect, expect_close, listed

COPIES = 64  # of one example in a limit: at least as many as a tiny site has units


_STEP = 120  # a multiple of most N, so that what a rule does in every N-th step is done in this one


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
    claim = f"{', '.join(limit.options)} gives {limit.equals}"
    got, wanted = (_white_step(first_served(Case(rule, None, case.tiny))) for rule in (mine, other))
    expect(got.keys() == wanted.keys(), f"{claim}: {listed(set(got) ^ set(wanted))} came or went")
    for name, grad in wanted.items():
        expect_close(f"{claim}: the gradient of {name}", got[name], grad, limit.tolerance)
    size = sum(float(g.norm()) ** 2 for g in wanted.values()) ** 0.5
    error = sum(float((got[n] - wanted[n]).norm()) ** 2 for n in wanted) ** 0.5
    return f"{claim} (off by {error / size:.0e})"


def _read(rule: type[LearningRule], words: tuple[str, ...]) -> dict[str, Any]:
    given = dict(word.split("=", 1) for word in words)
    made = configure(rule, rule.__name__, given).resolved()
    return {name: made[name] for name in given}


def _white_step(case: Case) -> Tensors:
    params, state = case.begin(batch=case.tiny.batch(COPIES))
    x, y = case.tiny.batch(1, seed=7)
    copies = Batch(x.expand(COPIES, *x.shape[1:]).clone(), y.expand(COPIES, *y.shape[1:]).clone())
    drawn = case.noise(state, copies, generator(1), _STEP)
    grads = directions(case.step(params, State(state.params, state.buffers), copies, _white(drawn), _STEP))
    return {name: grad for name, grad in grads.items() if not name.startswith("rule.")}


def _white(noise: Tensors) -> Tensors:
    """The same noise with a second moment of exactly one, ``zᵀ z / rows = 1``, where there are rows enough."""
    white = {}
    for name, z in noise.items():
        rows = z.reshape(-1, z.shape[-1])
        enough = len(rows) >= rows.shape[1]
        white[name] = (torch.linalg.qr(rows).Q * len(rows) ** 0.5).view_as(z) if enough else z
    return white
