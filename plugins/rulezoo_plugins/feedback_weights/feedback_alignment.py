"""Feedback alignment and sign symmetry: errors travel back, layer by layer, through weights that are not W.

- Feedback alignment: Lillicrap, Cownden, Tweed, Akerman 2016. δ_l = (B_l δ_{l+1}) ⊙ φ'(s_l), B fixed and random.
- Sign symmetry: Liao, Leibo, Poggio 2016; Xiao et al. 2019. B = sign(W) ⊙ M, where the sizes M are one constant
  (uSF), drawn anew for every batch (brSF), or drawn once (frSF).

Deviations: sizes are those of the initial weights (their root mean square), not of a formula for one initialisation;
batch-manhattan updates and batch norm of the papers are not part of the rule. Weights must belong to a linear or
convolution layer; a network with others is refused rather than left on backprop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class FeedbackAlignment(LearningRule):
    """Fixed random feedback weights."""

    scale: float = hp(
        1.0,
        "size of the feedback weights relative to the initial forward weights",
        low=1e-6,
        search=(0.1, 10),
        log=True,
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Refuse weights that no linear or convolution layer uses: they would silently learn by backprop."""
        return refusal(net)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Draw the feedback weights."""
        return State(
            buffers={
                f"feedback.{n}": self._sizes(p) * _normal(p, gen) for n, p in _weights(net, params).items()
            }
        )

    def _sizes(self, weight: Tensor) -> Tensor:
        return self.scale * weight.square().mean().sqrt()

    def feedback(self, weights: Tensors, state: State, noise: Tensors) -> Tensors:
        """Name of a weight → the weight that the error sees in its place."""
        return {name.removeprefix("feedback."): b for name, b in state.buffers.items()}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        feedback = self.feedback(net.tensors(params), state, noise)
        grads, mean = credit.through_feedback(net, loss, params, feedback, batch.x, batch.y)
        return Step(grads, state, mean)


@dataclass(frozen=True)
class UniformSign(FeedbackAlignment):
    """uSF: the signs of the forward weights, one size for each layer."""

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Keep the size of every layer's initial weights, a scalar."""
        return State(buffers={f"size.{name}": self._sizes(p) for name, p in _weights(net, params).items()})

    def feedback(self, weights: Tensors, state: State, noise: Tensors) -> Tensors:
        """sign(W) times the layer's size."""
        sizes = {name.removeprefix("size."): size for name, size in state.buffers.items()}
        return {name: weights[name].sign() * size for name, size in sizes.items()}


@dataclass(frozen=True)
class BatchRandomSign(UniformSign):
    """brSF: the signs of the forward weights, sizes drawn anew at every step."""

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """|N(0, 1)| of every weight's shape."""
        drawn = {}
        for key, size in state.buffers.items():
            name = key.removeprefix("size.")
            shape = net.shapes[name] if name in net.shapes else net.fixed[name].shape
            drawn[name] = torch.randn(shape, generator=gen, dtype=size.dtype, device=gen.device).abs()
        return drawn

    def feedback(self, weights: Tensors, state: State, noise: Tensors) -> Tensors:
        """sign(W) times the drawn sizes."""
        return {name: b * noise[name] for name, b in super().feedback(weights, state, noise).items()}


@dataclass(frozen=True)
class FixedRandomSign(FeedbackAlignment):
    """frSF: the signs of the forward weights, sizes drawn once."""

    def feedback(self, weights: Tensors, state: State, noise: Tensors) -> Tensors:
        """sign(W) times the size of the fixed random weight."""
        fixed = super().feedback(weights, state, noise)
        return {name: weights[name].sign() * b.abs() for name, b in fixed.items()}


def refusal(net: Net, *, plain: bool = False) -> str | None:
    """Why errors cannot travel back through feedback weights alone, in a sentence; ``None`` when they can.

    Args:
        net: the network.
        plain: whether the rule needs every weight to be a parameter that is used as it is.
    """
    if others := credit.true_weights(net, net.init_params()):
        return (
            f"errors would have to travel back through {others[0]!r}, and feedback weights exist for linear and "
            "convolution layers only"
        )
    computed = [layer for layer in net.layers if layer.passes_error and not layer.plain]
    if plain and computed:
        return (
            f"the weight of {computed[0].name!r} is computed from {' and '.join(computed[0].weights)}, and this rule "
            "needs weights that are parameters"
        )
    return None


def _weights(net: Net, params: Tensors) -> Tensors:
    layers = credit.backward_layers(net, params)
    return {name: weight for name, weight in net.tensors(params).items() if name in layers}


def _normal(like: Tensor, gen: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=gen, dtype=like.dtype, device=gen.device).to(like.device)
