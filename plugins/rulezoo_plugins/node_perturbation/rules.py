"""Node perturbation: the change of the loss, one number per example, times the noise that caused it.

Williams 1992, doi:10.1007/BF00992696 (as REINFORCE with Gaussian units); Fiete & Seung 2006,
doi:10.1103/PhysRevLett.97.048104; Hiratani, Mehta, Lillicrap, Latham 2022. At a site with activity x (n units),

    ĝ = (L(x + ξ) − L(x − ξ)) ξ / (2 v),        E ĝ = P ∂L/∂x,

with E[ξ ξᵀ] = v P. In the manifold form ξ lives in the principal subspace U of recent activity, as in neural manifold
noise correlation (Kang, Richards, Sabatini 2026, arXiv:2601.02636), of which this is the scalar relative: no feedback
weights, nothing is remembered, every example has to find its own gradient.

Letters: b batch, n units of a site, d columns of the basis U (n × d), K draws per example.

Choices and deviations:
- The loss is per example, so ĝ is an example's own; a teaching signal belongs to the *mean* loss: ĝ / b.
- The size of the noise is set by its energy, E‖ξ‖² = σ² n RMS(x)², whatever the subspace: both forms with the same σ
  are matched, and rank = width gives the isotropic form. Inside the subspace the noise is isotropic, v = E‖ξ‖²/d.
- Noise is added to the activity x behind sites of kind "post", what the next layer sees, at one site after the other:
  two passes for each. ``together=true`` perturbs all in the same two passes; every site's estimate then has the noise
  of all others in it.
- The read-out is taught by its own exact error, as with all rules here; in the papers it is perturbed, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, OptionError, State, Step, Task, credit, hp, manifold
from rulezoo_plugins.noise_correlation.rules import coarsest_dtype
from rulezoo_plugins.shared.in_manifold import InManifold

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class NodePerturbation(LearningRule):
    """Isotropic noise."""

    sigma: float = hp(
        0.05, "size of the perturbation, as a fraction of the site's activity (ratio of RMS values)",
        low=1e-8, search=(0.005, 0.5), log=True,
    )  # fmt: skip
    draws: int = hp(1, "perturbations per example and site, whose estimates are averaged", low=1)
    together: bool = hp(False, "perturb all sites in one pass, instead of one site in each")
    antithetic: bool = hp(True, "difference of two noisy passes, ±ξ, instead of a noisy and the clean one")

    # Below this fraction of the activity a finite difference drowns in rounding: it is of size sigma, its error of
    # size eps, and 100 leaves an error of a percent.
    _ROUNDING_MARGIN: ClassVar[float] = 100.0

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs somewhere to perturb."""
        if net.keys("post"):
            return None
        return "node perturbation needs sites of kind 'post', and this network has none"

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Nothing to remember; refuses a noise that rounding would drown."""
        coarsest = coarsest_dtype(net)
        smallest = self._ROUNDING_MARGIN * torch.finfo(coarsest).eps
        if self.sigma < smallest:
            raise OptionError(
                f"sigma={self.sigma:g} drowns in the rounding of {coarsest}; use at least {smallest:.1g}"
            )
        return State()

    def basis(self, net: Net, state: State, key: str) -> Tensor | None:
        """The basis ``(n, d)`` of the subspace that is perturbed at a visit; ``None`` = all of it."""
        return None

    def remember(self, net: Net, state: State, sites: Tensors, t: int) -> State:
        """Take notice of the activity of step ``t``, before it is perturbed."""
        return state

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Standard normal coordinates, visit → ``(K, b, d)``."""
        drawn = {}
        for key in net.keys("post"):
            basis = self.basis(net, state, key)
            dimensions = net.visits[key].width if basis is None else basis.shape[1]
            drawn[key] = torch.randn(
                self.draws,
                len(batch.x),
                dimensions,
                generator=gen,
                dtype=net.memory_dtype(key),
                device=gen.device,
            )
        return drawn

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        state = self.remember(net, state, cut.sites, t)
        xi, variance = {}, {}
        for key, z in noise.items():
            basis = self.basis(net, state, key)
            scale = manifold.noise_scale(cut.sites[key], self.sigma, basis)
            xi[key] = scale * (z if basis is None else z @ basis.mT)  # (K, b, n)
            variance[key] = scale.square()
        clean = loss(cut.output, batch.y)
        signals = {}
        for sites in [list(xi)] if self.together else [[key] for key in xi]:
            change = self._responses(net, loss, params, batch, clean, {key: xi[key] for key in sites})
            for key in sites:
                estimates = (change[..., None] * xi[key]).mean(0) / variance[
                    key
                ]  # (b, n), of each one's own loss
                signals[key] = estimates.view_as(cut.sites[key]) / len(batch.x)
        return Step(cut.pull(error, signals), state, mean)

    def _responses(
        self, net: Net, loss: credit.Loss, params: Tensors, batch: Batch, clean: Tensor, xi: Tensors
    ) -> Tensor:
        """Change of every example's loss for every draw, ``(K, b)``."""
        x, y = (torch.cat([part] * self.draws) for part in batch)

        def losses(sign: float) -> Tensor:
            def tap(key: str, activity: Tensor) -> Tensor:
                if key not in xi:
                    return activity
                return (activity + sign * xi[key].view_as(activity)).to(activity.dtype)

            return loss(net.run(params, x, tap), y).view(self.draws, -1)

        return (losses(1.0) - losses(-1.0)) / 2 if self.antithetic else losses(1.0) - clean


@dataclass(frozen=True)
class ManifoldNodePerturbation(InManifold, NodePerturbation):
    """Noise in the principal subspace of the site's recent activity, pooled over the visits of a site."""

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """A basis and the recent activity of every site."""
        super().init(net, params, batch, gen)
        sites = credit.cut(net, params, batch.x, net.keys("post")).sites
        return State(buffers=self.first_manifold(_by_site(net, sites)))

    def basis(self, net: Net, state: State, key: str) -> Tensor:
        """The site's basis, shared by its visits."""
        return state.buffers[f"basis.{net.visits[key].site}"]

    def remember(self, net: Net, state: State, sites: Tensors, t: int) -> State:
        """Keep the activity of the sites, and find their manifolds anew when the time has come."""
        return State(state.params, self.followed_manifold(state.buffers, t, partial(_by_site, net, sites)))


def _by_site(net: Net, sites: Tensors) -> Tensors:
    """Activity pooled over the visits of each site: site → ``(rows, n)``."""
    pooled: dict[str, list[Tensor]] = {}
    for key, activity in sites.items():
        pooled.setdefault(net.visits[key].site, []).append(credit.rows(activity))
    return {site: torch.cat(rows) for site, rows in pooled.items()}
