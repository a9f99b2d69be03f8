r"""Contrastive Hebbian learning: errors are differences of activity, brought down by weak or opposite feedback.

With d_k(x_{k−1}) the drive of layer k (weights, biases and max-pooling, without the activation function f_k of the
network), every unit receives its drive and feedback from the layer above, through the transposed weights:

    b_k(v) = (∂d_{k+1}/∂x_k)ᵀ v_{k+1}.

- `ContrastiveHebbianLearning`: Xie & Seung 2003 (doi:10.1162/089976603762552988): x_k relaxes to f_k(d_k + γ b_k(x)),
  once with the linear output units free, once with them clamped at their targets (x̂), and

      ΔW_k ∝ γ^{k−K} (x̂_k x̂_{k−1}ᵀ − x_k x_{k−1}ᵀ),    K the layer of the output.

  For weak feedback γ the difference of the states is γ^{K−k} times the error of backprop, so that γ → 0 gives backprop.
  Deviations: outputs are clamped at o − ∂L/∂o, which is the target where L = ½ ‖o − target‖²; so the rule takes any loss.
  Activity is limited to ``ceiling``, since rectifiers that excite each other have no bound of their own: without it runs
  diverged once the weights had grown. Feedback has to stay weak as the weights grow: with γ = 0.1 accuracy on validation data of
  digits-cnn drops by several points in some epochs (95.6 % at the end, mean of 2 seeds), with γ = 0.05 it does not (97.0 %;
  backprop 97.5 %). In float32 the
  rounding of the states, divided by γ^{K−k}, is noise in the update of a layer far from the output.
- `DualPropagation`: Høier, Staudt & Zach 2023 (arXiv:2302.01228): each neuron is a dyad with the states z⁺ and z⁻, of
  which the layer above receives the mean, the layer below the difference,

      z_k^± = f_k(d_k(z̄_{k−1}) ± ½ b_k(z⁺ − z⁻)),    z̄ = ½ (z⁺ + z⁻),

  so there is one phase, and ΔW_k ∝ (z_k⁺ − z_k⁻) z̄_{k−1}ᵀ / β. The output's states are its drive ∓ ½ β ∂L/∂o, the
  paper's form with a linearised loss. β → 0 gives backprop; a larger β puts a difference quotient of f_k in place of its
  derivative. The default is larger than in the paper's code (about 1 to 2 in this unit), where the angle to backprop on
  networks with tanh is below a tenth of a degree. Deviation: all layers are updated at the same time, of which the paper's
  code has a variant; its default sweeps through the layers, down and up.

In both, activities start from the forward pass. A pooled unit has a pooled drive, and sends feedback to the unit that won.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class _Contrastive(LearningRule):
    steps: int = hp(10, "steps of relaxation", low=1)

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs layers of units to which feedback can be added, and a step for each of them."""
        sites = net.keys("post")
        if not sites:
            return "its units are those of sites of kind 'post', and this network has none"
        if net.keys("recurrent") or any("[" in key for key in sites):
            return "it relaxes to a fixed point for one input, and this network has time steps"
        if other := credit.not_of_drives(net, net.init_params()):
            return (
                "it adds feedback to the drive of each unit, and the activity at the site "
                f"{other[0]!r} is not an activation function of the drive of one layer"
            )
        if self.steps < len(sites):
            return (
                f"feedback passes one layer per step, and does not reach the first of the {len(sites)} layers in "
                f"{self.steps} steps; set steps to {len(sites)} or more"
            )
        return None


@dataclass(frozen=True)
class ContrastiveHebbianLearning(_Contrastive):
    """Two phases, with the output free and clamped, in a network with weak feedback."""

    steps: int = hp(20, "steps of relaxation, of each phase", low=1)
    feedback: float = hp(
        0.05,
        "strength of the feedback, relative to the forward weights",
        low=1e-9,
        search=(0.01, 0.3),
        log=True,
    )
    ceiling: float = hp(0.5, "largest activity of a unit", low=0.1)

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs a chain of layers, too: the strength of the error tells how far it came."""
        return super().skip(net, task) or _no_chain(net)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        free = self._relaxed(net, params, batch.x, _forward(net, params, batch.x)[0])
        here, pull = _at(net, params, batch.x, free, weights=True)
        error, mean = credit.output_error(loss, here.output, batch.y)
        target = here.output - len(batch.x) * error
        without = pull((self._scaled(free), here.output))
        clamped = self._relaxed(net, params, batch.x, free, target)
        _, pull = _at(net, params, batch.x, clamped, weights=True)
        with_target = pull((self._scaled(clamped), target))
        return Step({n: (g - with_target[n]) / len(batch.x) for n, g in without.items()}, state, mean)

    def predict(self, net: Net, params: Tensors, state: State, x: Tensor) -> Tensor:
        """The output of the free phase."""
        free = self._relaxed(net, params, x, _forward(net, params, x)[0])
        return credit.blocks(net, params, x, free).output

    def _relaxed(
        self, net: Net, params: Tensors, x: Tensor, h: Tensors, clamped: Tensor | None = None
    ) -> Tensors:
        """The states after the steps of a phase."""
        for _ in range(self.steps):
            here, back = _feedback(
                net, params, x, h, h, lambda output: output if clamped is None else clamped
            )
            h = {
                key: f(here.drives[key] + self.feedback * back[key]).clamp(max=self.ceiling)
                for key, f in here.functions.items()
            }
        return h

    def _scaled(self, h: Tensors) -> Tensors:
        """The states as they count in the update: those far from the output, where errors are small, count more."""
        return {key: v * self.feedback ** (i - len(h)) for i, (key, v) in enumerate(h.items())}


@dataclass(frozen=True)
class DualPropagation(_Contrastive):
    """One phase of dyads: the mean of their two states is the activity, and the difference is the error."""

    beta: float = hp(6.0, "size of the nudge", low=1e-9, search=(0.01, 10), log=True)

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        scale = self.beta * len(batch.x)

        def nudge(output: Tensor) -> Tensor:
            return -scale * credit.output_error(loss, output, batch.y)[0]

        mean, output = _forward(net, params, batch.x)
        apart = {key: torch.zeros_like(h) for key, h in mean.items()}
        for _ in range(self.steps):
            here, back = _feedback(net, params, batch.x, mean, apart, nudge)
            up, down = (
                {key: f(here.drives[key] + half * back[key]) for key, f in here.functions.items()}
                for half in (0.5, -0.5)
            )
            mean = {key: (up[key] + down[key]) / 2 for key in up}
            apart = {key: up[key] - down[key] for key in up}
        here, pull = _at(net, params, batch.x, mean, weights=True)
        grads = pull((apart, nudge(here.output)))
        return Step({n: -g / scale for n, g in grads.items()}, state, loss(output, batch.y).mean())


class _Here(NamedTuple):
    """What a network does on given activity: the drive of each site, the output, the activation function of each site."""

    drives: Tensors
    output: Tensor
    functions: Mapping[str, Callable[[Tensor], Tensor]]


def _forward(net: Net, params: Tensors, x: Tensor) -> tuple[Tensors, Tensor]:
    """The activities of the forward pass, and its output."""
    sites, output = credit.blocks(net, params, x, {})
    return {key: sites[key] for key in net.keys("post")}, output


def _at(net: Net, params: Tensors, x: Tensor, h: Tensors, *, weights: bool) -> tuple[_Here, credit.Pull]:
    """The network on given activity, and the pull-back of drives and output to the weights or to the activity."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {}

    def evaluate(at: Tensors) -> tuple[Tensors, Tensor]:
        found = credit.drives(net, at, x, h) if weights else credit.drives(net, params, x, at)
        functions.update({key: only for key, (only,) in found.activations.items()})
        return found.sites, found.output

    (drives, output), pull = credit.value_and_pull(evaluate, params if weights else h)
    return _Here(drives, output, functions), pull


def _feedback(
    net: Net,
    params: Tensors,
    x: Tensor,
    h: Tensors,
    sent: Tensors,
    sent_by_output: Callable[[Tensor], Tensor],
) -> tuple[_Here, Tensors]:
    """The network on given activity, and what each site receives of what is sent by the layer above it."""
    here, pull = _at(net, params, x, h, weights=False)
    return here, pull((sent, sent_by_output(here.output)))


def _no_chain(net: Net) -> str | None:
    """A sentence if the layers are no chain, in which each is fed by the site in front of it alone."""
    fed = [use.fed_by for layer in net.layers for use in layer.uses]
    sites = net.keys("post")
    if fed == [(), *((key,) for key in sites)]:
        return None
    return f"it needs one layer between each site and the next, and the layers here are fed by {fed}"
