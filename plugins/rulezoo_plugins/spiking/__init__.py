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
            summary="Eligibility traces through a spiking neuron's potential and adaptation, times the error of "
            "the output "
            "through random weights.",
            reference="Bellec et al. 2020, A solution to the learning dilemma for recurrent networks of spiking "
            "neurons, doi:10.1038/s41467-020-17236-y",
            formula=(
                r"\Delta W_{ji} = -\eta \sum_t (B\, e^t)_j\; e_{ji}^t",
                r"e_{ji}^t = \frac{\partial z_j^t}{\partial h_j^t}\, \varepsilon_{ji}^t, \qquad \varepsilon_{ji}^t = \frac{\partial h_j^t}{\partial h_j^{t-1}}\, \varepsilon_{ji}^{t-1} + \frac{\partial h_j^t}{\partial W_{ji}}",
                r"B \text{ fixed and random}",
                r"z, h \text{: spikes and hidden states of neurons}",
            ),
            plausibility=_ONLINE,
            variants=(Variant(("mode=symmetric",), {"weight_transport": True}),),
        ),
        RuleSpec(
            name="ottt",
            target="rulezoo_plugins.spiking.ottt:OTTT",
            tags=("snn",),
            family=_FAMILY,
            summary="Online training through time: traces of presynaptic spikes, times errors that travel back "
            "within a step "
            "only.",
            reference="Xiao, Meng, Zhang, He, Lin 2022, Online training through time for spiking neural networks, "
            "arXiv:2210.04195",
            formula=(
                r"\hat{a}^l[t] = \lambda\, \hat{a}^l[t-1] + s^l[t]",
                r"g^l[t] = \psi(u^l[t]) \odot W^{l+1\,\top} g^{l+1}[t]",
                r"\Delta W^{l+1} = -\eta \sum_t g^{l+1}[t]\; \hat{a}^l[t]^\top",
                r"s, u \text{: spikes and potentials}",
                r"\lambda \text{: decay of the potential}",
                r"\psi \text{: surrogate derivative}",
            ),
            plausibility=replace(
                _ONLINE, weight_transport=True, backward_pass=True, signal="neuron-specific", phases=1
            ),
        ),
        RuleSpec(
            name="spike-timing-alignment",
            target="rulezoo_plugins.spiking.alignment:SpikeTimingAlignment",
            tags=("snn",),
            family=_FAMILY,
            summary="Backprop through time with feedback weights that learn from the order of noisy pre- and "
            "postsynaptic "
            "spikes.",
            reference="after SAL: Gierlich, Baumbach, Kungl, Max, Petrovici 2025, arXiv:2503.02642",
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \psi(u_l) \text{, back through time}",
                r"\Delta B_{ij} = \frac{4}{g N} \sum_t \left[ u_i(t)\, \bar{l}_j(t) - \bar{u}_i(t)\, l_j(t) \right]",
                r"\bar{x}(t) = \lambda\, \bar{x}(t-1) + x(t-1) \text{, of noisy spikes } u, l \text{ of the upper and the lower layer}",
                r"\lambda \text{: decay of the trace}",
                r"g \text{: gain}",
                r"N \text{: number of steps}",
            ),
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
