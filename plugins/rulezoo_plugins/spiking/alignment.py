"""Alignment of feedback weights by spike timing, in place of the weight transport of a spiking network.

After spike-based alignment learning (SAL), Gierlich, Baumbach, Kungl, Max, Petrovici 2025, arXiv:2503.02642: where two neurons have
reciprocal synapses, the order of their noisy spikes shows which synapse is stronger, and plasticity that is Hebbian for one order of
spikes and anti-Hebbian for the other corrects the difference. The rule here is written from this principle as the paper's abstract
states it. We did not have its equations, and its own networks (spiking sampling networks, cortical microcircuits, equilibrium
propagation) are not reproduced, which is why the rule does not have its name.

For a weight W (m × n) with a feedback weight B of the same shape, neurons j of the lower and i of the upper layer spike at
random, with nothing but noise for an input and with each other's spikes one step later,

    P(u_i(t) = 1) = ½ + g Σ_j W_ij (l_j(t-1) − ½),        P(l_j(t) = 1) = ½ + g Σ_i B_ij (u_i(t-1) − ½),

and each pair of spikes moves the feedback weight up if the lower neuron was first, down if it was last, by λ to the power of
their distance in time less one:

    ΔB_ij = 4 / (g N) Σ_t [u_i(t) l̄_j(t) − ū_i(t) l_j(t)],        x̄(t) = λ x̄(t-1) + x(t-1),

N the number of steps and trials. Coincidences by chance cancel between the two terms. What is left is, since ¼ is the variance of
a spike,

    E ΔB = W − B + O(g²),

which is zero at B = W, exactly if all neurons have the same noise and to order g² here (P is clipped, and a neuron's variance
depends on its drive). So B follows W without ever reading it; errors then travel back as in backprop through time with B in
W's place (`rulezoo.credit.through_feedback`).

Choices: alignment has a phase of its own in each step, with neurons of its own noise; g is set by the drive that the upper
neurons get in the first step, so that it is the same part of ½ in all layers. The neurons of the read-out, which do not spike in
the network, spike in that phase. The rate is one over the number of updates until it is larger than ``rate``. Networks with
recurrent synapses are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.spiking.structure import why_not_spiking

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class SpikeTimingAlignment(LearningRule):
    """Backprop through time with feedback weights that learn from the order of pre- and postsynaptic spikes."""

    rate: float = hp(0.03, "rate of the feedback weights", low=1e-6, high=1, search=(0.01, 0.3), log=True)
    every: int = hp(1, "update the feedback every N steps", low=1)
    trials: int = hp(32, "independent trials of spontaneous activity per update", low=1)
    steps: int = hp(20, "time steps of spontaneous activity", low=2)
    coupling: float = hp(
        0.2, "mean effect of all synapses on a neuron's probability to spike, which is one half without them",
        low=1e-6, high=0.5, search=(0.05, 0.4), log=True,
    )  # fmt: skip
    window: float = hp(
        0.5, "decay of the learning window per step of distance between two spikes", low=0, high=0.99
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a feedforward spiking network whose errors pass linear weights only."""
        if (reason := why_not_spiking(net)) is not None:
            return reason
        if net.keys("recurrent"):
            return "it has recurrent synapses, whose neurons are their own upper layer; this rule aligns two layers"
        layers = [layer for layer in net.layers if layer.passes_error]
        if credit.true_weights(net, net.init_params()) or not all(one.plain for one in layers):
            return "errors would have to pass a weight that is not that of a linear layer"
        return None

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Feedback weights of zeros, ``feedback.<weight>``."""
        names = sorted(credit.backward_layers(net, params))
        return State(buffers={f"feedback.{name}": torch.zeros_like(params[name]) for name in names})

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """Uniform numbers for the spikes of the lower and the upper layer of each weight, ``(steps, trials, n or m)``."""
        if t % self.every:
            return {}
        drawn = {}
        for name, b in feedback_of(state).items():
            for place, units in (("lower", b.shape[1]), ("upper", b.shape[0])):
                shape = self.steps, self.trials, units
                drawn[f"{place}.{name}"] = torch.rand(shape, generator=gen, dtype=b.dtype, device=gen.device)
        return drawn

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        rate = max(self.rate, 1 / (t // self.every + 1))
        feedback = feedback_of(state)
        if t % self.every == 0:
            for name, b in feedback.items():
                change = self.change(params[name], b, noise[f"lower.{name}"], noise[f"upper.{name}"])
                feedback[name] = b + rate * change
        grads, mean = credit.through_feedback(net, loss, params, feedback, batch.x, batch.y)
        return Step(grads, State(buffers={f"feedback.{name}": b for name, b in feedback.items()}), mean)

    def change(self, weight: Tensor, feedback: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """ΔB, ``(m, n)``, from the spikes of an alignment phase.

        Args:
            weight: W, ``(m, n)``.
            feedback: B, ``(m, n)``.
            lower: noise of the lower neurons, ``(steps, trials, n)``.
            upper: noise of the upper neurons, ``(steps, trials, m)``.
        """
        low, up = (lower[0] < 0.5).to(weight.dtype), (upper[0] < 0.5).to(weight.dtype)
        size = F.linear(low - 0.5, weight).square().mean().sqrt()
        g = self.coupling / size.clamp(min=torch.finfo(size.dtype).tiny)
        low_trace, up_trace = torch.zeros_like(low), torch.zeros_like(up)
        first: list[Tensor] = []
        last: list[Tensor] = []
        for noise_low, noise_up in zip(lower[1:], upper[1:], strict=True):
            low_trace, up_trace = self.window * low_trace + low, self.window * up_trace + up
            driven_up = 0.5 + g * F.linear(low - 0.5, weight)
            driven_low = 0.5 + g * F.linear(up - 0.5, feedback.mT)
            low, up = (noise_low < driven_low).to(weight.dtype), (noise_up < driven_up).to(weight.dtype)
            first.append(up.mT @ low_trace)
            last.append(up_trace.mT @ low)
        pairs = torch.stack(first).sum(0) - torch.stack(last).sum(0)
        return 4 / g * pairs / lower[1:, :, 0].numel()


def feedback_of(state: State) -> Tensors:
    """Name of a weight → its feedback weight."""
    return {name.removeprefix("feedback."): b for name, b in state.buffers.items()}
