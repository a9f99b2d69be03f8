"""Direct Kolen-Pollack: direct feedback weights that receive the increments of a read-out of their own site.

Webster, Choi & Ahn, Learning the Connections in Direct Feedback Alignment (submission zgGmAx9ZcY to ICLR 2021; code:
github.com/webstah/dkp-gist): direct feedback alignment, δ_l = (B_lᵀ e) ⊙ φ'(s_l), in which

    ΔB_l = −η e h_lᵀ − λ B_l,

with e the gradient of the loss with respect to the output and h_l the activity at the site. At the last hidden layer
these are the increments of the read-out W, so with equal decay B and W become the same, as in Kolen-Pollack learning
(`rulezoo_plugins.feedback_weights.kolen_pollack`, which says how the decay is counted): W − B shrinks by exp(−weight_decay) over the
training. Further down, B_l becomes what a linear read-out trained by e would be.

Deviations: one optimiser and schedule for W and B, where the public code trains W by SGD and B by Adam, which is what
``feedback_rate`` is for; the visits of a recurrent site share one B, whose increment is the sum over visits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rulezoo import Batch, Net, State, Step, credit, hp
from rulezoo_plugins.direct_feedback.alignment import DirectFeedbackAlignment
from rulezoo_plugins.direct_feedback.visits import received, visits_by_site

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class DirectKolenPollack(DirectFeedbackAlignment):
    """Feedback weights from the output to every site, trained along with the forward weights."""

    decoupled_decay: ClassVar[bool] = True

    weight_decay: float = hp(
        2.0, "weight decay of the whole run: feedback weights and read-out approach each other by exp(-weight_decay)",
        low=0, search=(0.5, 5), log=True,
    )  # fmt: skip
    feedback_rate: float = hp(
        1.0, "learning rate of the feedback weights, and their decay, relative to those of the forward weights", low=0,
        search=(0.1, 10), log=True,
    )  # fmt: skip

    def rates(self, net: Net) -> dict[str, float]:
        """Feedback weights have a learning rate of their own."""
        return {f"rule.feedback.{site}": self.feedback_rate for site in visits_by_site(net)}

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """The random feedback weights of direct feedback alignment, to be trained."""
        return State(params=super().init(net, params, batch, gen).buffers)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        errors, signals, learned = received(net, error), {}, {}
        for site, visits in visits_by_site(net).items():
            feedback = state.params[f"feedback.{site}"]
            increments = []
            for key in visits:
                activity = credit.rows(cut.sites[key]).to(feedback.dtype)
                signals[key] = (errors[key] @ feedback).view_as(cut.sites[key])
                increments.append(errors[key].mT @ activity)
            learned[f"rule.feedback.{site}"] = torch.stack(increments).sum(0)
        return Step(cut.pull(error, signals) | learned, state, mean)
