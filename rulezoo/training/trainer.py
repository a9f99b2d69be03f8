"""Training S networks that differ in nothing but their seed, one step at a time, with the optimiser of a budget.

The rule's part of a step is that of `rulezoo.training.networks`. `rulezoo.training.optimizers` says why one optimiser
over stacked tensors is S optimisers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rulezoo.credit import Loss
from rulezoo.net import Net, Tensors, Values
from rulezoo.rule import Batch, LearningRule, State
from rulezoo.seeding import initial_network
from rulezoo.task import Budget, Task
from rulezoo.training import optimizers, schedules
from rulezoo.training.networks import OWN, Networks, add_updates, as_gradient, shrink


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


class Trainer(Networks):
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
        super().__init__(rule, net, loss, values, first, seeds, compiled=compiled)
        self.budget, self.steps = budget, steps
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
        add_updates(self.trained, updates)
        self.t += 1
        # Autocast remembers a copy of each parameter until its outermost block is left, which is after the last step.
        torch.clear_autocast_cache()
        if not self.single:
            return loss, logs
        return None if loss is None else loss[None], {k: v[None] for k, v in logs.items()}

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

    def _descend(self, grads: Tensors) -> None:
        settings = self.schedule.at(self.t)
        for group in self.optimizer.param_groups:
            group.update(settings)
            group["lr"] *= group["rate"]
        grads = {name: as_gradient(grad, self.trained[name]) for name, grad in grads.items()}
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
                shrink(group["params"], math.exp(-group["decoupled"] * group["lr"] / self._total_lr))
