r"""Forward gradients: a random direction, times the derivative of the loss along it.

For a direction z with independent standard normal entries, (∇L · z) z has the mean ∇L, and ∇L · z comes out of one
forward pass in forward-mode differentiation: nothing is stored and nothing travels back.

- `WeightForwardGradient`: Baydin et al. 2022 (arXiv:2202.08587), algorithm 1: z is a direction of all parameters, and
  ∇L the gradient of the mean loss. The variance grows with the number of parameters.
- `ActivityForwardGradient`: Ren et al. 2023 (arXiv:2210.03310), section 3: each example has a direction of its own, of
  the activity at the ``post`` sites, and the derivative of its own loss; the estimate is pulled back through the block
  in front of the site. The variance grows with the number of units.
- `LocalForwardGradient`: the same paper, sections on local losses: every site has a loss of its own, that of a linear head, and
  the derivative is that of the local loss. The units of a site are divided into groups. A group's derivative is taken with
  the activity of the others held, so its variance grows with the number of units of the group: ĝ_G = (∂ℓ/∂h_G · z_G) z_G. The
  mean is the gradient of the local loss, as in `local-prediction`; the head, the last layer of its loss, learns from its error.
- `FeatureForwardGradient`: Singhal et al. 2023 (arXiv:2312.04709): gradients lie near a subspace that depends on the architecture
  and on the features that come in. The gradient of a site's activity h is Wᵀδ, with W the weights of the layer that h enters;
  these have learnt from δ hᵀ, so their rows, and the gradient, lie near the span of h over examples. The direction is a
  random mixture of features, z = U c with U a basis of the leading d directions of the batch's activity, and the mean of the
  estimate is the projection U Uᵀ ∂L/∂h. The same argument gives neural manifold noise correlation its subspace.

Deviations: the read-out, whose error is known, learns from that error, as in the other rules here. Directions are those of
``post`` activity, of one site at a time in `FeatureForwardGradient`. Local heads are linear in all units of a site; there are
no losses of patches of an image, and no LocalMixer.
Features are mixed in an orthonormal basis, not as they are, so that the mean is a projection; guesses made of the forward
weights are left out, as they are a transport of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp, manifold
from rulezoo_plugins.local_losses.rules import LocalPrediction

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

    together: bool = hp(True, "directions of all sites at once, instead of one pass for each site")

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
            at = {key: zeros[key] for key in z}
            _, slope = credit.value_and_derivative(losses, at, z)
            return {key: torch.einsum("b,b...->b...", slope, direction) for key, direction in z.items()}

        directions = {key: z.to(zeros[key].dtype) for key, z in self.directions(cut.sites, noise).items()}
        signals: Tensors = {}
        for keys in [list(directions)] if self.together else [[key] for key in directions]:
            found = torch.func.vmap(estimate)({key: directions[key] for key in keys})
            signals |= {key: s.mean(0) / len(batch.x) for key, s in found.items()}
        return Step(cut.pull(error, signals), state, mean)

    def directions(self, sites: Tensors, noise: Tensors) -> Tensors:
        """Directions ``(draws, batch, *shape)`` of the activity, made of the random numbers."""
        return noise


@dataclass(frozen=True)
class FeatureForwardGradient(ActivityForwardGradient):
    """Directions are random mixtures of the features that the next layer sees."""

    together: bool = hp(False, "directions of all sites at once, instead of one pass for each site")
    rank: int = hp(
        32, "dimensions of the span of features in which directions lie", low=1, search=(8, 16, 32, 64)
    )

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Coordinates ``(draws, batch, d)`` of the directions."""
        widths = {key: min(self.rank, net.visits[key].width) for key in net.keys("post")}
        return {key: net.normal((self.draws, len(batch.x), d), gen) for key, d in widths.items()}

    def directions(self, sites: Tensors, noise: Tensors) -> Tensors:
        """Coordinates times an orthonormal basis of the leading directions of the batch's activity, not centred."""
        found = {}
        for key, c in noise.items():
            rows = credit.rows(sites[key]).to(c.dtype)
            basis = manifold.principal_basis(rows, c.shape[-1], centred=False)
            found[key] = (c @ basis.mT).view(-1, *sites[key].shape)
        return found


@dataclass(frozen=True)
class LocalForwardGradient(LocalPrediction):
    """Groups of units move along random directions, times the derivative of the site's own loss along the group's."""

    draws: int = hp(1, "directions per step, over which the estimate is averaged", low=1)
    groups: int = hp(
        8, "groups of units of a site, each with a derivative of its own", low=1, search=(1, 4, 16, 64)
    )

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Directions ``(draws, batch, n)`` of the activity at every ``post`` site."""
        widths = {key: net.visits[key].width for key in net.keys("post")}
        return {key: net.normal((self.draws, len(batch.x), n), gen) for key, n in widths.items()}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)

        def losses(heads: Tensors, key: str, h: Tensor) -> Tensor:
            head = {"prediction": heads[f"prediction.{net.visits[key].site}"]}
            return self.head_losses(head, h, batch, loss, cut.output)

        def summed(heads: Tensors) -> Tensor:
            return torch.stack(
                [losses(heads, key, credit.rows(h)).mean() for key, h in cut.sites.items()]
            ).sum()

        def estimate(key: str, z: Tensor) -> Tensor:
            h = credit.rows(cut.sites[key])
            slope: Tensor
            _, slope = credit.value_and_derivative(lambda at: losses(state.params, key, at), h, z)
            return slope[:, None] * z

        signals = {}
        for key, z in noise.items():
            width = z.shape[-1]
            group = torch.arange(width, device=z.device) * min(self.groups, width) // width
            mask = group == torch.arange(min(self.groups, width), device=z.device)[:, None]  # (groups, n)
            each = (
                (z[:, None] * mask[:, None]).flatten(0, 1).to(cut.sites[key].dtype)
            )  # (draws · groups, batch, n)
            found = torch.func.vmap(lambda d, key=key: estimate(key, d))(each)
            signals[key] = (found.sum(0) / self.draws / len(batch.x)).view_as(cut.sites[key])
        heads = credit.grad(summed, state.params)
        return Step(cut.pull(error, signals) | {f"rule.{name}": g for name, g in heads.items()}, state, mean)
