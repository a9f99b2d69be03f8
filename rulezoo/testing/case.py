"""A rule on a network, and the small training loop that the checks watch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from rulezoo.net import Tensors
from rulezoo.rule import Batch, LearningRule, State, Step
from rulezoo.specs import Plausibility, RuleSpec
from rulezoo.testing.drawn import drawn_net, is_drawn
from rulezoo.testing.expect import NotApplicable, expect
from rulezoo.testing.nets import KINDS, SPIKING, TinyNet, cached_net
from rulezoo.testing.networks import Network

LR = 0.05  # of the plain descent by which a case moves on
TIMES = range(4)
SIZES = (64, 200)  # between these lies that of a batch that no other check uses, as large as in comparisons
LATE = (10, 5000)  # between these lies the number of the last of a few `moments`


@dataclass(frozen=True)
class Case:
    """A rule on a network.

    Attributes:
        rule: the rule.
        spec: what its plugin says about it, or ``None`` for a bare rule.
        tiny: the network, with its parameters and batches.
        seed: of what `drawn` draws.
    """

    rule: LearningRule
    spec: RuleSpec | None
    tiny: Network
    seed: int = 0

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
        """Whether the rule declares that hidden layers do not learn at all, by ``hidden_learning=False``."""
        return self.plausibility is not None and not self.plausibility.hidden_learning

    @property
    def unsupervised(self) -> bool:
        """Whether the rule declares that hidden layers receive no error signal, whether they learn or not."""
        return self.plausibility is not None and self.plausibility.signal == "none"

    @property
    def plausibility(self) -> Plausibility | None:
        """What the rule declares of its plausibility, with the options that it has."""
        return None if self.spec is None else self.spec.plausibility_with(self.rule.resolved())

    @property
    def hidden(self) -> list[str]:
        """The parameters in front of a site, which training the read-out alone leaves as they are."""
        return [name for name in self.tiny.net.shapes if name not in self.tiny.net.readout]

    @property
    def drawn(self) -> Case | None:
        """The case on a network of the same kind whose sizes, names and data are drawn; ``None`` for other networks.

        Raises:
            CheckFailed: if the rule skips it, although it serves the standard network of this kind.
        """
        tiny = self.tiny
        if not isinstance(tiny, TinyNet) or is_drawn(tiny):
            return None
        like = tiny.net.example
        net = drawn_net(tiny.name, 1 + self.seed, like.dtype, like.device.type)
        drawn = replace(self, tiny=net)
        reason = self.rule.skip(drawn.tiny.net, drawn.tiny.task)
        sentence = (
            f"the rule serves {tiny.name}, but skips a network of the same kind with other sizes and names"
        )
        expect(reason is None, f"{sentence}: {reason}")
        return drawn

    @property
    def variants(self) -> tuple[Case, ...]:
        """This case, and that on the drawn network if there is one."""
        return tuple(case for case in (self, self.drawn) if case is not None)

    @property
    def disguised(self) -> tuple[Case, ...]:
        """The case as it is trained: in float32, on another drawn network; none for other networks."""
        tiny = self.tiny
        if not isinstance(tiny, TinyNet) or is_drawn(tiny):
            return ()
        other = drawn_net(tiny.name, 2 + self.seed, torch.float32)
        served = self.rule.skip(other.net, other.task) is None
        return (replace(self, tiny=other),) if served else ()

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


def needs_declaration(case: Case, field: str) -> None:
    """See that the rule declares that its plausibility has not this field.

    Raises:
        NotApplicable: if it does not.
    """
    if case.plausibility is None:
        raise NotApplicable("no plausibility is declared")
    if getattr(case.plausibility, field):
        raise NotApplicable(f"the rule declares {field}=True")


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


@lru_cache(maxsize=16)
def moments(case: Case) -> tuple[Moment, ...]:
    """A few steps of `walk`, the last of them with a number that is drawn from the case's seed; the same for all checks.

    In float32 the size of the batch is drawn, too.
    """
    drawn = random.Random(case.seed)
    late = drawn.randint(*LATE)
    size = 12 if case.tiny.net.example.dtype == torch.float64 else drawn.randint(*SIZES)
    return tuple(walk(case, (*TIMES, late), size=lambda t: size))


def descend(params: Tensors, step: Step) -> tuple[Tensors, State]:
    """One step of plain descent, on the network's parameters and on those of the rule, with the rule's updates."""

    def moved(tensors: Tensors, prefix: str) -> Tensors:
        changes = {**{n: -LR * g for n, g in step.grads.items()}, **step.updates}
        return {n: p + changes[prefix + n] if prefix + n in changes else p for n, p in tensors.items()}

    return moved(params, ""), State(moved(step.state.params, "rule."), step.state.buffers)


def first_served(case: Case) -> Case:
    """The case on the first tiny network that the rule can serve."""
    for kind in (*KINDS, *SPIKING):
        tiny = cached_net(kind)
        if case.rule.skip(tiny.net, tiny.task) is None:
            return replace(case, tiny=tiny)
    raise NotApplicable("the rule skips every tiny network")


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


def other_targets(y: Tensor) -> Tensor:
    """Other targets in place of each: the next of the labels that occur, or a larger number."""
    if y.is_floating_point():
        return y + 1
    labels: Tensor
    which: Tensor
    labels, which = torch.unique(y, return_inverse=True)
    return labels[(which + 1) % len(labels)]
