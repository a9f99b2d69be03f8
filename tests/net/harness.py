"""A network in rulezoo's trainer, on the batches that a plain loop gets, too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rulezoo import Batch, Budget, LearningRule, Net, Step, add_sites, credit
from rulezoo.net import Values
from rulezoo.training.trainer import Trainer

from .networks import LR, STEPS, Network, evaluated, loss, targets

BUDGET = Budget(epochs=1, batch=6, lr=LR, optimizer="sgd")


@dataclass(frozen=True)
class FeedbackIsForward(LearningRule):
    """Feedback alignment with B = W: backprop."""

    def step(self, net, loss, params, state, batch, noise, t):
        every = {name: tensor.detach() for name, tensor in net.tensors(params).items()}
        feedback = {name: every[name] for name in credit.feedback_layers(net, params)}
        grads, mean = credit.through_feedback(net, loss, params, feedback, batch.x, batch.y)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class Course:
    """A network, its trainer, and the batches that it is trained on."""

    network: Network
    seeds: tuple[int, ...]
    rule: LearningRule

    @cached_property
    def batches(self) -> list[list[tuple[Tensor, Tensor]]]:
        """Of every step, for each seed."""
        output = evaluated(self.network.module(), self.network.inputs())
        shape, dtype = output.shape[1:], output.dtype
        return [
            [
                (
                    self.network.inputs(100 * seed + t),
                    targets(shape, self.network.batch, 100 * seed + t, dtype),
                )
                for seed in self.seeds
            ]
            for t in range(STEPS)
        ]

    def stacked(self, t: int) -> Batch:
        xs, ys = zip(*self.batches[t], strict=True)
        return Batch(torch.stack(xs), torch.stack(ys))

    def trainer(self) -> Trainer:
        modules = [add_sites(self.network.module(seed)) for seed in self.seeds]
        net = Net(modules[0], self.network.inputs())
        values: list[Values] = [net.values_of(module) for module in modules]
        return Trainer(self.rule, net, loss, values, self.stacked(0), self.seeds, BUDGET, STEPS)


def trained(course: Course, steps: range = range(STEPS), trainer: Trainer | None = None):
    """The trainer after its steps, and the masks of dropout of every step, for each seed."""
    trainer = trainer or course.trainer()
    masks = []
    for t in steps:
        drawn = [
            trainer.network(place, course.network.batch).masks or {} for place in range(len(course.seeds))
        ]
        masks.append([list(one.values()) for one in drawn])
        trainer.step(course.stacked(t))
    return trainer, masks


def state_of(trainer: Trainer, place: int = 0) -> dict[str, Tensor]:
    """What the network of one seed is now, as a state_dict."""
    return trainer.network(place, 1, training=False).state_dict(trainer.of(place)[0])
