"""E-prop for spiking neurons: eligibility traces that follow a neuron's own state, times the present error.

Bellec, Scherr, Subramoney, Hajek, Salaj, Legenstein, Maass 2020, doi:10.1038/s41467-020-17236-y. The loss gradient is
written as Σ_t L_j^t e_ji^t: a learning signal of the neuron, and an eligibility trace of the synapse from i to j that uses no
derivative through the spikes that neurons exchange,

    e_ji^t = ∂z_j^t/∂h_j^t ε_ji^t,        ε_ji^t = ∂h_j^t/∂h_j^{t-1} ε_ji^{t-1} + ∂h_j^t/∂W_ji,

where the hidden state h_j is all that a neuron remembers. For the neurons of `rulezoo.nets`, with α the decay of the
potential, ρ that of the adaptation, β its size and ψ the pseudo-derivative, h = (v, a) and

    ε_v^t = α ε_v^{t-1} + z_i^{t-1}       (x_i^t for a synapse from the input)
    ε_a^t = (ρ − β ψ^{t-1}) ε_a^{t-1} + ψ^{t-1} ε_v^{t-1}
    e^t = ψ^t (ε_v^t − β ε_a^t)

(the paper's traces of LIF and ALIF neurons). The learning signal is L_j^t = Σ_k B_jk e_k^t, e the error of the output, through
the read-out's own weights (symmetric e-prop) or fixed random ones (random e-prop). A read-out with a memory of its own is
dealt with as in the paper, where the trace is filtered like the spikes; here, which is equal, the errors are weighted
by K, the sensitivity of each answer to a spike of that step, which is measured: L^t = Σ_r K_rt B e^r.

How it is computed: one trace for each synapse and example would fill the memory. The same sums come out in another order: with
the graph cut behind all spikes, the pull-back of the signals L^t goes through nothing but the neurons' own states. A test
holds this against the traces written out. Nothing later than an error is needed for its effect, so traces can do it online.

Where the read-out has no memory and answers at every step, random e-prop is direct feedback alignment through time
(`rulezoo_plugins.direct_feedback.alignment`), which serves spiking networks, too.

Deviations: a neuron's synapse on itself is a synapse like any other. In a network of several layers, which the paper counts as
one recurrent network, a neuron that does not project to the read-out has no symmetric feedback; such networks are served with
random feedback alone. There is no regularisation of firing rates, and no adaptive (learnt) feedback. For rate networks see
`rulezoo_plugins.recurrent.online`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp
from rulezoo_plugins.spiking.structure import (
    SpikingLayer,
    read_out,
    read_out_kernel,
    spiking_layers,
    why_not_spiking,
)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class SpikingEProp(LearningRule):
    """Eligibility through membrane and adaptation; the error reaches every neuron through weights of its own."""

    mode: str = hp(
        "random", "feedback through fixed random weights, or through the weights of the read-out",
        choices=("random", "symmetric"), search=("random", "symmetric"),
    )  # fmt: skip
    scale: float = hp(
        1.0, "size of random feedback weights, in units of 1/sqrt(neurons of the layer)",
        low=1e-6, search=(0.1, 10), log=True,
    )  # fmt: skip

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs neurons with a state of their own; with symmetric feedback, all of them in front of the read-out."""
        reason = why_not_spiking(net)
        if reason is None and self.mode == "symmetric" and len(spiking_layers(net)) > 1:
            return "symmetric feedback is the weight of the read-out, and only the last of the layers projects to it"
        return reason

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """The read-out's ``kernel`` ``(r, T)``, and ``feedback.<site>`` ``(o, n)`` of each layer."""
        buffers, dtype = {}, net.memory_dtype(*net.keys("post"))
        for layer in spiking_layers(net):
            drawn = net.normal((net.output_shape[-1], layer.width), gen)
            buffers[f"feedback.{layer.site}"] = self.scale / layer.width**0.5 * drawn.to(dtype)
        return State(buffers={"kernel": read_out_kernel(net).to(dtype), **buffers})

    def feedback(self, net: Net, params: Tensors, state: State, layer: SpikingLayer) -> Tensor:
        """B of a layer, ``(o, n)``."""
        if self.mode == "symmetric":
            return params[read_out(net)]
        return state.buffers[f"feedback.{layer.site}"]

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        cut = credit.cut(net, params, batch.x, net.keys("post"))
        error, mean = credit.output_error(loss, cut.output, batch.y)
        errors = errors_by_step(error, state.buffers["kernel"])
        signals: Tensors = {}
        for layer in spiking_layers(net):
            signal = errors @ self.feedback(net, params, state, layer)
            signals |= dict(zip(layer.post, signal.unbind(1), strict=True))
        return Step(cut.pull(error, signals), state, mean)


def errors_by_step(error: Tensor, kernel: Tensor) -> Tensor:
    """The errors of all answers as they count for a spike of each step, ``(b, T, o)``.

    Args:
        error: of the outputs, ``(b, o)`` or ``(b, r, o)``.
        kernel: K, ``(r, T)``.
    """
    return kernel.T @ error.view(len(error), len(kernel), -1)
