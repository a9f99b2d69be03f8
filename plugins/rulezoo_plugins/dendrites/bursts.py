r"""BurstCCN: the error is the probability that an event is a burst; events and bursts travel through separate synapses.

Greedy, Zhu, Pemberton, Mellor & Costa 2022 (arXiv:2206.11769), in its rate form. A neuron emits events at the rate e, of which a
fraction p are bursts, b = p e. Bursts of the layer behind excite the apical dendrite through Y, its events inhibit it through Q:

    e_l = f(W_l e_{l−1}),        u_l = Y_l b_{l+1} − Q_l e_{l+1},        p_l = σ(logit p_b + h_l u_l / (p_b (1 − p_b))),

    ΔW_l ∝ (b_l − p_b e_l) e_{l−1}ᵀ,        h_l = f'(v_l) / e_l.

At the output a teacher changes the bursts: b_L − p_b e_L = −teaching ∂L/∂e_L of each example. Without it every neuron bursts at the
baseline p_b, and Q = p_b Y keeps the apical potential at zero: there is nothing to learn. Payeur et al. 2021
(doi:10.1038/s41593-021-00857-x) compare two phases, with and without a teacher, in place of the inhibition by Q.

To first order in the error b − p_b e is h e u = f' Y (b − p_b e of the layer behind): feedback alignment, or backprop with Y = Wᵀ.
Beyond it p_l lies between 0 and 1, so that no neuron reports more than its own rate: a silent one reports nothing.

Choices and deviations:
- Y has fixed random weights, or (``feedback_weights=symmetric``) those of the forward path; the paper also trains it.
- Q is p_b Y from the start, where the paper's plasticity of Q (ΔQ ∝ u eᵀ) leads it; then u_l = Y (b − p_b e), which is computed.
- Event rates are the activity at ``post`` sites; that of a tanh unit may be negative, and its size counts as the rate.
- f' multiplies b − p_b e, not u, so it does not take part in the saturation of p. For rectified linear units, whose f' is 0 or 1,
  that is the same. What else lies between two sites (pooling, a second layer) is differentiated likewise.
- The gradient that is returned is −(b − p_b e) e_{l−1}ᵀ / teaching, averaged over the batch; the read-out learns from its error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rulezoo import Batch, Net, State, Step, Task, credit, hp
from rulezoo_plugins.feedback_weights.feedback_alignment import FeedbackAlignment

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class BurstCCN(FeedbackAlignment):
    """Feedback alignment by burst probabilities, which saturate."""

    baseline: float = hp(0.5, "probability of a burst without an error, p_b", low=0.01, high=0.99)
    teaching: float = hp(
        0.5, "strength of the teacher: change of the bursts of the output by an error of one", low=1e-9,
        search=(0.05, 2), log=True,
    )  # fmt: skip
    feedback_weights: str = hp("random", "what Y is made of", choices=("random", "symmetric"))

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs event rates, and weights that feedback weights can stand for."""
        if not net.keys("post"):
            return "events and bursts are those of sites of kind 'post', and this network has none"
        return super().skip(net, task)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        size = self.teaching * len(
            batch.x
        )  # a signal is the gradient of the mean loss; bursts are an example's own

        def bursts(key: str, e: Tensor) -> Tensor:
            return _Bursts.apply(e, self.baseline, size) if net.visits[key].kind == "post" else e

        own = net if self.feedback_weights == "symmetric" else credit.with_feedback(net, self._y(state))

        def mean_loss(p: Tensors) -> Tensor:
            return loss(own.run(p, batch.x, bursts), batch.y).mean()

        mean, pull = credit.value_and_pull(mean_loss, params)
        return Step(pull(torch.ones_like(mean)), state, mean)

    def _y(self, state: State) -> Tensors:
        return {name.removeprefix("feedback."): y for name, y in state.buffers.items()}


def burst_change(events: Tensor, apical: Tensor, baseline: float) -> Tensor:
    """B − p_b e, the change of the burst rate by an apical potential; the size of a negative rate counts as the rate.

    Args:
        events: event rates e.
        apical: u, relative to 1 / f'.
        baseline: p_b.
    """
    rate = events.abs()
    silent = rate == 0
    gain = baseline * (1 - baseline)
    change = apical / torch.where(silent, 1, rate) / gain
    at_rest = torch.logit(torch.as_tensor(baseline, dtype=rate.dtype, device=rate.device))
    return rate * (torch.sigmoid(at_rest + change) - torch.sigmoid(at_rest))


class _Bursts(torch.autograd.Function):
    """Events as they are; on the way back the bursts that an apical potential evokes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(events: Tensor, baseline: float, size: float) -> Tensor:
        return events.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:  # noqa: ANN401  torch's protocol
        events, ctx.baseline, ctx.size = inputs
        ctx.save_for_backward(events)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (events,) = ctx.saved_tensors
        return -burst_change(events, -ctx.size * grad, ctx.baseline) / ctx.size, None, None
