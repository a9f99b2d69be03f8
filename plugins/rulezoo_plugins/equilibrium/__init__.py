"""Equilibrium propagation: the light specs; the rules are in `rules`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Limit, Plausibility, RuleSpec

_FAMILY = "equilibrium propagation"
_ONE_SIDED = Plausibility(
    weight_transport=True,  # one energy couples two layers: what goes up by a weight comes down by the same weight
    backward_pass=False,  # all layers relax at the same time
    update_locking=True,
    signal="neuron-specific",
    perturbation=False,
    phases=55,  # a pass and its pull-back for each of 20 + 6 steps, and for the slopes at both ends
    past_storage=True,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.equilibrium.rules"
    symmetric, settled = "symmetric-equilibrium-propagation", ("free=200", "nudged=200")
    return [
        RuleSpec(
            name="equilibrium-propagation",
            version=2,  # the sign of the nudge is drawn
            target=f"{target}:EquilibriumPropagation",
            family=_FAMILY,
            summary="A network with symmetric weights relaxes freely and nudged; the two equilibria differ by the gradient.",
            reference="Scellier, Bengio 2017, Equilibrium propagation: bridging the gap between energy-based "
            "models and backpropagation, doi:10.3389/fncom.2017.00024; Ernoult et al. 2019, Updates of "
            "equilibrium prop match gradients of backprop through time in an RNN with static input, "
            "arXiv:1905.13633",
            formula=(
                r"E_\beta(s) = \sum_l \tfrac{1}{2} \|s_l\|^2 - \sum_l \langle s_l, d_l(s_{l-1}) \rangle + \beta L",
                r"s \leftarrow \rho\left(s - \varepsilon\, \frac{\partial E_\beta}{\partial s}\right), \qquad \rho(u) = \min(\max(u, 0), 1)",
                r"\Delta W = -\frac{\eta}{\beta} \left( \frac{\partial E_\beta}{\partial W}(s^\beta) - \frac{\partial E_0}{\partial W}(s^0) \right)",
                r"s_l \text{: state of the units of layer } l",
                r"\beta \text{: nudge of the output, of random sign}",
            ),
            plausibility=_ONE_SIDED,
            limits=(Limit(("beta=1e-6", *settled), symmetric, ("beta=1e-6", *settled), tolerance=1e-4),),
        ),
        RuleSpec(
            name=symmetric,
            target=f"{target}:SymmetricEquilibriumPropagation",
            family=_FAMILY,
            summary="Equilibrium propagation between two equilibria, nudged towards the target and away from it.",
            reference="Laborieux, Ernoult, Scellier, Bengio, Grollier, Querlioz 2021, Scaling equilibrium "
            "propagation to deep ConvNets by drastically reducing its gradient estimator bias, "
            "doi:10.3389/fnins.2021.633674",
            formula=(
                r"E_\beta(s) = \sum_l \tfrac{1}{2} \|s_l\|^2 - \sum_l \langle s_l, d_l(s_{l-1}) \rangle + \beta L",
                r"s \leftarrow \rho\left(s - \varepsilon\, \frac{\partial E_\beta}{\partial s}\right), \qquad \rho(u) = \min(\max(u, 0), 1)",
                r"\Delta W = -\frac{\eta}{2 \beta} \left( \frac{\partial E_\beta}{\partial W}(s^\beta) - \frac{\partial E_{-\beta}}{\partial W}(s^{-\beta}) \right)",
                r"s_l \text{: state of the units of layer } l",
                r"\beta \text{: nudge of the output}",
            ),
            # A third phase, and a pass for the loss at the free equilibrium.
            plausibility=replace(_ONE_SIDED, phases=68),
        ),
    ]
