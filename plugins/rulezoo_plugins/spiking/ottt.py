"""Online training through time: presynaptic traces, times errors that travel back within a time step only.

Xiao, Meng, Zhang, He, Lin 2022, arXiv:2210.04195 (OTTT). In a feedforward network of LIF neurons with decay λ the gradient of
BPTT contains, for each synapse, the sum of past presynaptic spikes weighed by λ to the power of their age, and terms that go
back in time through the potentials of the layers above. OTTT keeps the former as a trace of the presynaptic neuron and leaves
the latter out,

    â^l[t] = λ â^l[t-1] + s^l[t],        ΔW^{l+1} ∝ − Σ_t g^{l+1}[t] â^l[t]ᵀ,
    g^l[t] = ψ(u^l[t]) ⊙ W^{l+1}ᵀ g^{l+1}[t],        g of the read-out = the error of step t,

with s the spikes, u the potentials, ψ the surrogate derivative. Everything of a step can be forgotten after it but the traces.
As published (with the gradients of all steps added up, OTTT_A), no derivative is taken through the reset.

How it is computed: the graph is cut at the sites ``pre``, on the potentials. The pull-back of g[t] there is g[t] â[t]ᵀ, since a
potential depends on the weight through all of its past inputs, and on nothing else behind the cut.

Deviations: where the read-out has a memory of its own (a leak, or an answer after the last step alone), the error of a step is
that of all answers, each weighted by K, its sensitivity to spikes of that step; with an answer at every step and no leak this is the paper's
instantaneous loss. Networks with recurrent synapses, which the paper serves too, and neurons with adaptive thresholds, which it
does not consider, are refused; so are convolutions. Weight standardisation and the paper's surrogate (a sigmoid's derivative)
are not part of the rule: ψ is that of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit
from rulezoo_plugins.spiking.e_prop import errors_by_step
from rulezoo_plugins.spiking.structure import (
    SpikingLayer,
    read_out,
    read_out_kernel,
    spiking_layers,
    why_not_spiking,
)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class OTTT(LearningRule):
    """Errors travel back through the forward weights within each step, and presynaptic traces carry the past."""

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs layers of LIF neurons in a chain, linear, with neither recurrent synapses nor adaptation."""
        return why_not_spiking(net) or _why_no_chain(net)

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """The read-out's ``kernel`` ``(r, T)``."""
        return State(buffers={"kernel": read_out_kernel(net).to(net.memory_dtype(*net.keys("post")))})

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        zeros = {key: net.zeros(key, len(batch.x)) for key in net.keys("pre")}
        (output, potentials, spikes), pull = credit.value_and_pull(
            lambda at: _cut(net, at[0], batch.x, at[1]), (params, zeros)
        )
        error, mean = credit.output_error(loss, output, batch.y)

        ones = {key: torch.ones_like(z) for key, z in spikes.items()}  # spikes depend on the offsets alone
        no_signal = {key: torch.zeros_like(u) for key, u in potentials.items()}
        _, slopes = pull((torch.zeros_like(output), no_signal, ones), keep=True)
        signals = self._signals(net, params, slopes, errors_by_step(error, state.buffers["kernel"]))
        grads, _ = pull((error.to(output.dtype), signals, ones))
        return Step(grads, state, mean)

    def _signals(self, net: Net, params: Tensors, slopes: Tensors, error: Tensor) -> Tensors:
        """The g of every layer and step, by visits of ``pre`` sites, ``(b, n)``.

        Args:
            net: the network.
            params: its parameters.
            slopes: ψ, by visits of ``pre`` sites.
            error: of each step, ``(b, T, o)``.
        """
        signals: Tensors = {}
        above, g = params[read_out(net)], error
        for layer in reversed(spiking_layers(net)):
            g = torch.stack([slopes[key] for key in layer.pre], 1) * (g @ above)
            signals |= dict(zip(layer.pre, g.unbind(1), strict=True))
            above = params[layer.weights[0]]
        return {key: signals[key] for key in net.keys("pre")}  # the order in which a pass comes by them


def _cut(net: Net, params: Tensors, x: Tensor, offsets: Tensors) -> tuple[Tensor, Tensors, Tensors]:
    """The output, potentials and spikes of a pass that is cut behind both; offsets are added to the potentials."""
    potentials: Tensors = {}
    spikes: Tensors = {}

    def tap(key: str, h: Tensor) -> Tensor:
        if key in offsets:
            potentials[key] = h
            return h.detach() + offsets[key]
        if net.visits[key].kind == "post":
            spikes[key] = h
        return h.detach()

    return net.run(params, x, tap), potentials, spikes


def _why_no_chain(net: Net) -> str | None:
    layers = spiking_layers(net)
    if any(len(layer.weights) != 1 for layer in layers) or net.keys("recurrent"):
        return (
            "it has recurrent synapses, and this rule is for feedforward networks; spiking-e-prop serves it"
        )
    known = credit.feedback_layers(net, net.init_params())
    if any(layer.weights[0] not in known for layer in layers):
        return "its layers must be linear"
    if _adapts(net, layers):
        return (
            "its spikes have an effect on later spikes of their neuron that is no reset, such as adaptation"
        )
    return None


def _adapts(net: Net, layers: tuple[SpikingLayer, ...]) -> bool:
    """Whether a later spike depends on an earlier decision of its neuron, where all potentials are at the threshold."""
    x, first, last = net.example, layers[0].pre[0], layers[0].post[-1]

    def spikes(offsets: Tensors) -> Tensor:
        seen: Tensors = {}

        def tap(key: str, h: Tensor) -> Tensor:
            if net.visits[key].kind == "pre":
                h = h - h.detach() + offsets.get(key, 0.0)
            seen[key] = h
            return h.detach() if net.visits[key].kind == "post" else h

        net.run(net.init_params(), x, tap)
        return seen[last]

    reached = credit.grad(lambda at: spikes(at).sum(), {first: net.zeros(first, len(x))})
    return bool(reached[first].any())
