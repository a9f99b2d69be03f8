"""Target propagation: the light specs; the rules are in `rules`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Plausibility, RuleSpec, Variant

_FAMILY = "target propagation"
_INVERSE = Plausibility(
    weight_transport=True,  # of the read-out, whose transposed weights give the last hidden layer its target
    backward_pass=True,  # targets travel from layer to layer, though no gradient does
    update_locking=True,
    signal="neuron-specific",
    perturbation=True,
    phases=2,  # targets travel down, and every block is evaluated again on noisy activity
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.target_propagation.rules"
    return [
        RuleSpec(
            name="difference-target-propagation",
            target=f"{target}:DifferenceTargetPropagation",
            family=_FAMILY,
            summary="Targets travel down through learned inverses, corrected by the error of the inverse.",
            reference="Lee, Zhang, Fischer, Bengio 2015, Difference target propagation, arXiv:1412.7525",
            formula=(
                r"t_{l-1} = h_{l-1} + G_l(t_l) - G_l(h_l), \qquad t_{L-1} = h_{L-1} - \eta\, e_{L-1}",
                r"\Delta W_l \propto -\frac{\partial}{\partial W_l} \tfrac{1}{2} \left\| F_l(h_{l-1}) - t_l \right\|^2",
                r"G_l \text{ learns to invert } F_l \text{: it descends } \left\| G_l(F_l(h_{l-1} + \varepsilon)) - (h_{l-1} + \varepsilon) \right\|^2",
                r"\eta \text{: step of the first target}",
            ),
            plausibility=_INVERSE,
            variants=(Variant(("top=output",), {"weight_transport": False}),),
        ),
        RuleSpec(
            name="ldrl-target-propagation",
            target=f"{target}:LocalDifferenceReconstruction",
            family=_FAMILY,
            summary="Difference target propagation whose feedback learns to transpose each block's Jacobian (L-DRL).",
            reference="Ernoult, Normandin, Moudgil, Spinney, Belilovsky, Rish, Richards, Bengio 2022, Towards "
            "scaling difference target propagation by learning backprop targets, arXiv:2201.13415",
            formula=(
                r"t_{l-1} = h_{l-1} + G_l(t_l) - G_l(h_l), \qquad t_L = h_L - \beta\, e",
                r"\Delta W_l \propto -\frac{\partial}{\partial W_l} \tfrac{1}{2} \left\| F_l(h_{l-1}) - t_l \right\|^2",
                r"G_l \text{ descends } -2 \langle \varepsilon, G_l(F_l(h_{l-1} + \varepsilon)) - G_l(h_l) \rangle + \left\| G_l(h_l + \nu) - G_l(h_l) \right\|^2",
                r"\beta \text{: step of the first target}",
            ),
            plausibility=replace(_INVERSE, weight_transport=False),
        ),
    ]
