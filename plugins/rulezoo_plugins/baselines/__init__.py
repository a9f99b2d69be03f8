"""Baselines of every comparison: the light specs; the rules are in `backprop`."""

from __future__ import annotations

from rulezoo import Plausibility, RuleSpec

_FAMILY = "measuring sticks"
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
            reference="Rumelhart, Hinton, Williams 1986, doi:10.1038/323533a0; Werbos 1990, doi:10.1109/5.58337",
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
