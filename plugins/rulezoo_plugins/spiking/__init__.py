"""Rules for spiking networks: the light specs; each rule has a module of its own, and `structure` what they share."""

from __future__ import annotations

from dataclasses import replace

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
        RuleSpec(
            name="ottt",
            target="rulezoo_plugins.spiking.ottt:OTTT",
            tags=("snn",),
            family=_FAMILY,
            summary="Online training through time: traces of presynaptic spikes, times errors that travel back within a step "
            "only.",
            reference="Xiao, Meng, Zhang, He, Lin 2022, arXiv:2210.04195",
            plausibility=replace(
                _ONLINE, weight_transport=True, backward_pass=True, signal="neuron-specific", phases=1
            ),
        ),
        RuleSpec(
            name="spike-timing-alignment",
            target="rulezoo_plugins.spiking.alignment:SpikeTimingAlignment",
            tags=("snn",),
            family=_FAMILY,
            summary="Backprop through time with feedback weights that learn from the order of noisy pre- and postsynaptic "
            "spikes.",
            reference="after SAL: Gierlich, Baumbach, Kungl, Max, Petrovici 2025, arXiv:2503.02642",
            plausibility=replace(
                _ONLINE,
                backward_pass=True,
                signal="neuron-specific",
                perturbation=True,
                phases=2,
                past_storage=True,
            ),
        ),
    ]
