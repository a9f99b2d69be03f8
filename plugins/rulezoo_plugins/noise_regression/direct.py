"""NMNC by regression: direct feedback that learns only what it does not predict yet.

NMNC (Kang, Richards, Sabatini 2026, arXiv:2601.02636; see `rulezoo_plugins.noise_correlation.rules`) averages the correlation of
noise ξ in the manifold of a site with the change dy of the output. Here all sites are perturbed at once, their feedback
predicts the change, and only what was not predicted is correlated with the noise of each site l,

    r = dy - Σ_l B_l ξ_l,      ΔB_l = μ · mean over K examples of r ξ_lᵀ / v_l,      μ = rate · K / (K + D + 1),

with D = Σ d_l: the delta rule (Widrow & Hoff 1960) for the regression of the change of the output on the noise of all sites.
Its fixed point is that of the correlation, the mean Jacobian J̄_l on the manifold, but its error is another one. Let ρ be the
spread of Jacobians, E‖J(x)‖²/‖J̄‖² on the manifolds. The squared error of the feedback, relative to ‖J̄‖², settles at

    rate/(2 - rate) · (D + 2)/(K + D + 1) · (ρ - 1),

where a running average of correlations of the same memory has about ρ in place of ρ - 1. What other sites add to the response
(cross-talk) is predicted, too, and so is what is alike in all examples: close to the output, where Jacobians differ little,
feedback has little noise at any rank. A direction that leaves the manifold when that is found anew is not forgotten.

Choices and deviations:
- Noise, responses and manifold as in `rulezoo_plugins.noise_correlation.rules`, but for ``together`` (always) and ``antithetic``
  (false by default: one extra pass). ``estimator=correlation`` is NMNC itself with these options.
- The feedback predicts with its weights in the direction of the forward pass, B ξ. It reads no forward weight.
- Neither an automatic rank nor feedback in the coordinates of a subspace, which forgets with the manifold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rulezoo import Net, State, credit, hp, manifold
from rulezoo_plugins.noise_correlation.rules import ManifoldNoiseCorrelation
from rulezoo_plugins.noise_regression.delta import step_size

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class NoiseRegression(ManifoldNoiseCorrelation):
    """Direct feedback regresses the change of the output on noise in the manifolds of all sites."""

    rank: int | float = hp(  # no automatic rank
        512, "dimensions of the manifold, or (below 1) the fraction of variance it explains", low=1e-6,
        search=(64, 128, 256, 512),
    )  # fmt: skip
    rate: float = hp(0.3, "step of the regression, in units of the one that shrinks the error fastest without noise; for the "
                     "correlation, weight of the newest estimate in the running average", low=1e-6, high=1.99,
                     search=(0.05, 1), log=True)  # fmt: skip
    every: int = hp(1, "update the feedback every N steps", low=1)
    antithetic: bool = hp(False, "difference of two noisy passes, ±ξ, instead of a noisy and the clean one")
    estimator: str = hp("regression", "regression of the change on the noise, or their correlation, which is NMNC",
                        choices=("regression", "correlation"))  # fmt: skip
    together: ClassVar[bool] = True  # type: ignore[misc]  # an option of the base
    feedback: ClassVar[str] = "units"  # type: ignore[misc]  # an option of the base

    def smaller_forms(self) -> list[dict[str, object]]:
        """See `NoiseCorrelation.smaller_forms`."""
        return [form for form in super().smaller_forms() if "feedback" not in form]

    def _learn_feedback(
        self, net: Net, params: Tensors, x: Tensor, cut: credit.Cut, state: State, noise: Tensors, t: int
    ) -> State:
        if self.estimator == "correlation":
            return super()._learn_feedback(net, params, x, cut, state, noise, t)
        energies = {key: manifold.noise_energy(cut.sites[key], self.sigma) for key in noise}
        xi = {
            key: self.subspace(net, state, key, len(z), t).perturbation(z, energies[key])
            for key, z in noise.items()
        }
        changes = self._responses(
            net, params, x, cut.output, {k: self.seen(net, k).expand(n) for k, n in xi.items()}
        )
        dimensions = {key: manifold.dimensions(self.basis(net, state, key)) for key in noise}
        buffers = dict(state.buffers)
        feedback = {key: buffers[f"feedback.{key}"] for key in noise}
        surprise = next(iter(changes.values())) - sum(n @ feedback[key].mT for key, n in xi.items())
        examples = len(surprise)
        step = step_size(self.rate, examples, sum(dimensions.values()))
        for key, n in xi.items():
            variance = energies[key] / dimensions[key].clamp_min(1)
            change = step * (surprise.mT @ n) / (examples * variance)
            buffers[f"feedback.{key}"] = feedback[key] + change.to(feedback[key].dtype)
        return State(state.params, buffers)
