"""Rules for spiking networks: the light specs; each rule has a module of its own, and `structure` what they share."""

from __future__ import annotations

from rulezoo import Plausibility, RuleSpec, Variant

_FAMILY = "spiking networks"
_ONLINE = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="vector",
    perturbation=False,
    past_storage=False,  # eligibility traces carry the past
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    return [
        RuleSpec(
            name="spiking-e-prop",
            target="rulezoo_plugins.spiking.e_prop:SpikingEProp",
            tags=("snn",),
            family=_FAMILY,
            summary="Eligibility traces through a spiking neuron's potential and adaptation, times the error of the output "
            "through random weights.",
            reference="Bellec et al. 2020, doi:10.1038/s41467-020-17236-y",
            plausibility=_ONLINE,
            variants=(Variant(("mode=symmetric",), {"weight_transport": True}),),
        ),
    ]
