r"""Forward gradients: a random direction, times the derivative of the loss along it.

For a direction z with independent standard normal entries, (∇L · z) z has the mean ∇L, and ∇L · z comes out of one
forward pass in forward-mode differentiation: nothing is stored and nothing travels back.

- `WeightForwardGradient`: Baydin et al. 2022 (arXiv:2202.08587), algorithm 1: z is a direction of all parameters, and
  ∇L the gradient of the mean loss. The variance grows with the number of parameters.
- `ActivityForwardGradient`: Ren et al. 2023 (arXiv:2210.03310), section 3: each example has a direction of its own, of
  the activity at the ``post`` sites, and the derivative of its own loss; the estimate is pulled back through the block
  in front of the site. The variance grows with the number of units. Deviation: the read-out, whose error is known,
  learns from that error, as in the other rules here. Their local losses and group heads are not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class _ForwardGradient(LearningRule):
    draws: int = hp(1, "directions per step, over which the estimate is averaged", low=1)


@dataclass(frozen=True)
class WeightForwardGradient(_ForwardGradient):
    """Every parameter moves along its own random number, times one number that all of them receive."""

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Directions ``(draws, *shape)`` of every parameter."""
        return {
            name: torch.randn((self.draws, *shape), generator=gen, device=gen.device)
            for name, shape in net.shapes.items()
        }

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""

        def mean_loss(p: Tensors) -> Tensor:
            return loss(net.run(p, batch.x), batch.y).mean()

        def estimate(z: Tensors) -> tuple[Tensors, Tensor]:
            value, slope = credit.value_and_derivative(mean_loss, params, z)
            return {name: slope * direction for name, direction in z.items()}, value

        directions = {name: z.to(params[name].dtype) for name, z in noise.items()}
        grads, mean = torch.func.vmap(estimate)(directions)
        return Step({name: g.mean(0) for name, g in grads.items()}, state, mean.mean())


@dataclass(frozen=True)
class ActivityForwardGradient(_ForwardGradient):
    """Every unit moves along its own random number, times one number that all units of an example receive."""

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs activity to perturb."""
        if net.keys("post"):
            return None
        return "it perturbs the activity at sites of kind 'post', and this network has none"

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Directions ``(draws, batch, *shape)`` of the activity at every ``post`` site."""
        shapes = {key: (self.draws, len(batch.x), *net.visits[key].shape) for key in net.keys("post")}
        return {key: net.normal(shape, gen) for key, shape in shapes.items()}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        zeros = {key: torch.zeros_like(h) for key, h in cut.sites.items()}

        def losses(offset: Tensors) -> Tensor:
            return loss(net.run(params, batch.x, lambda k, h: h + offset[k] if k in offset else h), batch.y)

        def estimate(z: Tensors) -> Tensors:
            _, slope = credit.value_and_derivative(losses, zeros, z)
            return {key: torch.einsum("b,b...->b...", slope, direction) for key, direction in z.items()}

        directions = {key: z.to(zeros[key].dtype) for key, z in noise.items()}
        signals = torch.func.vmap(estimate)(directions)
        return Step(
            cut.pull(error, {key: s.mean(0) / len(batch.x) for key, s in signals.items()}), state, mean
        )
