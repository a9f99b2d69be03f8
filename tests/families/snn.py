"""A spiking network (LIF, surrogate gradient), digits as currents, and e-prop (Bellec et al. 2020)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from rulezoo import (
    Budget,
    Data,
    LearningRule,
    Plausibility,
    RuleSpec,
    Site,
    Split,
    State,
    Step,
    TaskSpec,
    credit,
    hookimpl,
    hp,
)
from rulezoo_tasks.classification import Classification
from rulezoo_tasks.digits import digits


class Spike(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(v):
        return (v > 0).to(v.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        return grad * 0.3 * (1 - ctx.saved_tensors[0].abs()).clamp(min=0)


class LIF(nn.Module):
    def __init__(self, n_in, width, n_out, alpha=0.9, kappa=0.9):
        super().__init__()
        self.width, self.alpha, self.kappa = width, alpha, kappa
        self.w_in, self.w_rec, self.w_out = (
            nn.Linear(n_in, width),
            nn.Linear(width, width, bias=False),
            nn.Linear(width, n_out),
        )
        nn.init.normal_(self.w_in.weight, std=1.5 / n_in**0.5)
        self.recurrent, self.pre, self.spikes = (Site(k, unrolled=True) for k in ("recurrent", "pre", "post"))

    def forward(self, x):
        v, z, y = x.new_zeros(len(x), self.width), x.new_zeros(len(x), self.width), 0.0
        for drive in self.w_in(x).unbind(1):
            v = self.pre(self.alpha * v + self.w_rec(self.recurrent(z)) + drive - z.detach())
            z = self.spikes(Spike.apply(v - 1))
            y = self.kappa * y + self.w_out(z)
        return y


@dataclass(frozen=True)
class DigitsSNN(Classification):
    """Inputs ``(batch, 24, 8)``: every row of the image for three steps, as currents."""

    budget: ClassVar[Budget] = Budget(epochs=15, batch=64, lr=1e-2, schedule="cosine")

    def data(self, root, *, download=False):
        return Data(*(Split(part.x.repeat_interleave(3, 1), part.y) for part in digits()))

    def network(self):
        return LIF(8, 100, 10)


@dataclass(frozen=True)
class EPropSNN(LearningRule):
    """Eligibility through the membrane alone; every spike receives the error of the leaky read-out through B."""

    kappa: float = hp(0.9, "leak of the read-out, which the network does not tell", low=0, high=1)
    symmetric: bool = hp(False, "feedback is the read-out's weight")

    def skip(self, net, task):
        return (
            None
            if net.keys("recurrent") and len(net.output_shape) == 1
            else "it needs recurrent edges, and one answer at the end"
        )

    def init(self, net, params, batch, gen):
        width = net.visits[net.keys("post")[0]].width
        return State(buffers={"B": net.normal((net.output_width, width), gen) / width**0.5})

    def step(self, net, loss, params, state, batch, noise, t):
        spikes = net.keys("post")
        read_out = next(params[name] for name in net.readout if len(net.shapes[name]) == 2)
        b = read_out if self.symmetric else state.buffers["B"]
        # The spikes' effect on others is cut; a neuron's memory of its own is not.
        cut = credit.cut(net, params, batch.x, [*spikes, *net.keys("recurrent")])
        error, mean = credit.output_error(loss, cut.output, batch.y)
        signals = {key: error @ b * self.kappa**late for late, key in enumerate(reversed(spikes))}
        return Step(cut.pull(error, signals), state, mean)


@hookimpl
def rulezoo_rules():
    tags = Plausibility(
        weight_transport=False, backward_pass=False, update_locking=True, signal="vector", perturbation=False
    )
    return [RuleSpec("eprop-snn", f"{__name__}:EPropSNN", "E-prop for spikes.", plausibility=tags)]


@hookimpl
def rulezoo_tasks():
    return [TaskSpec("digits-snn", f"{__name__}:DigitsSNN", "Digits by spikes.", embedded=True)]
