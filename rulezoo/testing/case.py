"""A rule on a network, and the small training loop that the checks watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rulezoo.net import Tensors
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.specs import Plausibility, RuleSpec
from rulezoo.testing.networks import Network

LR = 0.05  # of the plain descent by which a case moves on
TIMES = range(4)


@dataclass(frozen=True)
class Case:
    """A rule on a network.

    Attributes:
        rule: the rule.
        spec: what its plugin says about it, or ``None`` for a bare rule.
        tiny: the network, with its parameters and batches.
    """

    rule: LearningRule
    spec: RuleSpec | None
    tiny: Network

    @property
    def subject(self) -> LearningRule:
        """The rule, as checks that serve tasks too know it."""
        return self.rule

    @property
    def exact(self) -> bool:
        """Whether the rule is declared to be the exact gradient, by the tag ``exact``."""
        return self.spec is not None and "exact" in self.spec.tags

    @property
    def silent(self) -> bool:
        """Whether the rule is declared to teach hidden layers nothing, by its plausibility's ``signal="none"``."""
        return self.plausibility is not None and self.plausibility.signal == "none"

    @property
    def plausibility(self) -> Plausibility | None:
        """What the rule declares of its plausibility."""
        return None if self.spec is None else self.spec.plausibility

    @property
    def hidden(self) -> list[str]:
        """The parameters in front of a site, which training the read-out alone leaves as they are."""
        return [name for name in self.tiny.net.shapes if name not in self.tiny.net.readout]

    def begin(self, seed: int = 0, batch: Batch | None = None) -> tuple[Tensors, State]:
        """Initial parameters, and the rule's state after a look at ``batch``."""
        params = self.tiny.params(seed)
        first = self.tiny.batch(seed=100 * seed) if batch is None else batch
        return params, self.rule.init(self.tiny.net, params, first, generator(seed))

    def noise(self, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """The rule's noise."""
        return self.rule.noise(self.tiny.net, state, batch, gen, t)

    def step(self, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int) -> Step:
        """The rule's step."""
        return self.rule.step(self.tiny.net, self.tiny.task.loss, params, state, batch, noise, t)

    def predict(self, params: Tensors, state: State, x: Tensor) -> Tensor:
        """The rule's prediction."""
        return self.rule.predict(self.tiny.net, params, state, x)


class Moment(NamedTuple):
    """A step with all that went into it and came out of it."""

    t: int
    params: Tensors
    state: State
    batch: Batch
    noise: Tensors
    step: Step


def walk(
    case: Case, times: Iterable[int] = TIMES, seed: int = 0, size: Callable[[int], int] = lambda t: 12
) -> Iterator[Moment]:
    """Train by plain descent, as a runner would: one step for each of ``times``, on a batch of ``size(t)``."""
    params, state = case.begin(seed)
    gen = generator(seed + 1)
    for t in times:
        batch = case.tiny.batch(size(t), seed=100 * seed + t)
        noise = case.noise(state, batch, gen, t)
        step = case.step(params, state, batch, noise, t)
        yield Moment(t, params, state, batch, noise, step)
        params, state = descend(params, step)


def descend(params: Tensors, step: Step) -> tuple[Tensors, State]:
    """One step of plain descent, on the network's parameters and on those of the rule, with the rule's updates."""

    def moved(tensors: Tensors, prefix: str) -> Tensors:
        changes = {**{n: -LR * g for n, g in step.grads.items()}, **step.updates}
        return {n: p + changes[prefix + n] if prefix + n in changes else p for n, p in tensors.items()}

    return moved(params, ""), State(moved(step.state.params, "rule."), step.state.buffers)


def generator(seed: int) -> torch.Generator:
    """A generator of its own, on the CPU."""
    return torch.Generator().manual_seed(seed)


def flat(state: State) -> Tensors:
    """Every tensor of a state, by a name to report it by."""
    return {f"{kind}[{n!r}]": p for kind in ("params", "buffers") for n, p in getattr(state, kind).items()}


def flat_step(step: Step) -> Tensors:
    """Every tensor that a step returned, by a name to report it by."""
    grads = {f"grads[{n!r}]": g for n, g in step.grads.items()}
    updates = {f"updates[{n!r}]": u for n, u in step.updates.items()}
    logs = {f"logs[{n!r}]": log for n, log in step.logs.items()}
    loss = {} if step.loss is None else {"loss": step.loss}
    return grads | updates | {f"state.{n}": p for n, p in flat(step.state).items()} | loss | logs
