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
            reference="Whittington, Bogacz 2017, doi:10.1162/NECO_a_00949",
            plausibility=_RELAXING,
        ),
        RuleSpec(
            name="fixed-prediction-coding",
            target=f"{target}:FixedPredictionCoding",
            family=_FAMILY,
            summary="Predictive coding whose predictions stay those of the forward pass; it relaxes to backprop.",
            reference="Millidge, Tschantz, Buckley 2022, arXiv:2006.04182; Rosenbaum 2022, arXiv:2106.13082",
            plausibility=replace(_RELAXING, backward_pass=True, phases=22),
            limits=(Limit(("rate=1", "steps=20"), "backprop"),),
        ),
        RuleSpec(
            name="incremental-predictive-coding",
            target=f"{target}:IncrementalPredictiveCoding",
            family=_FAMILY,
            summary="Predictive coding whose weights move at every step of the relaxation.",
            reference="Salvatori, Song, Yordanov, Millidge, Xu, Sha, Emde, Bogacz, Lukasiewicz 2024, arXiv:2212.00720",
            plausibility=replace(_RELAXING, phases=20),
        ),
        RuleSpec(
            name="error-based-predictive-coding",
            target=f"{target}:ErrorBasedPredictiveCoding",
            family=_FAMILY,
            summary="The equilibrium of predictive coding, found by descent on the errors instead of the activities.",
            reference="Goemaere, Oliviers, Bogacz, Demeester 2025, arXiv:2505.20137",
            plausibility=replace(_RELAXING, backward_pass=True, phases=43),
        ),
    ]
