"""Does a rule send gradients from layer to layer? A detector, for rules that say that they do not.

A network is cut into blocks by its ``post`` sites. A rule without a backward pass may differentiate a block, by its
weights or by its input, but no gradient may go on from one block into the block in front of it. `crossings` runs the
rule's own steps on a network with a mark on either side of every such site. When autograd comes back to the mark behind
a site it leaves a poison (nan) in the gradient; when the mark in front of the site meets poison in that same backward
pass, a gradient went through. A rule that cuts the graph at a site and injects a signal of its own there meets none.
A step is run once for every backward pass in it, with poison in that pass alone, lest poison from an earlier pass come
back within a signal. What a rule does by hand, without autograd or past `Net.run`, cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from rulezoo.credit import Loss
from rulezoo.net import Net, Tap, Tensors
from rulezoo.rule import Batch, LearningRule


def crossings(
    rule: LearningRule, net: Net, loss: Loss, params: Tensors, batch: Batch, *, steps: int = 3, seed: int = 0
) -> tuple[str, ...]:
    """The visits of ``post`` sites through which a rule's gradients go, in the order of the forward pass.

    Empty for a rule without a backward pass; every visit but those that no gradient needs to pass, for backprop.

    Args:
        rule: the rule.
        net: the network.
        loss: per example.
        params: its parameters.
        batch: a minibatch.
        steps: run steps 0, 1, … of the rule, since what it does may depend on the number of the step. The parameters
            stay as they are.
        seed: of the rule's random numbers.
    """
    gen = torch.Generator(batch.x.device).manual_seed(seed)
    state = rule.init(net, params, batch, torch.Generator().manual_seed(seed))
    crossed: set[str] = set()
    for t in range(steps):
        noise = rule.noise(net, state, batch, gen, t)
        clean = _Marked(net)
        after = rule.step(clean, loss, params, state, batch, noise, t).state
        for number in range(len(clean.passes)):
            marked = _Marked(net, poisoned=number)
            with suppress(Exception):  # the step is in order: what goes wrong now, the poison did
                rule.step(marked, loss, params, state, batch, noise, t)
            crossed |= marked.crossed
        state = after
    return tuple(key for key in net.keys("post") if key in crossed)


class _Marked(Net):
    """The same network, with a mark on either side of every ``post`` site, outside of what a rule does there.

    Attributes:
        passes: those backward passes, in their order, that came back to a site from behind.
        crossed: the visits through which the gradient of the poisoned pass went.
    """

    def __init__(self, net: Net, poisoned: int | None = None) -> None:
        self.__dict__.update(net.__dict__)
        self.passes: list[int] = []
        self.crossed: set[str] = set()
        self._poisoned = poisoned

    def run(self, params: Mapping[str, Tensor], x: Tensor, tap: Tap | None = None) -> Tensor:
        """See `Net.run`."""

        def between_marks(key: str, h: Tensor) -> Tensor:
            if self.visits[key].kind != "post":
                return h if tap is None else tap(key, h)
            h = _Mark.apply(h, lambda gradient: self._in_front(key, gradient))
            h = h if tap is None else tap(key, h)
            behind: Tensor = _Mark.apply(h, self._behind)
            return behind

        return super().run(params, x, between_marks)

    def _behind(self, gradient: Tensor) -> Tensor:
        this = torch._C._current_graph_task_id()
        if this not in self.passes:
            self.passes.append(this)
        return torch.full_like(gradient, torch.nan) if self._in_poisoned_pass() else gradient

    def _in_front(self, key: str, gradient: Tensor) -> Tensor:
        if self._in_poisoned_pass() and gradient.isnan().any():
            self.crossed.add(key)
        return gradient

    def _in_poisoned_pass(self) -> bool:
        poisoned = self.passes[self._poisoned : self._poisoned + 1] if self._poisoned is not None else []
        return torch._C._current_graph_task_id() in poisoned


class _Mark(torch.autograd.Function):
    """The identity, whose gradient goes through a function."""

    @staticmethod
    def forward(h: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return h.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:  # noqa: ANN401  torch's protocol
        _, ctx.function = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return _Seen.apply(gradient, ctx.function), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:  # noqa: ANN401
        return tangent.clone()

    @staticmethod
    def vmap(info: Any, dims: Any, h: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:  # noqa: ANN401
        return _Mark.apply(h, function), dims[0]


class _Seen(torch.autograd.Function):
    """A function of the value; inside vmap, which shows no values, it is called with all of them at once."""

    @staticmethod
    def forward(value: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(value).clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:  # noqa: ANN401  torch's protocol
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return gradient, None

    @staticmethod
    def vmap(info: Any, dims: Any, value: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:  # noqa: ANN401
        return _Seen.apply(value, function), dims[0]
