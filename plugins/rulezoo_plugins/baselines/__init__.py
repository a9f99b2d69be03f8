"""Baselines of every comparison: the light specs; the rules are in `backprop`."""

from __future__ import annotations

from rulezoo import Plausibility, RuleSpec

_FAMILY = "baselines"
_PACKAGE = "rulezoo_plugins.baselines"


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    return [
        RuleSpec(
            name="backprop",
            tags=("default", "exact"),
            target=f"{_PACKAGE}.backprop:Backprop",
            family=_FAMILY,
            summary="The exact gradient; through time on recurrent networks.",
            reference="Rumelhart, Hinton, Williams 1986, Learning representations by back-propagating errors, "
            "doi:10.1038/323533a0; Werbos 1990, Backpropagation through time: what it does and how to do it, "
            "doi:10.1109/5.58337",
            formula=(
                r"\delta_l = (W_{l+1}^\top\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
            ),
            plausibility=Plausibility(
                weight_transport=True,
                backward_pass=True,
                update_locking=True,
                signal="neuron-specific",
                perturbation=False,
                phases=1,
                past_storage=True,
            ),
        ),
        RuleSpec(
            name="frozen",
            tags=("default",),
            target=f"{_PACKAGE}.backprop:Frozen",
            family=_FAMILY,
            summary="Only the read-out learns; hidden layers keep their initial weights. The floor of every board.",
            formula=(
                r"\Delta W_l = 0 \text{ in hidden layers}",
                r"\Delta W_L = -\eta\, e\, h_{L-1}^\top",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,
                update_locking=False,
                signal="none",
                perturbation=False,
                hidden_learning=False,
                past_storage=False,
            ),
        ),
    ]
