r"""Dendritic microcircuits: apical dendrites compare feedback with what lateral interneurons predict of it.

Sacramento, Costa, Bengio & Senn 2018 (arXiv:1810.11393), in its rate form: all potentials are at their steady state. Layer k of
pyramidal neurons, with rates r_k = φ(u_k), has the basal potential v_k and the apical potential a_k; interneurons mirror the
layer behind, which nudges them:

    v_k = W_k r_{k−1} + b_k,                                  u_k = v_k + λ a_k,
    v^I_k = W^IP_k r_k + b^I_k,                               u^I_k = (1 − μ) v^I_k + μ u_{k+1},
    a_k = W^PP_k φ(u_{k+1}) + W^PI_k φ(u^I_k),

    ΔW_k ∝ (φ(u_k) − φ(v_k)) r_{k−1}ᵀ,    ΔW^IP_k ∝ (φ(u^I_k) − φ(v^I_k)) r_kᵀ,    ΔW^PI_k ∝ −a_k φ(u^I_k)ᵀ.

The output is linear, r = u, and its teacher nudges it: u = v − nudge ∂L/∂u of each example. Without a teacher, in the
self-predicting state W^IP_k = W_{k+1}, W^PI_k = −W^PP_k, interneurons explain all of the feedback, and a_k = 0. A teacher's error is
what they do not explain; to first order it is that of feedback alignment, or of backprop with W^PP_k = W_{k+1}ᵀ.

Choices and deviations:
- λ and μ stand for the ratios of conductances of apical and somatic coupling; the leak of the soma, which scales all potentials
  alike, is left out.
- The steady state is found by iterating these equations from the forward pass, ``steps`` times, all layers at once.
- Activity that predicts is that of the network without a teacher (the forward pass), in training and in use.
- Lateral weights are trained by the optimiser that trains the forward weights, at learning rates of their own; the change of W^IP is
  divided by μ. W^PP is fixed.
- Before training there is a phase without a teacher, as in the paper, here on the first batch, by normalised least mean squares:
  W^IP learns to predict the potentials of the forward pass, W^PI to cancel the feedback that they give rise to. With
  ``start=self-predicting`` the lateral weights are copies from the start.
- Each layer's gradient is divided by what the attenuation leaves of an error, nudge (λ (1 − μ))^(layers behind): the
  paper gives each layer a learning rate of its own.
- The outputs of the last hidden layer's interneurons are linear, as the output is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


class _Stage(NamedTuple):
    """A layer of a chain: its weight, its bias (or none), and the sites of its potentials and rates (none at the output)."""

    weight: str
    bias: str | None
    pre: str
    post: str


@dataclass(frozen=True)
class DendriticMicrocircuit(LearningRule):
    """Apical potentials move neurons away from what their basal dendrites predict, and these learn."""

    lr: float | None = hp(0.003, "learning rate; lateral weights have to follow the forward weights", low=0)
    nudge: float = hp(1.0, "strength of the teacher at the output", low=1e-9, search=(0.1, 1), log=True)
    apical: float = hp(0.5, "coupling λ of apical potentials to the soma", low=1e-6, high=1)
    interneuron: float = hp(
        0.1, "coupling μ of interneurons to the layer that they mirror", low=1e-6, high=0.99
    )
    steps: int = hp(10, "steps in which potentials settle", low=1)
    feedback: str = hp("random", "what the top-down weights are made of", choices=("random", "symmetric"))
    start: str = hp("learnt", "initial lateral weights", choices=("learnt", "self-predicting"))
    first_phase: int = hp(500, "updates of the lateral weights without a teacher, before training", low=0)
    mirror_rate: float = hp(1.0, "factor on the learning rate of the weights to interneurons", low=0)
    cancel_rate: float = hp(1.0, "factor on the learning rate of the weights from interneurons", low=0)

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a chain of dense layers."""
        if not _is_chain(net):
            return (
                "interneurons mirror the layer behind: it needs dense layers in a chain, each hidden one with a site of kind "
                "'pre' and one of kind 'post' behind it, of the same units, and no other trained parameters"
            )
        return None

    def init(self, net: Net, params: Tensors, batch: Batch, gen: torch.Generator) -> State:
        """Top-down weights ``down``, and the lateral weights ``ip`` (its last column a bias) and ``pi``, by hidden layer."""
        stages = _stages(net)
        buffers: Tensors = {}
        clean = credit.blocks(net, params, batch.x, {})
        potentials = [clean.sites[one.pre] for one in stages[1:-1]] + [clean.output]
        rates = [clean.sites[one.post] for one in stages[:-1]] + [clean.output]
        for k, behind in enumerate(stages[1:]):
            w = params[behind.weight]
            size = w.square().mean().sqrt()
            down = w.mT.clone() if self.feedback == "symmetric" else size * net.normal(w.shape[::-1], gen)
            ip, pi = torch.cat([w, _bias(params, behind)[:, None]], 1), -down
            if self.start == "learnt":
                ip, pi = torch.zeros_like(ip), torch.zeros_like(down)
                excited = _augmented(rates[k])
                for _ in range(self.first_phase):
                    ip = ip + _change(potentials[k] - excited @ ip.mT, excited)
                    pi = pi - _change(rates[k + 1] @ (down + pi).mT, rates[k + 1])
            buffers |= {f"down.{k}": down, f"ip.{k}": ip, f"pi.{k}": pi}
        own = {name: b for name, b in buffers.items() if not name.startswith("down")}
        return State(own, {name: b for name, b in buffers.items() if name not in own})

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        stages, b = _stages(net), {**state.buffers, **state.params}
        hidden, top = stages[:-1], len(stages) - 1
        clean = credit.blocks(net, params, batch.x, {})
        mean = loss(clean.output, batch.y).mean()

        def passed(*potentials: list[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
            """Rates of the layers for several sets of potentials; basal potentials of the first set."""
            rows = {one.pre: torch.cat([p[k] for p in potentials]) for k, one in enumerate(hidden)}
            found = credit.blocks(net, params, torch.cat([batch.x] * len(potentials)), rows)
            rates = [found.sites[one.post].chunk(len(potentials)) for one in hidden]
            basal = [found.sites[one.pre].chunk(len(potentials))[0] for one in hidden]
            sets = [[*(layer[n] for layer in rates), p[top]] for n, p in enumerate(potentials)]
            return sets, [*basal, found.output.chunk(len(potentials))[0]]

        def interneurons(rates: list[Tensor], soma: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            """Potentials of those that mirror each layer, without nudging and with it; the first layer has none."""
            alone = [soma[0], *(_augmented(rates[k]) @ b[f"ip.{k}"].mT for k in range(top))]
            nudged = [free + self.interneuron * (u - free) for free, u in zip(alone, soma, strict=True)]
            return alone, nudged

        basal = soma = [*(clean.sites[one.pre] for one in hidden), clean.output]
        alone, inter = interneurons([clean.sites[one.post] for one in hidden], soma)
        for _ in range(self.steps):
            (rates, mirrored), basal = passed(soma, inter)
            apical = [
                rates[k + 1] @ b[f"down.{k}"].mT + mirrored[k + 1] @ b[f"pi.{k}"].mT for k in range(top)
            ]
            error = len(batch.x) * credit.output_error(loss, basal[top], batch.y)[0]
            soma = [
                *(basal[k] + self.apical * apical[k] for k in range(top)),
                basal[top] - self.nudge * error,
            ]
            alone, inter = interneurons(rates, soma)
        (after, predicted, nudged, free), _ = passed(soma, basal, inter, alone)

        grads: Tensors = {}
        inputs = [credit.rows(batch.x), *rates]
        for k, one in enumerate(stages):
            left = self.nudge * (self.apical * (1 - self.interneuron)) ** (top - k)
            signal = (predicted[k] - after[k]) / left / len(batch.x)
            grads[one.weight] = signal.mT @ inputs[k]
            if one.bias is not None:
                grads[one.bias] = signal.sum(0)
        for k in range(top):
            behind = (free[k + 1] - nudged[k + 1]) / self.interneuron
            grads[f"rule.ip.{k}"] = behind.mT @ _augmented(rates[k]) / len(behind)
            grads[f"rule.pi.{k}"] = apical[k].mT @ mirrored[k + 1] / len(behind)
        return Step(grads, state, mean)

    def rates(self, net: Net) -> dict[str, float]:
        """Lateral weights have learning rates of their own."""
        hidden = range(len(_stages(net)) - 1)
        return {f"rule.ip.{k}": self.mirror_rate for k in hidden} | {
            f"rule.pi.{k}": self.cancel_rate for k in hidden
        }


def _change(post: Tensor, pre: Tensor) -> Tensor:
    """Post preᵀ, averaged over the batch and divided by the mean squared size of what excites the weight."""
    return post.mT @ pre / len(pre) / (1 + pre.square().sum(1).mean())


def _augmented(rates: Tensor) -> Tensor:
    """Rates and a unit that is always 1, whose weight is a bias."""
    return torch.cat([rates, rates.new_ones(len(rates), 1)], 1)


def _bias(params: Tensors, one: _Stage) -> Tensor:
    w = params[one.weight]
    return w.new_zeros(len(w)) if one.bias is None else params[one.bias]


def _stages(net: Net) -> list[_Stage]:
    """The layers of a chain, in the order of the forward pass; those that exist, where it is none."""
    return [
        _Stage(
            layer.weights[0],
            next((name for name in layer.parameters if name not in layer.weights), None),
            next(iter(layer.pre), ""),
            next(iter(layer.post), ""),
        )
        for layer in net.layers
        if layer.weights
    ]


def _is_chain(net: Net) -> bool:
    """Whether the network is a chain of dense layers: declared so, and computing on its example what one would."""
    stages, params = _stages(net), net.init_params()
    named = [name for one in stages for name in (one.weight, one.bias) if name]
    sites = [key for one in stages[:-1] for key in (one.pre, one.post)]
    plain = all(layer.plain and layer.operation == "linear" and len(layer.uses) == 1 for layer in net.layers)
    if not plain or sorted(named) != sorted(params) or len(stages) < 2 or len(net.output_shape) != 1:
        return False
    if (
        sites != [key for key, visit in net.visits.items() if visit.kind in ("pre", "post")]
        or stages[-1].post
    ):
        return False
    if any(
        net.visits[key].shape != (len(params[one.weight]),)
        for one in stages[:-1]
        for key in (one.pre, one.post)
    ):
        return False
    with torch.autocast(
        net.example.device.type, enabled=False
    ):  # rounding in bfloat16 would look like another layer
        found = credit.blocks(net, params, net.example, {})
        inputs = [credit.rows(net.example), *(found.sites[one.post] for one in stages[:-1])]
        outputs = [*(found.sites[one.pre] for one in stages[:-1]), found.output]
        return all(
            x.shape[1] == params[one.weight].shape[1]
            and torch.allclose(x @ params[one.weight].mT + _bias(params, one), y, rtol=1e-3, atol=1e-5)
            for x, one, y in zip(inputs, stages, outputs, strict=True)
        )
