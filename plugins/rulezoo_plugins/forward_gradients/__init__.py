"""Forward gradients: the light specs; the rules are in `rules`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Limit, Plausibility, RuleSpec, Variant

_FAMILY = "forward gradients"
_GUESSED = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="scalar",
    perturbation=True,
    phases=1,  # a second pass, with which the derivative along the perturbation travels
    past_storage=True,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.forward_gradients.rules"
    return [
        RuleSpec(
            name="forward-gradient-weights",
            target=f"{target}:WeightForwardGradient",
            family=_FAMILY,
            summary="A random direction of the weights, times the derivative of the loss along it.",
            reference="Baydin, Pearlmutter, Syme, Wood, Torr 2022, Gradients without backpropagation, arXiv:2202.08587",
            formula=(r"\Delta W = -\eta\, (\nabla_W L \cdot z)\, z, \qquad z \sim \mathcal{N}(0, I)",),
            plausibility=replace(_GUESSED, phases=0),  # the derivative travels with the only pass
        ),
        RuleSpec(
            name="forward-gradient-activities",
            target=f"{target}:ActivityForwardGradient",
            family=_FAMILY,
            summary="A random direction of each example's activity, times the derivative of its loss along it.",
            reference="Ren, Kornblith, Liao, Hinton 2023, Scaling forward gradient with local losses, arXiv:2210.03310",
            formula=(
                r"\hat{g}_l = (\nabla_h L \cdot z)\, z_l, \qquad z \sim \mathcal{N}(0, I)",
                r"\Delta W_l = -\eta\, \left(\hat{g}_l \odot \varphi'(s_l)\right) h_{l-1}^\top",
            ),
            plausibility=_GUESSED,
            variants=(Variant(("together=false",), {"phases": "1 per site"}),),
        ),
        RuleSpec(
            name="forward-gradient-local",
            target=f"{target}:LocalForwardGradient",
            family=_FAMILY,
            summary="Random directions of groups of units, times the derivative of the site's own loss along them.",
            reference="Ren, Kornblith, Liao, Hinton 2023, Scaling forward gradient with local losses, arXiv:2210.03310",
            formula=(
                r"\hat{g}_G = \left(\frac{\partial \ell_l}{\partial h_G} \cdot z_G\right) z_G \text{ for each group } G \text{ of units}, \qquad z \sim \mathcal{N}(0, I)",
                r"\Delta W_l = -\eta\, \left(\hat{g}_l \odot \varphi'(s_l)\right) h_{l-1}^\top",
            ),
            # The derivative travels through the local heads, with no pass through the network.
            plausibility=replace(_GUESSED, update_locking=False, phases=0),
            limits=(Limit(("groups=1",), "local-prediction"),),
        ),
        RuleSpec(
            name="forward-gradient-features",
            target=f"{target}:FeatureForwardGradient",
            family=_FAMILY,
            summary="Random mixtures of the features that a layer sees, times the derivative of the loss along them.",
            reference="Singhal, Cheung, Chandra, Ragan-Kelley, Tenenbaum, Poggio, Yu 2023, How to guess a "
            "gradient, arXiv:2312.04709",
            formula=(
                r"\hat{g}_l = \left(\frac{\partial L}{\partial h_l} \cdot z\right) z, \qquad z = U_l\, c, \quad c \sim \mathcal{N}(0, I_d)",
                r"\Delta W_l = -\eta\, \left(\hat{g}_l \odot \varphi'(s_l)\right) h_{l-1}^\top",
                r"U_l \text{: leading } d \text{ directions of the batch's activity}",
            ),
            plausibility=replace(_GUESSED, phases="1 per site"),
            variants=(Variant(("together=true",), {"phases": 1}),),
        ),
    ]
