"""Checks of what a rule says about itself: its options, its spec, and what it refuses to serve."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any, Protocol

import torch
from torch import nn

from rulezoo.errors import did_you_mean
from rulezoo.net import Net, Site
from rulezoo.options import Configurable, Option, OptionError, declared
from rulezoo.rule import Batch, LearningRule, directions
from rulezoo.specs import RuleSpec, Variant
from rulezoo.testing.case import Case, generator
from rulezoo.testing.expect import (
    CheckFailed,
    NotApplicable,
    expect,
    expect_finite,
    expect_sentence,
    listed,
)
from rulezoo.testing.nets import CLASSES

STEPS = 60  # in which a rule takes one that teaches something


def check_spec(case: Case) -> None:
    """The spec tells the truth: it loads a documented LearningRule whose defaults work."""
    if case.spec is None:
        raise NotApplicable("a bare rule has no spec")
    loaded = case.spec.load()
    expect(issubclass(loaded, LearningRule), f"{case.spec.target} is not a subclass of rulezoo.LearningRule")
    expect(bool(case.spec.summary.strip()), f"the spec of {case.spec.name} has no summary")
    expect(bool((vars(loaded).get("__doc__") or "").strip()), f"{case.spec.target} has no docstring")
    loaded()
    for variant in case.spec.variants:
        _expect_options(case.spec, loaded, variant)


def _expect_options(spec: RuleSpec, loaded: type, variant: Variant) -> None:
    """The options of a variant are those of the rule, with values that it may have."""
    known = declared(loaded)
    for word in variant.options:
        name, _, text = word.partition("=")
        hint = did_you_mean(name, known) or f"it has {listed(known)}"
        expect(
            name in known,
            f"a variant of {spec.name} names an option {name!r} that the rule does not have; {hint}",
        )
        try:
            known[name].read(text)
        except OptionError as error:
            raise CheckFailed(f"a variant of {spec.name} cannot hold: {error}") from error


class Configured(Protocol):
    """A case whose subject has options: a rule's or a task's."""

    @property
    def subject(self) -> Configurable:
        """The rule or task."""


def check_options(case: Configured) -> None:
    """Every option has a meaning, and refuses an invalid value in words: its name, the value and the bounds."""
    for option in declared(type(case.subject)).values():
        expect(bool(option.doc.strip()), f"option {option.name} has no doc")
        for value in option.search or ():
            option.check(value)
        for bad in _illegal(option):
            try:
                _made(case.subject, option, bad)
            except OptionError as error:
                unsaid = [
                    word for word in (option.name, repr(bad), option.expected) if word not in str(error)
                ]
                expect(
                    not unsaid,
                    f"the refusal of {option.name}={bad!r} does not name {listed(unsaid)}: {error}",
                )
            else:
                raise CheckFailed(f"{option.name}={bad!r} is accepted, though it must be {option.expected}")


def _made(subject: Configurable, option: Option, value: float | str) -> None:
    values: dict[str, Any] = {**subject.resolved(), option.name: value}
    type(subject)(**values)


def _illegal(option: Option) -> list[float | str]:
    """Values beyond each bound, and of no allowed type."""
    bad: list[float | str] = [math.nan, math.inf]
    bad += [edge + side for edge, side in ((option.low, -1), (option.high, 1)) if math.isfinite(edge)]
    return bad if str in option.types and not option.choices else [*bad, "no such word"]


def check_frozen_value(case: Configured) -> None:
    """It is a frozen value: it cannot be written to, and equal options make equal values."""
    made, name = case.subject, type(case.subject).__name__
    option = next(iter(declared(type(made))), "anything")
    try:
        setattr(made, option, getattr(made, option, None))
    except FrozenInstanceError:
        pass
    else:
        raise CheckFailed(f"{name} can be written to; decorate it with @dataclass(frozen=True)")
    twin = type(made)(**made.resolved())
    expect(twin == made and hash(twin) == hash(made), f"two {name} with the same options are not equal")


def check_no_sites(case: Case) -> None:
    """On a network without sites it takes a step, or skip() says in a sentence why not."""
    _expect_step_or_skip(case, nn.Sequential(nn.Linear(5, CLASSES)))


def check_no_readout(case: Case) -> None:
    """On a network whose output is itself a site it takes a step, or skip() says in a sentence why not."""
    _expect_step_or_skip(case, nn.Sequential(nn.Linear(5, CLASSES), Site("post")))


def _expect_step_or_skip(case: Case, module: nn.Module) -> None:
    x = torch.randn(6, 5, generator=generator(0), dtype=torch.float64)
    batch = Batch(x, torch.arange(6) % CLASSES)
    net = Net(module.double(), x)
    reason = case.rule.skip(net, case.tiny.task)
    if reason is not None:
        expect_sentence(reason)
        return
    params = net.init_params()
    state = case.rule.init(net, params, batch, generator(0))
    gen, grads = generator(1), dict[str, torch.Tensor]()
    for t in range(STEPS):  # a rule may teach in some steps only
        noise = case.rule.noise(net, state, batch, gen, t)
        step = case.rule.step(net, case.tiny.task.loss, params, state, batch, noise, t)
        grads, state = directions(step), step.state
        if grads:
            break
    expect(
        bool(grads),
        "neither a gradient nor a reason: let skip() say why such a network cannot be served",
    )
    expect_finite("of the first step", grads)
