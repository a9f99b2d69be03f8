r"""Feedback weights that layers learn from their response to noise, for any rule that sends errors through the layers.

Predictive coding, equilibrium and dual propagation, bursts and backprop send an error through the transposed forward weights.
Here each layer learns a weight for it by a weight mirror,

    B ← (1 − ρ) B + ρ E[W ξ ξᵀ] / v

(see `rulezoo_plugins.feedback_weights.weight_mirror`), and the rule runs on ``credit.with_feedback(net, B)``: drives and outputs are those
of the network, and whatever the rule pulls back goes through B.

With noise enough to determine it, B = W, and the rule is itself: that is the declared limit. With backprop it is the weight
mirror, or layerwise NMNC. The combinations with other rules are ours, not from a paper.

Choices and deviations: the other rule has its default options. `BurstCCN` uses B as its feedback weights Y, and p_b B as Q.
Equilibrium propagation, whose answer is an equilibrium, answers by the equilibrium with B; its energy is one only where B = W.
Incremental predictive coding is not among the rules: its weights move within a step, and feedback weights between steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.baselines.backprop import Backprop
from rulezoo_plugins.contrastive.rules import DualPropagation
from rulezoo_plugins.dendrites.bursts import BurstCCN
from rulezoo_plugins.equilibrium.rules import SymmetricEquilibriumPropagation
from rulezoo_plugins.feedback_weights.weight_mirror import LayerwiseManifoldNoiseCorrelation, WeightMirror
from rulezoo_plugins.predictive_coding.rules import FixedPredictionCoding, PredictiveCoding

Tensors = dict[str, Tensor]

_RULES: Mapping[str, LearningRule] = {  # rules with neither a memory nor random numbers of their own
    "predictive-coding": PredictiveCoding(),
    "fixed-prediction-coding": FixedPredictionCoding(),
    "symmetric-equilibrium-propagation": SymmetricEquilibriumPropagation(),
    "dual-propagation": DualPropagation(),
    "burst-ccn": BurstCCN(feedback_weights="symmetric"),
    "backprop": Backprop(),
}


@dataclass(frozen=True)
class Mirrored(WeightMirror):
    """A rule that runs on the network with feedback weights that a mirror learns."""

    RULES: ClassVar[Mapping[str, LearningRule]] = _RULES

    rule: str = hp(
        "predictive-coding", "the rule that sends errors through the layers", choices=tuple(_RULES)
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """What the mirror needs, and what the rule needs."""
        return super().skip(net, task) or self.RULES[self.rule].skip(net, task)

    def rates(self, net: Net) -> dict[str, float]:
        """Those of the rule."""
        return self.RULES[self.rule].rates(net)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        state = self.mirrored(net, params, batch, state, noise, t)
        step = self.RULES[self.rule].step(_bound(net, state), loss, params, State(), batch, {}, t)
        return step._replace(state=state)

    def predict(self, net: Net, params: Tensors, state: State, x: Tensor) -> Tensor:
        """The rule's output."""
        return self.RULES[self.rule].predict(_bound(net, state), params, State(), x)

    def mirrored(
        self, net: Net, params: Tensors, batch: Batch, state: State, noise: Tensors, t: int
    ) -> State:
        """The memory with the feedback weights after the noise of step ``t``; as `WeightMirror.step` has it."""
        state = self.remember(net, params, batch.x, state, t)
        rate = max(self.rate, 1 / (t // self.every + 1))
        buffers, weights = dict(state.buffers), net.tensors(params)
        ongoing = self._ongoing_responses(net, params, batch.x, noise, state)
        for name, z in noise.items():
            b = buffers[f"feedback.{name}"]
            estimate = self._mirrored(weights[name], z, self.basis(state, name), ongoing.get(name))
            buffers[f"feedback.{name}"] = torch.lerp(b, estimate.to(b.dtype), rate)
        return State(state.params, buffers)


@dataclass(frozen=True)
class MirroredInManifold(Mirrored, LayerwiseManifoldNoiseCorrelation):
    """The mirror of layerwise NMNC: noise in the principal subspace of a layer's input."""


def _bound(net: Net, state: State) -> Net:
    """The network whose errors travel back through the feedback weights of a memory."""
    names = [key for key in state.buffers if key.startswith("feedback.")]
    return credit.with_feedback(net, {key.removeprefix("feedback."): state.buffers[key] for key in names})
