"""Weight mirror: every layer learns its feedback weight by listening to its own response to noise.

Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, arXiv:1904.05391: a layer is driven by noise ξ at its own
input, and the correlation of ξ with its response y = W ξ makes the feedback weight,

    E[y ξᵀ] / v = W E[ξ ξᵀ] / v = W P,

with v the variance of the noise and P the projection on the subspace that it spans: everything in the original, the
principal subspace of the layer's input activity in the manifold form (the layerwise relative of neural manifold noise
correlation, Kang, Richards, Sabatini 2026, arXiv:2601.02636). Errors then travel back as in feedback alignment.

It is noise correlation layer by layer: what is correlated with the noise is the layer's own response, not the output
of the network. W is the same for every example, so there is no mean Jacobian to stay behind, and the number of outputs
does not enter.

Letters: n inputs of a layer, d columns of the basis U (n × d), K noise vectors.

Choices and deviations:
- A convolution is the linear map W, of n = channels × kernel inputs, of every patch of its input. It is driven with
  single noise patches and answers with the filters' responses, so its feedback weight has the kernel's shape.
- The response is that of the layer alone, while it is silent otherwise: no bias, no non-linearity, nothing downstream.
  It is linear, so the size of the noise cancels: v = 1 here.
- The running average is the plain average of all estimates until ``rate`` is larger than one over their number, so the
  feedback is unbiased from the first step on and remembers no initial value. The paper has an equivalent decay, and a
  control of the feedback's norm, which division by v makes unnecessary.
- Noise and learning take turns within a step; in the paper, in phases.
- A layer that is fed by the network's input alone has no feedback weight: no error passes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.feedback_alignment import refusal
from rulezoo_plugins.in_manifold import InManifold

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class WeightMirror(LearningRule):
    """Isotropic noise at the input of every layer."""

    rate: float = hp(0.1, "weight of the newest estimate in the feedback's running average", low=1e-6, high=1.0,
                     search=(0.01, 0.3), log=True)  # fmt: skip
    every: int = hp(1, "update the feedback every so many steps", low=1)
    perturbations: int = hp(1024, "noise vectors per layer and update", low=1)

    def skip(self, net: Net, task: Task) -> str | None:
        """Refuse weights that no linear or convolution layer uses: they would silently learn by backprop."""
        return refusal(net, plain=True)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Feedback weights of zeros, ``feedback.<weight>`` of the weight's shape."""
        weights, layers = net.tensors(params), credit.backward_layers(net, params)
        return State(
            buffers={f"feedback.{name}": torch.zeros_like(w) for name, w in weights.items() if name in layers}
        )

    def basis(self, state: State, name: str) -> Tensor | None:
        """The basis ``(n, d)`` of the subspace in which a layer's input is perturbed; ``None`` = all of it."""
        return None

    def remember(self, net: Net, params: Tensors, x: Tensor, state: State, t: int) -> State:
        """Take notice of the activity of step ``t``, before the feedback is updated."""
        return state

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Standard normal coordinates, weight → ``(K, d)``; nothing on steps that leave the feedback alone."""
        if t % self.every:
            return {}
        drawn = {}
        for name, b in _feedback(state).items():
            basis = self.basis(state, name)
            dimensions = b[0].numel() if basis is None else basis.shape[1]
            drawn[name] = torch.randn(
                self.perturbations, dimensions, generator=gen, dtype=b.dtype, device=gen.device
            )
        return drawn

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        state = self.remember(net, params, batch.x, state, t)
        rate = max(self.rate, 1 / (t // self.every + 1))
        buffers, weights = dict(state.buffers), net.tensors(params)
        for name, z in noise.items():
            feedback = buffers[f"feedback.{name}"]
            # Under autocast the estimate is of lower precision than what is remembered.
            estimate = _mirrored(weights[name], z, self.basis(state, name)).to(feedback.dtype)
            buffers[f"feedback.{name}"] = torch.lerp(feedback, estimate, rate)
        state = State(state.params, buffers)
        grads, mean = credit.through_feedback(net, loss, params, _feedback(state), batch.x, batch.y)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class ManifoldWeightMirror(InManifold, WeightMirror):
    """Noise in the principal subspace of the layer's input activity; of its patches, for a convolution."""

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Adds a basis and the recent activity of every layer with a feedback weight, under the weight's name."""
        state = super().init(net, params, batch, gen)
        inputs = credit.layer_inputs(net, params, batch.x, _feedback(state))
        return State(buffers=state.buffers | self.first_manifold(inputs))

    def basis(self, state: State, name: str) -> Tensor:
        """The basis of the layer's input activity."""
        return state.buffers[f"basis.{name}"]

    def remember(self, net: Net, params: Tensors, x: Tensor, state: State, t: int) -> State:
        """Keep the inputs of the layers, and find their manifolds anew when the time has come."""
        look = partial(credit.layer_inputs, net, params, x, list(_feedback(state)))
        return State(state.params, self.followed_manifold(state.buffers, t, look))


def _mirrored(weight: Tensor, z: Tensor, basis: Tensor | None) -> Tensor:
    """The correlation of a layer's response with the noise that drives it, of the weight's shape."""
    xi = z if basis is None else z @ basis.mT  # (K, n)
    response = xi @ weight.flatten(1).mT  # (K, out)
    return (response.mT @ xi / len(xi)).view_as(weight)


def _feedback(state: State) -> Tensors:
    """Name of a weight → its feedback weight."""
    return {
        key.removeprefix("feedback."): b for key, b in state.buffers.items() if key.startswith("feedback.")
    }
