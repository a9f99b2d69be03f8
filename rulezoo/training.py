"""Training S networks that differ in nothing but their seed, one step at a time.

With S > 1 every tensor has a leading axis of seeds, and `torch.func.vmap` turns the rule's single-network step into
one for all of them; with S = 1 there is no such axis and no vmap. Optimisers act element by element, so one optimiser
over stacked tensors is S optimisers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rulezoo.credit import Loss
from rulezoo.net import Net, Tensors
from rulezoo.rule import Batch, LearningRule, State
from rulezoo.seeding import generator, number
from rulezoo.task import Budget, Split, Task

OWN = "rule."  # prefix of the parameters that a rule owns


def build(
    task: Task, seeds: Sequence[int], example: Tensor, device: torch.device
) -> tuple[Net, list[Tensors]]:
    """The network and, for each seed, its initial parameters: drawn on the CPU, the same for every rule and device."""
    modules = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number(seed, "init"))  # of the CPU alone, as forked above
            modules.append(task.network())
    params = [{n: p.detach().to(device, copy=True) for n, p in m.named_parameters()} for m in modules]
    return Net(modules[0].to(device), example.to(device)), params


class Batches:
    """The minibatches of one split, in an order of its own for each seed.

    Args:
        split: on the device.
        size: examples in a batch; a shorter last batch is dropped, unless there is no other.
        seeds: the seeds.
    """

    def __init__(self, split: Split, size: int, seeds: Sequence[int]) -> None:
        self.split = split
        self.size = min(size, len(split.x))
        self.seeds = seeds
        self.per_epoch = len(split.x) // self.size

    def epoch(self, number: int) -> Tensor:
        """Indices of one epoch's examples, ``(S, per_epoch, size)``."""
        orders = [
            torch.randperm(len(self.split.x), generator=generator(s, "order", number)) for s in self.seeds
        ]
        used = self.per_epoch * self.size
        return (
            torch.stack(orders)[:, :used]
            .view(len(self.seeds), self.per_epoch, self.size)
            .to(self.split.x.device)
        )

    def take(self, which: Tensor) -> Batch:
        """The examples ``which`` of shape ``(S, size)``: inputs ``(S, size, ...)``."""
        return Batch(self.split.x[which], self.split.y[which])


class Trainer:
    """S networks, their rule's states and their optimiser. `step` advances them all by one batch.

    Args:
        rule: the learning rule.
        net: the network.
        loss: per example.
        params: initial parameters of each seed.
        first: the first batch, with its axis of seeds.
        seeds: S seeds.
        budget: learning rate and optimiser.
        steps: number of steps of the whole training, for the schedule.
    """

    def __init__(
        self,
        rule: LearningRule,
        net: Net,
        loss: Loss,
        params: Sequence[Tensors],
        first: Batch,
        seeds: Sequence[int],
        budget: Budget,
        steps: int,
    ) -> None:
        self.rule, self.net, self.loss, self.budget, self.steps = rule, net, loss, budget, steps
        self.alone = len(seeds) == 1
        device = first.x.device
        own = [(type(rule).__name__, "init"), (type(rule).__name__, "noise")]
        states = [
            _to(rule.init(net, p, Batch(x, y), generator(seed, *own[0])), device)
            for seed, p, x, y in zip(seeds, params, first.x, first.y, strict=True)
        ]
        self.noise = [generator(seed, *own[1], device=device) for seed in seeds]
        self.params = self._stack(params)
        self.state = State(self._stack([s.params for s in states]), self._stack([s.buffers for s in states]))
        self.t = 0
        self.trained = {**self.params, **{OWN + name: p for name, p in self.state.params.items()}}
        self.optimizer = _optimizer(budget, self.trained)

    def step(self, batch: Batch) -> tuple[Tensor, Tensors]:
        """Train on one batch with an axis of seeds; the mean loss of each seed ``(S,)``, and what the rule logged."""
        noise = self._draw(batch)
        if self.alone:
            batch = Batch(batch.x[0], batch.y[0])
        grads, buffers, loss, logs = self._gradients(batch, noise)
        self.state = State(
            self.state.params, buffers
        )  # what a rule owns and trains, the optimiser alone changes
        self._descend(grads)
        self.t += 1
        return (loss[None], {k: v[None] for k, v in logs.items()}) if self.alone else (loss, logs)

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
            "optimizer": self.optimizer.state_dict(),
            "noise": [gen.get_state() for gen in self.noise],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from the `state_dict` of a trainer of the same rule, task, budget and seeds."""
        self.t = saved["t"]
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(saved["trained"][name])
        self.state = State(self.state.params, dict(saved["buffers"]))
        self.optimizer.load_state_dict(saved["optimizer"])
        for gen, state in zip(self.noise, saved["noise"], strict=True):
            gen.set_state(state.cpu())  # torch wants it there, whatever the generator draws on

    def finite(self) -> Tensor:
        """Whether everything that a seed has trained is finite, ``(S,)``."""
        seeds = len(self.noise)
        return torch.stack([p.isfinite().view(seeds, -1).all(1) for p in self.trained.values()]).all(0)

    def predict(self, x: Tensor) -> Tensor:
        """Outputs of all networks for the inputs ``(batch, ...)``: ``(S, batch, *out)``."""

        def one(params: Tensors, own: Tensors, buffers: Tensors) -> Tensor:
            return self.rule.predict(self.net, params, State(own, buffers), x)

        with torch.no_grad():
            if self.alone:
                return one(self.params, self.state.params, self.state.buffers)[None]
            outputs: Tensor = torch.func.vmap(one)(self.params, self.state.params, self.state.buffers)
            return outputs

    def _gradients(self, batch: Batch, noise: Tensors) -> tuple[Tensors, Tensors, Tensor, Tensors]:
        t = self.t

        def one(
            params: Tensors, own: Tensors, buffers: Tensors, x: Tensor, y: Tensor, z: Tensors
        ) -> tuple[Tensors, Tensors, Tensor, Tensors]:
            grads, state, loss, logs = self.rule.step(
                self.net, self.loss, params, State(own, buffers), Batch(x, y), z, t
            )
            return grads, state.buffers, loss, logs

        every = one if self.alone else torch.func.vmap(one)
        result: tuple[Tensors, Tensors, Tensor, Tensors] = every(
            self.params, self.state.params, self.state.buffers, batch.x, batch.y, noise
        )
        return result

    def _draw(self, batch: Batch) -> Tensors:
        drawn = []
        for s, gen in enumerate(self.noise):
            state = self.state if self.alone else State(_at(self.state.params, s), _at(self.state.buffers, s))
            drawn.append(self.rule.noise(self.net, state, Batch(batch.x[s], batch.y[s]), gen, self.t))
        return self._stack(drawn)

    def _descend(self, grads: Mapping[str, Tensor]) -> None:
        if strange := sorted(grads.keys() - self.trained.keys()):
            known = ", ".join(self.trained)
            raise ValueError(f"a gradient of {', '.join(strange)} was given; the parameters are {known}")
        for group in self.optimizer.param_groups:
            group["lr"] = self.budget.lr * _schedule(self.budget, self.t, self.steps)
        for name, p in self.trained.items():
            grad = grads.get(name)
            # On the CPU, torch's fused optimisers take memory as it lies: a transposed or an expanded gradient would
            # silently train other weights.
            p.grad = None if grad is None else grad.contiguous()
        self.optimizer.step()

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


def _optimizer(budget: Budget, params: Tensors) -> torch.optim.Optimizer:
    tensors, lr, decay = list(params.values()), budget.lr, budget.weight_decay
    match budget.optimizer:
        case "sgd":
            return torch.optim.SGD(tensors, lr, momentum=0.9, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.AdamW(tensors, lr, weight_decay=decay, fused=True)
    raise ValueError(f"the budget's optimizer must be 'adam' or 'sgd', got {budget.optimizer!r}")


def _schedule(budget: Budget, t: int, steps: int) -> float:
    """Factor on the learning rate of step ``t`` of ``steps``."""
    match budget.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return (1 + math.cos(math.pi * t / steps)) / 2
    raise ValueError(f"the budget's schedule must be 'constant' or 'cosine', got {budget.schedule!r}")
