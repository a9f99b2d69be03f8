"""How far do a rule's errors travel from layer to layer? Measured on the rule's own steps.

A network is cut into blocks by its ``post`` sites. A rule without a backward pass may differentiate a block, by its
weights or by its input, but no gradient may go on from one block into the block in front of it. And where a block has
several layers in series, an error that is injected behind it travels through their forward weights, whatever the rule
declares. `travel` runs a rule's steps on a network with marks on either side of every such site and of every layer,
and looks at which of them autograd comes by, one after another, in one backward pass. What a rule does by hand, without
autograd or past `Net.run`, cannot be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rulezoo.credit import Loss
from rulezoo.net import Net, Tap, Tensors
from rulezoo.net.layers import in_series, operation_of
from rulezoo.net.tracing import Held, Node, Recorder
from rulezoo.rule import Batch, LearningRule, State


@dataclass(frozen=True)
class Travel:
    """What was seen of a rule's errors on a network.

    Attributes:
        sites: the visits of ``post`` sites that gradients went through, in the order of the forward pass. Empty for a
            rule without a backward pass; every visit but those that no gradient needs to pass, for backprop.
        depth: the largest number of layers in series that an error reached one through another: 1 where every layer's
            error was injected right behind it, the depth of the network for backprop; 0 where autograd came by none.
            A recurrent layer of torch (`torch.nn.GRU`) counts once for each time step, as an error passes it so often.
    """

    sites: tuple[str, ...]
    depth: int


def crossings(
    rule: LearningRule, net: Net, loss: Loss, params: Tensors, batch: Batch, *, steps: int = 3, seed: int = 0
) -> tuple[str, ...]:
    """`Travel.sites` of a rule; the arguments are those of `travel`."""
    return travel(rule, net, loss, params, batch, steps=steps, seed=seed).sites


def travel(
    rule: LearningRule,
    net: Net,
    loss: Loss,
    params: Tensors,
    batch: Batch,
    *,
    state: State | None = None,
    steps: int = 3,
    seed: int = 0,
) -> Travel:
    """How far a rule's errors travel.

    Args:
        rule: the rule.
        net: the network.
        loss: per example.
        params: its parameters.
        batch: a minibatch.
        state: the rule's memory, if it has one already.
        steps: run steps 0, 1, … of the rule, since what it does may depend on the number of the step. The parameters
            stay as they are.
        seed: of the rule's random numbers.
    """
    gen = torch.Generator(batch.x.device).manual_seed(seed)
    if state is None:
        state = rule.init(net, params, batch, torch.Generator().manual_seed(seed))
    crossed, depth = set[str](), 0
    for t in range(steps):
        marked = Marked(net)
        noise = rule.noise(marked, state, batch, gen, t)
        state = rule.step(marked, loss, params, state, batch, noise, t).state
        found = marked.travel()
        crossed, depth = crossed | set(found.sites), max(depth, found.depth)
    return Travel(tuple(key for key in net.keys("post") if key in crossed), depth)


@dataclass(frozen=True)
class _Mark:
    """A mark in the graph: on either side of a site or of one use of a layer, or of several layers in one call."""

    side: Literal["in front of site", "behind site", "into layer", "out of layer"]
    name: str
    layers: int = 0


_Passed = dict[Node, _Mark]
"""The marks that one backward pass came by."""


def _sites(passed: _Passed) -> set[str]:
    """The sites that the pass went through: from the mark behind one right to the mark in front of it."""
    return {
        mark.name
        for node, mark in passed.items()
        if mark.side == "behind site"
        for following in _following(node, passed)
        if passed[following] == _Mark("in front of site", mark.name)
    }


def _depth(passed: _Passed) -> int:
    """The largest number of layers that the pass came by one behind another."""
    depth: dict[Node, int] = {}
    stack = list(passed)
    while stack:
        node = stack[-1]
        before = _following(node, passed)
        if waiting := [one for one in before if one not in depth]:
            stack += waiting
            continue
        stack.pop()
        depth[node] = passed[node].layers + max((depth[one] for one in before), default=0)
    return max(depth.values(), default=0)


def _following(node: Node, passed: _Passed) -> list[Node]:
    """The marks that come next on the way back, with no other mark in between."""
    found, seen, stack = [], set(), [following for following, _ in node.next_functions]
    while stack:
        one = stack.pop()
        if one is None or one in seen:
            continue
        seen.add(one)
        if one in passed:
            found.append(one)
        elif "_Marking" not in one.name():  # a mark that this pass did not come by ends the way, too
            stack.extend(following for following, _ in one.next_functions)
    return found


class Marked(Net):
    """The same network, with marks outside of what a rule does at a site.

    Attributes:
        passed: number of a backward pass → the marks that it came by.
    """

    def __init__(self, net: Net) -> None:
        self.__dict__.update(net.__dict__)
        self.passed: dict[int, _Passed] = {}

    def travel(self) -> Travel:
        """How far errors have travelled through it until now."""
        crossed = {key for passed in self.passed.values() for key in _sites(passed)}
        sites = tuple(key for key in self.keys("post") if key in crossed)
        return Travel(sites, max((_depth(passed) for passed in self.passed.values()), default=0))

    def run(self, params: Mapping[str, Tensor], x: Tensor, tap: Tap | None = None) -> Tensor:
        """See `Net.run`."""

        def between_marks(key: str, h: Tensor) -> Tensor:
            if self.visits[key].kind != "post":
                return h if tap is None else tap(key, h)
            h = self.mark(h, _Mark("in front of site", key))
            h = h if tap is None else tap(key, h)
            return self.mark(h, _Mark("behind site", key))

        weights = {name: p for name, p in self.tensors(params).items() if name in self._of_layers}
        with _LayerMarks(self, weights, x) if weights else nullcontext():
            return super().run(params, x, between_marks)

    @property
    def _of_layers(self) -> frozenset[str]:
        return frozenset(name for layer in self.layers for name in layer.weights)

    def mark(self, h: Tensor, mark: _Mark) -> Tensor:
        """The same activity, whose gradient is seen as it comes by."""
        marked: Tensor = _Marking.apply(h, mark, self)
        return marked

    def into_layer(self, h: Tensor, name: str) -> Tensor:
        """Mark the input of something that acts as a layer, by a name of its own."""
        return self.mark(h, _Mark("into layer", name)) if h.is_floating_point() else h

    def out_of_layer(self, h: Tensor, name: str) -> Tensor:
        """Mark its result."""
        return self.mark(h, _Mark("out of layer", name, 1)) if h.is_floating_point() else h

    def came_by(self, mark: _Mark) -> None:
        """A backward pass comes by a mark."""
        number = torch._C._current_graph_task_id()
        self.passed.setdefault(number, {})[torch._C._current_autograd_node()] = mark


class _LayerMarks(Recorder):
    """Puts marks on either side of every layer, while it is active."""

    def __init__(self, net: Marked, weights: Mapping[str, Tensor], x: Tensor) -> None:
        super().__init__(weights, x, lambda: "")
        self._net = net

    def carry_out(
        self,
        func: Any,  # noqa: ANN401
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        number: int,
        given: tuple[Held, ...],
    ) -> Any:  # noqa: ANN401
        """Make the call with its input and its result marked, if it is a layer."""
        call = self._call(func, number, given, ())
        if operation_of(call) is None or call.activity is None or call.activity < 0:
            return func(*args, **kwargs)
        name = f"{func} {number}"
        at, into = call.activity, _Mark("into layer", name)
        if at < len(args):
            args = (*args[:at], self._marked(args[at], into), *args[at + 1 :])
        else:
            kwargs = kwargs | {"input": self._marked(kwargs["input"], into)}
        result = func(*args, **kwargs)
        out = _Mark("out of layer", name, in_series(call))
        if isinstance(result, Tensor):
            return self._marked(result, out)
        return tuple(self._marked(one, out) if isinstance(one, Tensor) else one for one in result)

    def _marked(self, h: Tensor, mark: _Mark) -> Tensor:
        return self._net.mark(h, mark) if h.is_floating_point() else h


class _Marking(torch.autograd.Function):
    """The identity, whose gradient is reported to a `Marked`."""

    @staticmethod
    def forward(h: Tensor, mark: _Mark, net: Marked) -> Tensor:
        return h.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:  # noqa: ANN401  torch's protocol
        _, ctx.mark, ctx.net = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        ctx.net.came_by(ctx.mark)
        return gradient, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:  # noqa: ANN401
        return tangent.clone()

    @staticmethod
    def vmap(info: Any, dims: Any, h: Tensor, mark: _Mark, net: Marked) -> tuple[Tensor, int]:  # noqa: ANN401
        return _Marking.apply(h, mark, net), dims[0]
