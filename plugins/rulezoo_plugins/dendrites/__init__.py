"""Dendrites and bursts: the light specs; the rules are in `bursts` and `microcircuit`."""

from __future__ import annotations

from rulezoo import Limit, Plausibility, RuleSpec, Variant

_FAMILY = "dendrites"


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    package = "rulezoo_plugins.dendrites"
    return [
        RuleSpec(
            name="burst-ccn",
            target=f"{package}.bursts:BurstCCN",
            family=_FAMILY,
            summary="Errors are multiplexed in the probability that an event is a burst, and weights learn from bursts.",
            reference="Greedy, Zhu, Pemberton, Mellor, Costa 2022, Single-phase deep learning in cortico-cortical "
            "networks, arXiv:2206.11769; Payeur, Guerguiev, Zenke, Richards, "
            "Naud 2021, Burst-dependent synaptic plasticity can coordinate learning in hierarchical circuits, "
            "doi:10.1038/s41593-021-00857-x",
            formula=(
                r"u_l = Y_l\, b_{l+1} - Q_l\, e_{l+1}, \qquad p_l = \sigma\!\left(\mathrm{logit}\, p_b + \frac{h_l\, u_l}{p_b (1 - p_b)}\right), \qquad b_l = p_l\, e_l",
                r"\Delta W_l \propto (b_l - p_b\, e_l)\, e_{l-1}^\top",
                r"e_l, b_l \text{: rates of events and of bursts}",
                r"h_l \text{: slope of the activation divided by } e_l",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=True,  # bursts of a layer reach the layer in front once they are known
                update_locking=True,
                signal="neuron-specific",
                perturbation=False,
                phases=1,
                past_storage=True,
            ),
            variants=(Variant(("feedback_weights=symmetric",), {"weight_transport": True}),),
            limits=(
                Limit(("teaching=1e-6",), "feedback-alignment", tolerance=1e-4),
                Limit(("teaching=1e-6", "feedback_weights=symmetric"), "backprop", tolerance=1e-4),
            ),
        ),
        RuleSpec(
            name="dendritic-microcircuit",
            target=f"{package}.microcircuit:DendriticMicrocircuit",
            family=_FAMILY,
            summary="What interneurons do not explain of the feedback to a dendrite is the error, and moves the neuron.",
            reference="Sacramento, Costa, Bengio, Senn 2018, Dendritic cortical microcircuits approximate the "
            "backpropagation algorithm, arXiv:1810.11393",
            formula=(
                r"u_k = v_k + \lambda\, a_k, \qquad v_k = W_k\, r_{k-1} + b_k, \qquad r_k = \varphi(u_k)",
                r"a_k = W^{PP}_k \varphi(u_{k+1}) + W^{PI}_k \varphi(u^I_k)",
                r"\Delta W_k \propto \left(\varphi(u_k) - \varphi(v_k)\right) r_{k-1}^\top",
                r"v_k, a_k \text{: basal and apical potential}",
                r"\lambda \text{: coupling of the apical dendrite}",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,  # all layers settle at the same time
                update_locking=True,
                signal="neuron-specific",
                perturbation=False,
                phases=11,  # a pass for each of 10 steps of settling, and for the update
                past_storage=True,
            ),
            variants=(
                Variant(("feedback=symmetric",), {"weight_transport": True}),
                Variant(("start=self-predicting",), {"weight_transport": True}),
            ),
            limits=(
                Limit(
                    ("nudge=1e-6", "feedback=symmetric", "start=self-predicting"), "backprop", tolerance=1e-4
                ),
            ),
        ),
    ]
