"""S networks under one rule, and the rule's part of a step; what a `Trainer` and a `rulezoo.Learner` both stand on.

With S > 1 every tensor has a leading axis of seeds, and `torch.func.vmap` turns the rule's single-network step into
one for all of them; with S = 1 there is no such axis and no vmap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rulezoo.credit import Loss
from rulezoo.net import Net, Tensors, Values
from rulezoo.rule import Batch, LearningRule, State
from rulezoo.seeding import generator
from rulezoo.training.batched_kernels import MIN_SEEDS, Pooling, channels_last
from rulezoo.training.rule_output import check_directions

_GRAPHS = 32  # of all trainers in a process: a rule has one for each kind of step in its schedule
OWN = "rule."  # prefix of the parameters that a rule owns


class Networks:
    """S networks that differ in nothing but their seed, and the memory of their rule.

    `gradients` is the rule's part of a step. Which optimizer uses what it returns is up to the caller, who also counts
    the steps, ``t``.

    Args:
        rule: the learning rule.
        net: the network.
        loss: per example.
        values: what each seed's network is made of.
        first: the first batch, with its axis of seeds.
        seeds: S seeds.
        compiled: let `torch.compile` take the rule's step, if it can.
        memory: what the rule remembers for each seed; ``None`` = what it starts with.
    """

    def __init__(
        self,
        rule: LearningRule,
        net: Net,
        loss: Loss,
        values: Sequence[Values],
        first: Batch,
        seeds: Sequence[int],
        *,
        compiled: bool = False,
        memory: Sequence[State] | None = None,
    ) -> None:
        self.rule, self.net, self.loss = rule, net, loss
        self.single, self.batched_kernels = len(seeds) == 1, len(seeds) >= MIN_SEEDS
        device = first.x.device
        own = [(type(rule).__name__, "init"), (type(rule).__name__, "noise")]
        self.seeds = seeds
        self.fixed = self._stack([v.fixed for v in values])
        self.statistics = self._stack([v.statistics for v in values])
        self.t = 0
        if memory is None:
            masks = self._masks(first)
            # What a rule remembers is never of lower precision.
            with torch.autocast(device.type, enabled=False):
                memory = [
                    rule.init(self._of(place, masks), v.params, Batch(x, y), generator(seed, *own[0]))
                    for place, (seed, v, x, y) in enumerate(zip(seeds, values, first.x, first.y, strict=True))
                ]
        states = [_to(state, device) for state in memory]
        self.noise = [generator(seed, *own[1], device=device) for seed in seeds]
        self.params = self._stack([v.params for v in values])
        self.state = State(self._stack([s.params for s in states]), self._stack([s.buffers for s in states]))
        self._every = self._one if self.single else torch.func.vmap(self._one, in_dims=(None, *(0,) * 9))
        # The full graph or nothing: half of a step compiled, or given up in silence, would be recorded as compiled.
        self._fast = torch.compile(self._every, fullgraph=True) if compiled else None

    def gradients(self, batch: Batch) -> tuple[Tensors, Tensors, Tensor | None, Tensors]:
        """The part of a step that is the rule's: its memory moves on, no parameter does. Shapes as the trainer's own.

        Returns:
            gradients, updates, mean loss, and what the rule logged; without an axis of seeds when there is one seed.
        """
        masks = self._masks(batch)
        noise = self._draw(batch, masks)
        if self.single:
            batch = Batch(batch.x[0], batch.y[0])
        elif self.batched_kernels and not self.compiled:
            batch = Batch(channels_last(batch.x), batch.y)
        grads, updates, buffers, self.statistics, loss, logs = self._all(
            self.t, self.params, self.state.params, self.state.buffers, batch.x, batch.y, noise,
            self.fixed, self.statistics, masks,
        )  # fmt: skip
        # What a rule owns and trains, the optimiser alone changes.
        self.state = State(self.state.params, buffers)
        return grads, updates, loss.get("loss"), logs

    def network(self, place: int, rows: int, *, training: bool = True) -> Net:
        """The network of one seed as it is now: for a step with that many examples, or to evaluate it."""
        masks = self._masks_of(self.seeds[place], rows)
        if not self.single:
            fixed, statistics = _at(self.fixed, place), _at(self.statistics, place)
            return self.net.bind(fixed, statistics, masks, training=training)
        return self.net.bind(self.fixed, self.statistics, masks, training=training)

    def _of(self, place: int, masks: Tensors) -> Net:
        """The network of one seed with its share of the masks of a step."""
        if self.single:
            return self.net.bind(self.fixed, self.statistics, masks)
        return self.net.bind(_at(self.fixed, place), _at(self.statistics, place), _at(masks, place))

    def _masks(self, batch: Batch) -> Tensors:
        """The masks of dropout of this step: the same for every rule."""
        return self._stack([self._masks_of(seed, len(batch.x[0])) for seed in self.seeds])

    def _masks_of(self, seed: int, rows: int) -> Tensors:
        if not self.net.drops:
            return {}
        return self.net.draw_masks(generator(seed, "dropout", self.t, device=self.net.example.device), rows)

    def of(self, place: int) -> tuple[Tensors, State]:
        """A copy of one network's parameters, and of its rule's memory, without an axis of seeds."""

        def copy(tensors: Tensors) -> Tensors:
            return {name: (v if self.single else v[place]).clone() for name, v in tensors.items()}

        return copy(self.params), State(copy(self.state.params), copy(self.state.buffers))

    def finite(self) -> Tensor:
        """Whether everything that a seed has trained is finite, ``(S,)``."""
        seeds = len(self.noise)
        trained = [*self.params.values(), *self.state.params.values()]
        return torch.stack([p.isfinite().reshape(seeds, -1).all(1) for p in trained]).all(0)

    def predict(self, x: Tensor) -> Tensor:
        """Outputs of all networks for the inputs ``(batch, ...)``: ``(S, batch, *out)``."""

        def one(
            params: Tensors, own: Tensors, buffers: Tensors, fixed: Tensors, statistics: Tensors
        ) -> Tensor:
            net = self.net.bind(fixed, statistics, training=False)
            return self.rule.predict(net, params, State(own, buffers), x)

        given = self.params, self.state.params, self.state.buffers, self.fixed, self.statistics
        with torch.no_grad():
            if self.single:
                return one(*given)[None]
            with self._kernels():
                outputs: Tensor = torch.func.vmap(one)(*given)
            return outputs

    def _all(self, *arguments: Any) -> tuple[Tensors, ...]:  # noqa: ANN401  those of `_one`
        """`_one` for all seeds, compiled for as long as the compiler can take it."""
        if self._fast is not None:
            from torch._dynamo import config
            from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

            try:
                with config.patch(recompile_limit=max(config.recompile_limit, _GRAPHS)):
                    return self._fast(*arguments)
            except (
                TorchDynamoException,
                FailOnRecompileLimitHit,
            ):  # e.g. it cannot vmap an autograd function yet
                self._fast = None
        with self._kernels():
            return self._every(*arguments)

    @property
    def compiled(self) -> bool:
        """Whether `torch.compile` takes the steps; not if it was asked to, and could not."""
        return self._fast is not None

    def _one(
        self,
        t: int,
        params: Tensors,
        own: Tensors,
        buffers: Tensors,
        x: Tensor,
        y: Tensor,
        noise: Tensors,
        fixed: Tensors,
        statistics: Tensors,
        masks: Tensors,
    ) -> tuple[Tensors, ...]:
        """The rule's step for one network: gradients, updates, the rule's buffers, statistics, the mean loss, logs.

        The loss is in a dictionary, empty where there is none: vmap hands on tensors alone.
        """
        net = self.net.bind(fixed, statistics, masks)
        step = self.rule.step(net, self.loss, params, State(own, buffers), Batch(x, y), noise, t)
        trained = {**params, **{OWN + name: p for name, p in own.items()}}
        check_directions(step.grads, step.updates, {name: tuple(p.shape) for name, p in trained.items()})
        kept = {
            name: v.to(buffers[name].dtype) if name in buffers else v
            for name, v in step.state.buffers.items()
        }
        loss = {} if step.loss is None else {"loss": step.loss}
        return step.grads, step.updates, kept, net.moved_statistics(), loss, step.logs

    def _kernels(self) -> AbstractContextManager[object]:
        return Pooling() if self.batched_kernels else nullcontext()

    def _draw(self, batch: Batch, masks: Tensors) -> Tensors:
        if self.single:
            first = Batch(batch.x[0], batch.y[0])
            return self.rule.noise(self._of(0, masks), self.state, first, self.noise[0], self.t)
        drawn = []
        for s, gen in enumerate(self.noise):
            state = State(_at(self.state.params, s), _at(self.state.buffers, s))
            own = Batch(batch.x[s], batch.y[s])
            drawn.append(self.rule.noise(self._of(s, masks), state, own, gen, self.t))
        return self._stack(drawn)

    def _stack(self, each: Sequence[Tensors]) -> Tensors:
        if self.single:
            contiguous = torch.contiguous_format  # for the optimiser, see `_descend`
            return {name: one.clone(memory_format=contiguous) for name, one in each[0].items()}
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def as_gradient(grad: Tensor, p: Tensor) -> Tensor:
    """``grad`` in the dtype of the parameter, and laid out in memory as it is; itself where it is so already.

    On the CPU, torch's fused optimisers take memory as it lies: a transposed or an expanded gradient would silently
    train other weights.
    """
    grad = grad.to(p.dtype)
    if p.is_contiguous():
        return grad.contiguous()
    return grad if grad.stride() == p.stride() else torch.empty_like(p).copy_(grad)


def add_updates(trained: Mapping[str, Tensor], updates: Tensors) -> None:
    """Add to parameters what the rule says, as it is."""
    with torch.no_grad():
        for name, update in updates.items():
            trained[name].add_(update.to(trained[name].dtype))


def shrink(params: Iterable[Tensor], factor: float) -> None:
    """Multiply the parameters that have a gradient, as decoupled weight decay does."""
    with torch.no_grad():
        for p in params:
            if p.grad is not None:
                p.mul_(factor)


def _to(state: State, device: torch.device) -> State:
    return State(
        {n: v.to(device) for n, v in state.params.items()},
        {n: v.to(device) for n, v in state.buffers.items()},
    )


def _at(tensors: Tensors, seed: int) -> Tensors:
    return {name: value[seed] for name, value in tensors.items()}
