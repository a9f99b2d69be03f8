"""Predictive coding: the light specs; the rules are in `rules`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Limit, Plausibility, RuleSpec

_FAMILY = "predictive coding"
_RELAXING = Plausibility(
    weight_transport=True,  # errors reach the layer below through the transposed forward weights
    backward_pass=False,  # all layers relax at the same time
    update_locking=True,
    signal="neuron-specific",
    perturbation=False,
    phases=42,  # a pass and its pull-back for each of 20 steps, and for the update
    past_storage=True,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.predictive_coding.rules"
    return [
        RuleSpec(
            name="predictive-coding",
            target=f"{target}:PredictiveCoding",
            family=_FAMILY,
            summary="Activities relax under local prediction errors; then weights descend these errors.",
            reference="Whittington, Bogacz 2017, An approximation of the error backpropagation algorithm in a "
            "predictive coding network with local Hebbian synaptic plasticity, doi:10.1162/NECO_a_00949",
            formula=(
                r"F = \sum_l \tfrac{1}{2} \left\| x_l - f_l(x_{l-1}; W_l) \right\|^2 + L",
                r"\Delta x_l \propto -\frac{\partial F}{\partial x_l} \text{ until activities have relaxed, then } \Delta W_l = -\eta\, \frac{\partial F}{\partial W_l}",
                r"f_l \text{: what lies in front of site } l",
                r"x_l \text{: its activity, free to relax}",
            ),
            plausibility=_RELAXING,
        ),
        RuleSpec(
            name="fixed-prediction-coding",
            target=f"{target}:FixedPredictionCoding",
            family=_FAMILY,
            summary="Predictive coding whose predictions stay those of the forward pass; it relaxes to backprop.",
            reference="Millidge, Tschantz, Buckley 2022, Predictive coding approximates backprop along arbitrary "
            "computation graphs, arXiv:2006.04182; Rosenbaum 2022, On the relationship between predictive coding "
            "and backpropagation, arXiv:2106.13082",
            formula=(
                r"e_l = x_l - f_l(h_{l-1}), \qquad \Delta x_l \propto -e_l + J_{l+1}^\top e_{l+1}",
                r"\Delta W_l = \eta\, e_l^\top \frac{\partial f_l}{\partial W_l}",
                r"f_l, J_l \text{: predictions and their derivatives, as in the forward pass}",
            ),
            plausibility=replace(_RELAXING, backward_pass=True, phases=22),
            limits=(Limit(("rate=1", "steps=20"), "backprop"),),
        ),
        RuleSpec(
            name="incremental-predictive-coding",
            target=f"{target}:IncrementalPredictiveCoding",
            family=_FAMILY,
            summary="Predictive coding whose weights move at every step of the relaxation.",
            reference="Salvatori, Song, Yordanov, Millidge, Xu, Sha, Emde, Bogacz, Lukasiewicz 2024, arXiv:2212.00720",
            formula=(
                r"F = \sum_l \tfrac{1}{2} \left\| x_l - f_l(x_{l-1}; W_l) \right\|^2 + L",
                r"\Delta x_l \propto -\frac{\partial F}{\partial x_l} \text{ and } \Delta W_l = -\eta\, \frac{\partial F}{\partial W_l} \text{ at every step}",
                r"f_l \text{: what lies in front of site } l",
                r"x_l \text{: its activity, free to relax}",
            ),
            plausibility=replace(_RELAXING, phases=20),
        ),
        RuleSpec(
            name="error-based-predictive-coding",
            target=f"{target}:ErrorBasedPredictiveCoding",
            family=_FAMILY,
            summary="The equilibrium of predictive coding, found by descent on the errors instead of the activities.",
            reference="Goemaere, Oliviers, Bogacz, Demeester 2025, arXiv:2505.20137",
            formula=(
                r"F = \sum_l \tfrac{1}{2} \left\| x_l - f_l(x_{l-1}; W_l) \right\|^2 + L",
                r"x_l = f_l(x_{l-1}) + e_l, \qquad \Delta e_l \propto -\frac{\partial F}{\partial e_l}, \text{ then } \Delta W_l = -\eta\, \frac{\partial F}{\partial W_l}",
                r"f_l \text{: what lies in front of site } l",
                r"x_l \text{: its activity}",
            ),
            plausibility=replace(_RELAXING, backward_pass=True, phases=43),
        ),
    ]
