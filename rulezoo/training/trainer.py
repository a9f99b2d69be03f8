"""Training S networks that differ in nothing but their seed, one step at a time.

With S > 1 every tensor has a leading axis of seeds, and `torch.func.vmap` turns the rule's single-network step into
one for all of them; with S = 1 there is no such axis and no vmap. `rulezoo.training.optimizers` says why one optimiser
over stacked tensors is S optimisers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rulezoo.credit import Loss
from rulezoo.net import Net, Tensors, Values
from rulezoo.rule import Batch, LearningRule, State
from rulezoo.seeding import generator, initial_network
from rulezoo.task import Budget, Task
from rulezoo.training import optimizers, schedules
from rulezoo.training.rule_output import check_directions
from rulezoo.training.together import MANY, Pooling, channels_last

_GRAPHS = 32  # of all trainers in a process: a rule has one for each kind of step in its schedule
OWN = "rule."  # prefix of the parameters that a rule owns


def build(
    task: Task, seeds: Sequence[int], example: Tensor, device: torch.device
) -> tuple[Net, list[Values]]:
    """The network and, for each seed, all that it is made of: drawn on the CPU, the same for every rule and device.

    Args:
        task: the task.
        seeds: the seeds.
        example: inputs; two or more, where the network normalises over the batch.
        device: where to compute.
    """
    modules = [initial_network(task, seed) for seed in seeds]
    net = Net(modules[0].to(device), example.to(device))
    return net, [net.values_of(module.to(device)) for module in modules]


class Trainer:
    """S networks, their rule's states and their optimiser. `step` advances them all by one batch.

    Args:
        rule: the learning rule.
        net: the network.
        loss: per example.
        values: what each seed's network is made of.
        first: the first batch, with its axis of seeds.
        seeds: S seeds.
        budget: learning rate and optimiser.
        steps: number of steps of the whole training, for the schedule.
        compiled: let `torch.compile` take the rule's step, if it can; the optimiser stays as it is.
    """

    def __init__(
        self,
        rule: LearningRule,
        net: Net,
        loss: Loss,
        values: Sequence[Values],
        first: Batch,
        seeds: Sequence[int],
        budget: Budget,
        steps: int,
        *,
        compiled: bool = False,
    ) -> None:
        self.rule, self.net, self.loss, self.budget, self.steps = rule, net, loss, budget, steps
        self.alone, self.many = len(seeds) == 1, len(seeds) >= MANY
        device = first.x.device
        own = [(type(rule).__name__, "init"), (type(rule).__name__, "noise")]
        self.seeds = seeds
        self.fixed = self._stack([v.fixed for v in values])
        self.statistics = self._stack([v.statistics for v in values])
        self.t = 0
        masks = self._masks(first)
        with torch.autocast(device.type, enabled=False):  # what a rule remembers is never of lower precision
            states = [
                _to(
                    rule.init(self._of(place, masks), v.params, Batch(x, y), generator(seed, *own[0])), device
                )
                for place, (seed, v, x, y) in enumerate(zip(seeds, values, first.x, first.y, strict=True))
            ]
        self.noise = [generator(seed, *own[1], device=device) for seed in seeds]
        self.params = self._stack([v.params for v in values])
        self.state = State(self._stack([s.params for s in states]), self._stack([s.buffers for s in states]))
        self._every = self._one if self.alone else torch.func.vmap(self._one, in_dims=(None, *(0,) * 9))
        # The full graph or nothing: half of a step compiled, or given up in silence, would be recorded as compiled.
        self._fast = torch.compile(self._every, fullgraph=True) if compiled else None
        self.trained = {**self.params, **{OWN + name: p for name, p in self.state.params.items()}}
        decoupled = rule.decoupled_decay
        if problem := optimizers.problem(budget, decoupled=decoupled) or schedules.problem(budget):
            raise ValueError(problem)
        self.schedule = schedules.Schedule(budget, steps)
        self._parts = {name: optimizers.parts(budget, p, len(seeds)) for name, p in self.trained.items()}
        self.optimizer = optimizers.make(budget, self._parts, rule.rates(net), decoupled=decoupled)
        self._total_lr = sum(schedules.Schedule(budget, steps).at(t)["lr"] for t in range(steps * decoupled))

    def step(self, batch: Batch) -> tuple[Tensor | None, Tensors]:
        """Train on one batch with an axis of seeds; the mean loss of each seed ``(S,)``, and what the rule logged.

        The loss is ``None`` where the rule computes none.
        """
        grads, updates, loss, logs = self.gradients(batch)
        self._descend(grads)
        self._add(updates)
        self.t += 1
        # Autocast remembers a copy of each parameter until its outermost block is left, which is after the last step.
        torch.clear_autocast_cache()
        if not self.alone:
            return loss, logs
        return None if loss is None else loss[None], {k: v[None] for k, v in logs.items()}

    def gradients(self, batch: Batch) -> tuple[Tensors, Tensors, Tensor | None, Tensors]:
        """The part of a step that is the rule's: its memory moves on, no parameter does. Shapes as the trainer's own.

        Returns:
            gradients, updates, mean loss, and what the rule logged; without an axis of seeds when there is one seed.
        """
        masks = self._masks(batch)
        noise = self._draw(batch, masks)
        if self.alone:
            batch = Batch(batch.x[0], batch.y[0])
        elif self.many and not self.compiled:
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
        if not self.alone:
            fixed, statistics = _at(self.fixed, place), _at(self.statistics, place)
            return self.net.bind(fixed, statistics, masks, training=training)
        return self.net.bind(self.fixed, self.statistics, masks, training=training)

    def _of(self, place: int, masks: Tensors) -> Net:
        """The network of one seed with its share of the masks of a step."""
        if self.alone:
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
            return {name: (v if self.alone else v[place]).clone() for name, v in tensors.items()}

        return copy(self.params), State(copy(self.state.params), copy(self.state.buffers))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on, as it lies in memory: tensors, numbers and strings."""
        return {
            "t": self.t,
            "trained": dict(self.trained),
            "buffers": dict(self.state.buffers),
            "statistics": dict(self.statistics),
            "optimizer": self.optimizer.state_dict(),
            "noise": [gen.get_state() for gen in self.noise],
        }

    def optimizer_state_like(self) -> dict[int, dict[str, Any]]:
        """What the optimiser keeps of each parameter once it was trained, by its number; shapes and no values."""
        return optimizers.state_like(self.optimizer)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of a trainer of the same rule, task, budget and seeds."""
        self.t = saved["t"]
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(saved["trained"][name])
        self.state = State(self.state.params, dict(saved["buffers"]))
        self.statistics = dict(saved["statistics"])
        optimizers.load_state(self.optimizer, saved["optimizer"])
        for gen, state in zip(self.noise, saved["noise"], strict=True):
            gen.set_state(state.cpu())  # torch wants it there, whatever the generator draws on

    def finite(self) -> Tensor:
        """Whether everything that a seed has trained is finite, ``(S,)``."""
        seeds = len(self.noise)
        return torch.stack([p.isfinite().view(seeds, -1).all(1) for p in self.trained.values()]).all(0)

    def predict(self, x: Tensor) -> Tensor:
        """Outputs of all networks for the inputs ``(batch, ...)``: ``(S, batch, *out)``."""

        def one(
            params: Tensors, own: Tensors, buffers: Tensors, fixed: Tensors, statistics: Tensors
        ) -> Tensor:
            net = self.net.bind(fixed, statistics, training=False)
            return self.rule.predict(net, params, State(own, buffers), x)

        given = self.params, self.state.params, self.state.buffers, self.fixed, self.statistics
        with torch.no_grad():
            if self.alone:
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
        return Pooling() if self.many else nullcontext()

    def _draw(self, batch: Batch, masks: Tensors) -> Tensors:
        if self.alone:
            first = Batch(batch.x[0], batch.y[0])
            return self.rule.noise(self._of(0, masks), self.state, first, self.noise[0], self.t)
        drawn = []
        for s, gen in enumerate(self.noise):
            state = State(_at(self.state.params, s), _at(self.state.buffers, s))
            own = Batch(batch.x[s], batch.y[s])
            drawn.append(self.rule.noise(self._of(s, masks), state, own, gen, self.t))
        return self._stack(drawn)

    def _add(self, updates: Tensors) -> None:
        """Add to parameters what the rule says, as it is."""
        with torch.no_grad():
            for name, update in updates.items():
                self.trained[name].add_(update.to(self.trained[name].dtype))

    def _descend(self, grads: Tensors) -> None:
        settings = self.schedule.at(self.t)
        for group in self.optimizer.param_groups:
            group.update(settings)
            group["lr"] *= group["rate"]
        # On the CPU, torch's fused optimisers take memory as it lies: a transposed or an expanded gradient would
        # silently train other weights.
        grads = {name: grad.to(self.trained[name].dtype).contiguous() for name, grad in grads.items()}
        if self.budget.clip_norm is not None:
            grads = optimizers.clipped(grads, self.budget.clip_norm, len(self.seeds))
        for name, p in self.trained.items():
            grad = grads.get(name)
            for place, part in enumerate(self._parts[name]):
                part.grad = grad if grad is None or part is p else grad[place]
        self._decay()
        self.optimizer.step()

    def _decay(self) -> None:
        """The weight decay of a rule with ``decoupled_decay``: this step's share of that of the whole training."""
        for group in self.optimizer.param_groups:
            if group["decoupled"] and group["lr"]:
                kept = math.exp(-group["decoupled"] * group["lr"] / self._total_lr)
                with torch.no_grad():
                    for p in group["params"]:
                        if p.grad is not None:
                            p.mul_(kept)

    def _stack(self, each: Sequence[Tensors]) -> Tensors:
        if self.alone:
            contiguous = torch.contiguous_format  # for the optimiser, see `_descend`
            return {name: one.clone(memory_format=contiguous) for name, one in each[0].items()}
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def _to(state: State, device: torch.device) -> State:
    return State(
        {n: v.to(device) for n, v in state.params.items()},
        {n: v.to(device) for n, v in state.buffers.items()},
    )


def _at(tensors: Tensors, seed: int) -> Tensors:
    return {name: value[seed] for name, value in tensors.items()}
