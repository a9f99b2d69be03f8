"""Weight mirror and layerwise NMNC: every layer learns its feedback weight from its own response to noise.

Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, arXiv:1904.05391: a layer is driven by noise ξ at its own
input, and the correlation of ξ with its response y = W ξ makes the feedback weight,

    E[y ξᵀ] / v = W E[ξ ξᵀ] / v = W P,

with v the variance of the noise and P the projection on the subspace that it spans: everything in the original. With
noise in the principal subspace of the layer's input activity it is neural manifold noise correlation layer by layer
(NMNC: Kang, Richards, Sabatini 2026, arXiv:2601.02636). Errors then travel back as in feedback alignment.

What is correlated with the noise is the layer's own response, not the output of the network. W is the same for every
example, so there is no mean Jacobian to stay behind, and the number of outputs does not enter: neither the memory nor
the error of the feedback grows with the classes. A convolution's noise lives in the space of its patches, of channels ×
kernel dimensions, whatever the size of its map. The price is a backward pass from layer to layer.

Letters: n inputs of a layer, d columns of the basis U (n × d), K noise vectors.

Choices and deviations:
- A convolution is the linear map W, of n = channels × kernel inputs, of every patch of its input. It is driven with
  single noise patches and answers with the filters' responses, so its feedback weight has the kernel's shape.
- The response is that of the layer alone: no bias, no non-linearity, nothing downstream. It is linear, so in the
  difference of the responses to x + ξ and x - ξ the layer's ongoing input x cancels, as if the layer were silent (the
  paper's separate phase), and so does the size of the noise: v = 1 here. With ``antithetic=false`` there is one
  response, to an input of the batch with noise of size ``sigma`` on top. Nothing is subtracted, so W x is part of it,
  adds no bias, and adds variance that falls with the size of the noise.
- The estimate is W U times a ``(d, d)`` matrix times Uᵀ, computed in this order: 2 d numbers for each weight in place
  of 2 K.
- The running average is the plain average of all estimates until ``rate`` is larger than one over their number, so the
  feedback is unbiased from the first step on and remembers no initial value. The paper has an equivalent decay, and a
  control of the feedback's norm, which division by v makes unnecessary.
- Noise and learning take turns within a step; in the paper, in phases.
- A layer that is fed by the network's input alone has no feedback weight: no error passes it.
- There is no automatic rank: how much of a gradient a manifold holds cannot be told from the response of one layer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp, manifold
from rulezoo_plugins.feedback_weights.feedback_alignment import refusal
from rulezoo_plugins.shared.in_manifold import InManifold, spread_rows
from rulezoo_plugins.shared.state_size import gigabytes, why_too_large
from rulezoo_plugins.shared.subspaces import related

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class WeightMirror(LearningRule):
    """Isotropic noise at the input of every layer."""

    rate: float = hp(0.1, "weight of the newest estimate in the feedback's running average", low=1e-6, high=1.0,
                     search=(0.01, 0.3), log=True)  # fmt: skip
    every: int = hp(1, "update the feedback every so many steps", low=1)
    perturbations: int = hp(1024, "noise vectors per layer and update", low=1)
    antithetic: bool = hp(
        True, "difference of the responses to ±ξ, in which the layer's ongoing input cancels, instead of one response "
        "to its input and noise",
    )  # fmt: skip
    sigma: float = hp(
        0.1, "size of the noise, as a fraction of the layer's input (ratio of RMS values); it matters where "
        "antithetic is false", low=1e-8,
    )  # fmt: skip
    estimator: str = hp("correlation", "how the response is related to the noise",
                        choices=("correlation", "least-squares"))  # fmt: skip
    memory: float = hp(2.0, "most memory that feedback, bases and recent activity may take, in GB", low=0)

    def skip(self, net: Net, task: Task) -> str | None:
        """Refuse weights that no linear or convolution layer uses: they would silently learn by backprop."""
        return refusal(net, plain=True) or self._why_too_large(net)

    def _why_too_large(self, net: Net) -> str | None:
        numbers = sum(w.numel() for w in _mirrored_weights(net, net.init_params()).values())
        what = f"feedback weights of {numbers} numbers in all"
        return why_too_large(self, self.memory, lambda rule: rule.state_size(net), self.smaller_forms(), what)

    def smaller_forms(self) -> list[dict[str, object]]:
        """Options that make the state smaller; the feedback weights themselves always take as much as the weights."""
        return []

    def state_size(self, net: Net) -> float:
        """GB of what the rule keeps between two steps."""
        return gigabytes(_mirrored_weights(net, net.init_params()))

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Feedback weights of zeros, ``feedback.<weight>`` of the weight's shape."""
        weights = _mirrored_weights(net, params)
        return State(buffers={f"feedback.{name}": torch.zeros_like(w) for name, w in weights.items()})

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
        ongoing = self._ongoing_responses(net, params, batch.x, noise, state)
        for name, z in noise.items():
            feedback = buffers[f"feedback.{name}"]
            # Under autocast the estimate is of lower precision than what is remembered.
            estimate = self._mirrored(weights[name], z, self.basis(state, name), ongoing.get(name))
            buffers[f"feedback.{name}"] = torch.lerp(feedback, estimate.to(feedback.dtype), rate)
        state = State(state.params, buffers)
        grads, mean = credit.through_feedback(net, loss, params, _feedback(state), batch.x, batch.y)
        return Step(grads, state, mean)

    def _ongoing_responses(
        self, net: Net, params: Tensors, x: Tensor, noise: Tensors, state: State
    ) -> Tensors:
        """What layers answer to inputs of the batch, weight → ``(K, out)``, relative to the size of the noise on top."""
        if self.antithetic or not noise:
            return {}
        weights = net.tensors(params)
        inputs = credit.layer_inputs(net, params, x, list(noise), partial(_repeated, most=self.perturbations))
        answers = {}
        for name, rows in inputs.items():
            scale = manifold.noise_scale(rows, self.sigma, self.basis(state, name))
            answers[name] = rows @ weights[name].flatten(1).mT / scale
        return answers

    def _mirrored(self, weight: Tensor, z: Tensor, basis: Tensor | None, ongoing: Tensor | None) -> Tensor:
        """How a layer's response is related to the noise that drives it, of the weight's shape."""
        driven = weight.flatten(1) if basis is None else weight.flatten(1) @ basis  # (out, d)
        response = z @ driven.mT  # (K, out)
        if ongoing is not None:
            response = response + ongoing
        if basis is None:
            return related(response, z, self.estimator).view_as(weight)
        felt = z * basis.square().sum(0)  # what is not perturbed explains no response
        return (related(response, felt, self.estimator) @ basis.mT).view_as(weight)


@dataclass(frozen=True)
class LayerwiseManifoldNoiseCorrelation(InManifold, WeightMirror):
    """NMNC layer by layer: noise in the principal subspace of a layer's input; of its patches, for a convolution."""

    def smaller_forms(self) -> list[dict[str, object]]:
        """See `WeightMirror.smaller_forms`."""
        return [{"samples": max(self.samples // 4, 2)}]

    def state_size(self, net: Net) -> float:
        """See `WeightMirror.state_size`; adds bases and recent activity."""
        weights = _mirrored_weights(net, net.init_params())
        widths = {
            name: (w[0].numel(), torch.promote_types(w.dtype, torch.float32)) for name, w in weights.items()
        }
        return super().state_size(net) + self.manifold_size(widths)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Adds a basis and the recent activity of every layer with a feedback weight, under the weight's name."""
        state = super().init(net, params, batch, gen)
        return State(
            buffers=state.buffers | self.first_manifold(self._inputs(net, params, batch.x, _feedback(state)))
        )

    def basis(self, state: State, name: str) -> Tensor:
        """The basis of the layer's input activity."""
        return state.buffers[f"basis.{name}"]

    def remember(self, net: Net, params: Tensors, x: Tensor, state: State, t: int) -> State:
        """Keep the inputs of the layers, and find their manifolds anew when the time has come."""
        look = partial(self._inputs, net, params, x, list(_feedback(state)))
        return State(state.params, self.followed_manifold(state.buffers, t, look))

    def _inputs(self, net: Net, params: Tensors, x: Tensor, names: Collection[str]) -> Tensors:
        """As many inputs of each layer as are kept of a step."""
        return credit.layer_inputs(net, params, x, names, partial(spread_rows, most=self.samples))


def _mirrored_weights(net: Net, params: Tensors) -> Tensors:
    """The weights that have a feedback weight."""
    layers = credit.backward_layers(net, params)
    return {name: w for name, w in net.tensors(params).items() if name in layers}


def _repeated(rows: int, most: int) -> Tensor:
    """Numbers of exactly ``most`` of some rows, which are gone through again where there are fewer."""
    return spread_rows(rows, most) if rows >= most else torch.arange(most) % rows


def _feedback(state: State) -> Tensors:
    """Name of a weight → its feedback weight."""
    return {
        key.removeprefix("feedback."): b for key, b in state.buffers.items() if key.startswith("feedback.")
    }
