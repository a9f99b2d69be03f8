"""Layerwise NMNC by regression: feedback weights that learn only what they do not predict yet.

A weight mirror (Akrout et al. 2019, arXiv:1904.05391) averages the correlation of noise ξ at a layer's input with the
layer's response y = W ξ. Such an average never settles: with K noise vectors in d dimensions, its relative error is
(d + 1)/K for each update, however well W is known already. Here the feedback weight B predicts the response, and only what
was not predicted is correlated with the noise,

    ΔB = μ · mean over K of (y - B ξ) ξᵀ / v,        μ = rate · K / (K + d + 1),

the delta rule (Widrow & Hoff 1960), or least mean squares regression of responses on noise. On the subspace that the noise
spans, the expected squared error E‖(W - B) P‖² shrinks in each update by the factor

    1 - 2 μ + μ² (1 + (d + 1)/K)  =  1 - K/(K + d + 1)        for rate = 1, which is the best rate,

because E[(mean ξξᵀ/v)²] = (1 + (d + 1)/K) P for Gaussian noise: to zero, for a weight that does not move. The error left is
that of following W, and a few noise vectors per update do. As in layerwise NMNC (Kang, Richards, Sabatini 2026,
arXiv:2601.02636) the noise lies in the principal subspace of the layer's recent input. A direction that leaves the subspace
is not forgotten: B keeps its estimate of W there, so that it comes to know W on the union of the manifolds so far.

Letters: n inputs of a layer, d columns of the basis U (n × d), K noise vectors.

Choices and deviations:
- What is perturbed, and how a layer responds, is as in `rulezoo_plugins.feedback_weights.weight_mirror`, where the choices made there are
  listed. ``estimator=correlation`` is layerwise NMNC itself.
- v = 1, because the response is linear (see there). The layer's ongoing input is no part of the response.
- Predicting y takes the feedback weight in the direction of the forward weight, B ξ. It reads no forward weight. A brain would
  need the prediction at the unit that responds, as in predictive coding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rulezoo import Batch, Net, State, Step, credit, hp
from rulezoo_plugins.feedback_weights.weight_mirror import LayerwiseManifoldNoiseCorrelation
from rulezoo_plugins.noise_regression.delta import step_size

Tensors = dict[str, Tensor]
# Dimensions for each noise vector, by default: the error then shrinks by a fifth in each update.
_PER_VECTOR = 4


@dataclass(frozen=True)
class LayerwiseNoiseRegression(LayerwiseManifoldNoiseCorrelation):
    """Feedback weights regress the responses of their layers on noise in the manifold of the layers' inputs."""

    rank: int | float = hp(512, "dimensions of the manifold, at most those of the layer's input and of its recent activity; "
                           "or (below 1) the fraction of variance it explains", low=1e-6, search=(64, 128, 256, 512))  # fmt: skip
    rate: float = hp(1.0, "step of the regression, in units of the one that shrinks the error fastest; for the correlation, "
                     "weight of the newest estimate in the running average", low=1e-6, high=1.99,
                     search=(0.1, 1), log=True)  # fmt: skip
    perturbations: int | None = hp(  # type: ignore[assignment]  # a default that depends on the layer
        None, "noise vectors per layer and update; none = a quarter of the manifold's dimensions, 1,024 for the correlation",
        low=1,
    )  # fmt: skip
    estimator: str = hp("regression", "regression of the response on the noise, or their correlation, which is layerwise NMNC",
                        choices=("regression", "correlation"))  # fmt: skip
    antithetic: ClassVar[bool] = True  # type: ignore[misc]  # an option of the base
    sigma: ClassVar[float] = 0.1  # type: ignore[misc]  # an option of the base, which has no effect here

    def __post_init__(self) -> None:
        """The correlation has the default of layerwise NMNC."""
        super().__post_init__()
        if self.estimator == "correlation" and self.perturbations is None:
            object.__setattr__(self, "perturbations", 1024)

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """See `WeightMirror.noise`."""
        if self.perturbations is not None:
            return super().noise(net, state, batch, gen, t)
        if t % self.every:
            return {}
        bases = {k.removeprefix("basis."): u for k, u in state.buffers.items() if k.startswith("basis.")}
        return {
            name: torch.randn(
                max(1, u.shape[1] // _PER_VECTOR), u.shape[1], generator=gen, dtype=u.dtype, device=gen.device
            )
            for name, u in bases.items()
        }

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        if self.estimator == "correlation":
            return super().step(net, loss, params, state, batch, noise, t)
        state = self.remember(net, params, batch.x, state, t)
        buffers, weights = dict(state.buffers), net.tensors(params)
        for name, z in noise.items():
            key = f"feedback.{name}"
            buffers[key] = self._regressed(buffers[key], weights[name], z, self.basis(state, name))
        grads, mean = credit.through_feedback(net, loss, params, _feedback(buffers), batch.x, batch.y)
        return self.with_dimensions(Step(grads, State(state.params, buffers), mean), t)

    def _regressed(self, feedback: Tensor, weight: Tensor, z: Tensor, basis: Tensor) -> Tensor:
        """The feedback weight after one update, of the weight's shape."""
        xi = z @ basis.mT  # (K, n)
        surprise = xi @ weight.flatten(1).mT - xi @ feedback.flatten(1).mT  # (K, out)
        change = step_size(self.rate, len(z), basis.square().sum()) * (surprise.mT @ xi) / len(z)
        # Under autocast products are of lower precision than what is remembered.
        return feedback + change.to(feedback.dtype).view_as(feedback)


def _feedback(buffers: Tensors) -> Tensors:
    prefix = "feedback."
    return {key.removeprefix(prefix): b for key, b in buffers.items() if key.startswith(prefix)}
