"""Networks of leaky integrate-and-fire neurons with surrogate gradients.

A neuron in discrete time, as in Bellec et al. 2020 (doi:10.1038/s41467-020-17236-y, Methods, network models), with
potentials in units of the threshold:

    v_t = α v_{t-1} + W_in x_t + b + W_rec z_{t-1} − z_{t-1}     membrane potential; a spike subtracts the threshold
    a_t = ρ a_{t-1} + z_{t-1}                                    adaptation (ALIF neurons, β > 0)
    z_t = H(v_t − 1 − β a_t)                                     spike

and a leaky read-out, y_t = W_out s_t + b_out with s_t = κ s_{t-1} + (1 − κ) z_t.

H is the step function. Its derivative, zero almost everywhere, is replaced by the pseudo-derivative of the same paper,

    ψ(u) = γ max(0, 1 − |u|).

Backprop through time uses it (surrogate gradients: Neftci, Mostafa & Zenke 2019, doi:10.1109/MSP.2019.2931595). No
derivative is taken through the reset −z_{t-1}, as in that paper's stop_gradient and in Zenke & Vogels 2021
(doi:10.1162/neco_a_01367); one is taken through the adaptation.

Deviations from Bellec et al.: no refractory period; a neuron may have a synapse on itself; the bias of the read-out is
not filtered.

Neurons of snnTorch 1.0 and norse 1.1 are not used: the autograd functions of both have no ``setup_context``, so they
cannot be differentiated under `torch.func.vmap`, and a neuron of snnTorch keeps its potential in the module.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rulezoo.net import Site


def spike(u: Tensor, dampening: float = 0.3) -> Tensor:
    """1 where ``u`` is positive, else 0; its derivative is ``dampening * max(0, 1 - |u|)``.

    Written without an autograd function, so that it works in all of torch's transforms, forward mode included: the
    second term is exactly zero, and so is the derivative of everything in it but the last factor.

    Args:
        u: membrane potential minus threshold, in units of the threshold.
        dampening: γ, the derivative at the threshold.
    """
    slope = dampening * (1 - u.detach().abs()).clamp(min=0)
    return (u.detach() > 0).to(u.dtype) + slope * (u - u.detach())


class LIF(nn.Module):
    """A layer of leaky integrate-and-fire neurons.

    Its sites are visited once per step: ``pre``, the potential minus the threshold, which decides on a spike;
    ``post``, the spikes as other neurons see them; ``recurrent``, the edge from the spikes into ``w_rec``. A neuron's
    own reset and adaptation see the spike itself, whatever a tap makes of what other neurons see.

    Args:
        n_in: units of the input.
        width: neurons.
        recurrent: whether the neurons have synapses on each other.
        decay: α, the share of the membrane potential that is left after a step.
        adaptation: β, by how much a spike raises the threshold; 0 = a fixed threshold.
        adaptation_decay: ρ, the share of the adaptation that is left after a step.
        dampening: γ of the pseudo-derivative.
        gain: size of the initial input weights, in units of 1/sqrt(n_in).
    """

    def __init__(
        self,
        n_in: int,
        width: int,
        *,
        recurrent: bool = False,
        decay: float = 0.9,
        adaptation: float = 0.0,
        adaptation_decay: float = 0.97,
        dampening: float = 0.3,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.decay, self.dampening = decay, dampening
        self.adaptation, self.adaptation_decay = adaptation, adaptation_decay
        self.w_in = nn.Linear(n_in, width)
        nn.init.normal_(self.w_in.weight, std=gain / n_in**0.5)
        nn.init.zeros_(self.w_in.bias)
        self.pre = Site("pre", unrolled=True)
        self.post = Site("post", unrolled=True)
        if recurrent:
            self.w_rec = nn.Linear(width, width, bias=False)
            nn.init.normal_(self.w_rec.weight, std=1 / width**0.5)
            self.recurrent = Site("recurrent", unrolled=True)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes ``(batch, time, width)`` for inputs ``(batch, time, n_in)``, from rest."""
        v = a = own = seen = x.new_zeros(len(x), self.width)
        spikes = []
        for drive in self.w_in(x).unbind(1):  # one product for the whole sequence
            if hasattr(self, "w_rec"):
                drive = drive + self.w_rec(self.recurrent(seen))
            v = self.decay * v + drive - own.detach()
            above = v - 1
            if self.adaptation:
                a = self.adaptation_decay * a + own
                above = above - self.adaptation * a
            own = spike(self.pre(above), self.dampening)
            seen = self.post(own)
            spikes.append(seen)
        return torch.stack(spikes, 1)


class SpikingNetwork(nn.Module):
    """Layers ``lif1``, ``lif2``, … of LIF neurons, one feeding the next within a step, and a leaky read-out ``w_out``.

    Args:
        widths: units of the input, of each layer, and of the read-out.
        recurrent: whether the neurons of a layer have synapses on each other.
        every_step: read out at every step, not only after the last.
        decay: α, the share of a membrane potential that is left after a step.
        adaptation: β, by how much a spike raises its neuron's threshold; 0 = fixed thresholds.
        adaptation_decay: ρ, the share of the adaptation that is left after a step.
        readout_decay: κ, the share of the read-out's memory that is left after a step.
        dampening: γ of the pseudo-derivative.
        gain: size of the initial input weights of a layer, in units of one over the square root of its inputs; one number,
            or one for each layer.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        recurrent: bool = False,
        every_step: bool = False,
        decay: float = 0.9,
        adaptation: float = 0.0,
        adaptation_decay: float = 0.97,
        readout_decay: float = 0.9,
        dampening: float = 0.3,
        gain: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        self.every_step, self.readout_decay = every_step, readout_decay
        *hidden, outputs = widths
        gains = [gain] * (len(hidden) - 1) if isinstance(gain, int | float) else list(gain)
        for number, (n_in, width) in enumerate(pairwise(hidden), 1):
            layer = LIF(
                n_in,
                width,
                recurrent=recurrent,
                decay=decay,
                adaptation=adaptation,
                adaptation_decay=adaptation_decay,
                dampening=dampening,
                gain=gains[number - 1],
            )
            self.add_module(f"lif{number}", layer)
        self.w_out = nn.Linear(hidden[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The read-out of ``x``, ``(batch, time, n_in)``: ``(batch, n_out)``, or ``(batch, time, n_out)``."""
        for layer in self.children():
            if isinstance(layer, LIF):
                x = layer(x)
        s = x.new_zeros(x[:, 0].shape)
        memory = []
        for z in x.unbind(1):
            s = self.readout_decay * s + (1 - self.readout_decay) * z
            memory.append(s)
        output: Tensor = self.w_out(torch.stack(memory, 1) if self.every_step else s)
        return output
