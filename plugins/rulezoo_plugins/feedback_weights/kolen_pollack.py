"""Kolen-Pollack: forward and feedback weights that receive the same increments and decay become the same.

Kolen & Pollack 1994, doi:10.1109/ICNN.1994.374486; with convolutions, Akrout et al. 2019, arXiv:1904.05391:

    ΔW = −η δ xᵀ − λ W,        ΔB = −η δ xᵀ − λ B        (B written in the shape of W)

so W − B shrinks by the factor 1 − λ at every step, whatever the increments are: no weight is copied, each synapse
computes its increment from δ and x, which are present at both.

Here B is a parameter of the rule, trained by the same optimiser with the same gradients as W, so both get the same
increments under any optimiser that acts element by element. As in the papers, λ does not depend on the optimiser or its
learning rate η, only on the schedule: with s the schedule's factor at a step and S the sum of these factors over the
training, 1 − λ = exp(−weight_decay · s / S). Over the whole training W − B shrinks by exp(−weight_decay), whatever the
optimiser, its learning rate and the number of steps: weight_decay is the length of the training in time constants.

Without decay W − B stays what it was, and only the growth of W aligns the two. Deviations: the decay reaches biases and
layers without feedback weights, too, as in any training with weight decay; a layer that is fed by the network's input
alone has no feedback weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.feedback_weights.feedback_alignment import refusal

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class KolenPollack(LearningRule):
    """Feedback weights that are trained along with the forward weights."""

    decoupled_decay: ClassVar[bool] = True

    weight_decay: float = hp(
        2.0, "weight decay of the whole training: forward and feedback weights approach each other by exp(-weight_decay)",
        low=0, search=(0.5, 5), log=True,
    )  # fmt: skip
    scale: float = hp(
        1.0, "size of the initial feedback weights relative to the initial forward weights", low=1e-6
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Refuse weights that no linear or convolution layer uses: they would silently learn by backprop."""
        frozen = sorted(credit.backward_layers(net, net.init_params()) - net.shapes.keys())
        if frozen:
            return (
                f"{frozen[0]!r} does not learn, so no increments could make its feedback weight agree with it"
            )
        return refusal(net)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Random feedback weights, ``feedback.<weight>`` of the weight's shape."""
        layers = credit.backward_layers(net, params)
        return State(
            params={f"feedback.{name}": self._random(p, gen) for name, p in params.items() if name in layers}
        )

    def _random(self, weight: Tensor, gen: torch.Generator) -> Tensor:
        z = torch.randn(weight.shape, generator=gen, dtype=weight.dtype, device=gen.device).to(weight.device)
        return self.scale * weight.square().mean().sqrt() * z

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        feedback = {name.removeprefix("feedback."): b for name, b in state.params.items()}
        grads, mean = credit.through_feedback(net, loss, params, feedback, batch.x, batch.y)
        same = {f"rule.feedback.{name}": grads[name] for name in feedback}
        return Step(grads | same, state, mean)
