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
            reference="Baydin, Pearlmutter, Syme, Wood, Torr 2022, arXiv:2202.08587",
            plausibility=replace(_GUESSED, phases=0),  # the derivative travels with the only pass
        ),
        RuleSpec(
            name="forward-gradient-activities",
            target=f"{target}:ActivityForwardGradient",
            family=_FAMILY,
            summary="A random direction of each example's activity, times the derivative of its loss along it.",
            reference="Ren, Kornblith, Liao, Hinton 2023, arXiv:2210.03310",
            plausibility=_GUESSED,
            variants=(Variant(("together=false",), {"phases": "1 per site"}),),
        ),
        RuleSpec(
            name="forward-gradient-local",
            target=f"{target}:LocalForwardGradient",
            family=_FAMILY,
            summary="Random directions of groups of units, times the derivative of the site's own loss along them.",
            reference="Ren, Kornblith, Liao, Hinton 2023, arXiv:2210.03310",
            # The derivative travels through the local heads, with no pass through the network.
            plausibility=replace(_GUESSED, update_locking=False, phases=0),
            limits=(Limit(("groups=1",), "local-prediction"),),
        ),
        RuleSpec(
            name="forward-gradient-features",
            target=f"{target}:FeatureForwardGradient",
            family=_FAMILY,
            summary="Random mixtures of the features that a layer sees, times the derivative of the loss along them.",
            reference="Singhal, Cheung, Chandra, Ragan-Kelley, Tenenbaum, Poggio, Yu 2023, arXiv:2312.04709",
            plausibility=replace(_GUESSED, phases="1 per site"),
            variants=(Variant(("together=true",), {"phases": 1}),),
        ),
    ]
