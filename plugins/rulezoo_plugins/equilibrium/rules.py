r"""Equilibrium propagation: the difference between equilibria of a network with an energy is the gradient.

The units of the ``post`` sites have states s_l in [0, 1], and couplings that are symmetric: the weight by which one layer
drives the next also brings the state of the next layer back. With d_l(s_{l−1}) the drive of layer l (weights, biases and
max-pooling; the activation function of the network is left out), the energy of a state, with the nudge β, is

    E_β(s) = Σ_l ½ ‖s_l‖² − Φ(s) + β L(o(s_last), y),    Φ(s) = Σ_l ⟨s_l, d_l(s_{l−1})⟩,

and the states descend it, in steps that stay within [0, 1]:

    s ← ρ(s − ε ∂E_β/∂s),    ρ(u) = min(max(u, 0), 1).

With ε = 1 this is s ← ρ(∂Φ/∂s − β ∂L/∂s), the dynamics in discrete time of Ernoult et al. 2019 (arXiv:1905.13633). The
first phase (β = 0) starts from s = 0 and its equilibrium s⁰ answers; the second starts from there, with a nudge.

- `EquilibriumPropagation`: Scellier & Bengio 2017 (doi:10.3389/fncom.2017.00024): the gradient is estimated by
  (∂E_β/∂W(s^β) − ∂E_0/∂W(s⁰)) / β, which for a weight between two layers is the difference of their correlations. The sign
  of β is drawn for each batch, as in the authors' code (github.com/bscellier/Towards-a-Biologically-Plausible-Backprop):
  the mean over both signs is the symmetric estimate. With ``sign=positive`` the nudge is always towards the target.
- `SymmetricEquilibriumPropagation`: Laborieux et al. 2021 (doi:10.3389/fnins.2021.633674), section on symmetric nudging:
  (∂E_β/∂W(s^β) − ∂E_{−β}/∂W(s^{−β})) / 2β, whose bias is of order β² instead of β.

As β → 0, the change of the slope over t steps of the second phase is the gradient by backpropagation through the last t
steps of the first (the "gradient-descending updates" of Ernoult et al. 2019).

A positive nudge alone has a bias of order β that does not average out, and deep networks fail on it: in Laborieux et al. the
test error on CIFAR-10 is 86 % with it and about 12 % with symmetric nudging. So it is here: on digits-cnn accuracy on
validation data is 41.4 % with ``sign=positive``, 93.1 % with random signs, 93.6 % for the symmetric form and 82.5 % for
`frozen` (mean of 2 seeds); on digits-mlp 90.8, 95.6, 95.3 and 84.2 %.

Deviations. The task's read-out o is outside of the energy: it learns by the slope of β L at the nudged equilibrium, as in
Laborieux et al. for the cross-entropy. (In Scellier & Bengio output units relax with the others, and the loss is a
squared error.) Both rules therefore take any loss. The pooling is that of the network, and a skip
connection is a coupling of weight 1. Weights are updated by the task's optimiser, those within the energy
more slowly by one factor (the papers choose a learning rate for each layer).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rulezoo import Batch, LearningRule, Net, State, Step, Task, credit, hp

Tensors = dict[str, Tensor]
Nudge = Callable[[Tensor], Tensor]  # output → −β ∂L/∂output, of each example


@dataclass(frozen=True)
class _Equilibrium(LearningRule):
    free: int = hp(20, "steps of the free phase", low=1)
    nudged: int = hp(6, "steps of each nudged phase", low=1)
    beta: float = hp(0.5, "size of the nudge", low=1e-9, search=(0.05, 2), log=True)
    rate: float = hp(1.0, "size of a step of relaxation", low=1e-3, high=1)
    coupling_rate: float = hp(
        0.1,
        "factor on the learning rate of all weights but the read-out's",
        low=0,
        search=(0.01, 1),
        log=True,
    )

    def skip(self, net: Net, task: Task) -> str | None:
        """Needs layers of units that can be coupled both ways, and a nudge that reaches all of them."""
        sites = net.keys("post")
        if not sites:
            return "its units are those of sites of kind 'post', and this network has none"
        if net.keys("recurrent") or any("[" in key for key in sites):
            return "it relaxes to an equilibrium for one input, and this network has time steps"
        if net.statistics:
            return "each example has an energy of its own, and this network normalises over the batch"
        found = credit.drives(net.evaluation(), net.init_params(), net.example, {}).activations
        for key, functions in found.items():
            if len(functions) != 1:
                return (
                    "the layer in front of each site of kind 'post' must have one activation function, and in front of "
                    f"{key!r} there are {len(functions)}"
                )
        if self.nudged < len(sites):
            return (
                f"the nudge passes one layer per step, and does not reach the first of the {len(sites)} layers in "
                f"{self.nudged} steps; set nudged to {len(sites)} or more"
            )
        return None

    def rates(self, net: Net) -> dict[str, float]:
        """Weights within the energy learn more slowly: they drive states to their bounds, where nothing is learned."""
        return {name: self.coupling_rate for name in net.shapes if name not in net.readout}

    def predict(self, net: Net, params: Tensors, state: State, x: Tensor) -> Tensor:
        """The read-out of the free equilibrium."""
        return _drives(net, params, x, self._rest(net, params, x))[1]

    def _rest(self, net: Net, params: Tensors, x: Tensor) -> Tensors:
        """The free equilibrium."""
        zeros = {key: net.zeros(key, len(x)) for key in net.keys("post")}
        return self._relaxed(net, params, x, zeros, self.free, torch.zeros_like)

    def _relaxed(self, net: Net, params: Tensors, x: Tensor, s: Tensors, steps: int, nudge: Nudge) -> Tensors:
        for _ in range(steps):
            (drives, output), pull = credit.value_and_pull(lambda s: _drives(net, params, x, s), s)
            back = pull((s, nudge(output)))
            s = {key: (h + self.rate * (drives[key] + back[key] - h)).clamp(0, 1) for key, h in s.items()}
        return s

    def _slopes_when_nudged(
        self, net: Net, loss: credit.Loss, params: Tensors, batch: Batch, rest: Tensors, beta: float | Tensor
    ) -> Tensors:
        """∂E_β/∂W at the equilibrium of this β, summed over the batch."""

        def nudge(output: Tensor) -> Tensor:
            return -beta * len(batch.x) * credit.output_error(loss, output, batch.y)[0]

        s = self._relaxed(net, params, batch.x, rest, self.nudged, nudge)
        return _slopes(net, params, batch.x, s, nudge)[0]


@dataclass(frozen=True)
class EquilibriumPropagation(_Equilibrium):
    """The free equilibrium against one nudged towards the target or away from it."""

    sign: str = hp(
        "random",
        "direction of the nudge: drawn for each batch, or always towards the target",
        choices=("random", "positive"),
    )

    def noise(self, net: Net, state: State, batch: Batch, gen: torch.Generator, t: int) -> Tensors:
        """A standard normal number ``(1,)``, whose sign is the direction of the nudge: 1 towards the target, −1 away from it."""
        return {} if self.sign == "positive" else {"direction": net.normal((1,), gen)}

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        rest = self._rest(net, params, batch.x)
        free, output = _slopes(net, params, batch.x, rest, torch.zeros_like)
        beta: float | Tensor = self.beta
        if self.sign == "random":
            direction = noise["direction"].squeeze()
            beta = self.beta * torch.copysign(torch.ones_like(direction), direction)
        nudged = self._slopes_when_nudged(net, loss, params, batch, rest, beta)
        return Step(_contrast(nudged, free, beta * len(batch.x)), state, loss(output, batch.y).mean())


@dataclass(frozen=True)
class SymmetricEquilibriumPropagation(_Equilibrium):
    """An equilibrium nudged towards the target against one nudged away from it."""

    def step(
        self, net: Net, loss: credit.Loss, params: Tensors, state: State, batch: Batch, noise: Tensors, t: int
    ) -> Step:
        """See `LearningRule.step`."""
        rest = self._rest(net, params, batch.x)
        output = _drives(net, params, batch.x, rest)[1]
        towards, away = (
            self._slopes_when_nudged(net, loss, params, batch, rest, beta) for beta in (self.beta, -self.beta)
        )
        return Step(
            _contrast(towards, away, 2 * self.beta * len(batch.x)), state, loss(output, batch.y).mean()
        )


def _drives(net: Net, params: Tensors, x: Tensor, s: Tensors) -> tuple[Tensors, Tensor]:
    """What drives each layer from below, and the output."""
    found = credit.drives(net, params, x, s)
    return found.sites, found.output


def _slopes(net: Net, params: Tensors, x: Tensor, s: Tensors, nudge: Nudge) -> tuple[Tensors, Tensor]:
    """∂E_β/∂W at a state, summed over the batch, and the output."""
    (_, output), pull = credit.value_and_pull(lambda p: _drives(net, p, x, s), params)
    return {name: -g for name, g in pull((s, nudge(output))).items()}, output


def _contrast(slopes: Tensors, others: Tensors, scale: float | Tensor) -> Tensors:
    return {name: (slopes[name] - others[name]) / scale for name in slopes}
