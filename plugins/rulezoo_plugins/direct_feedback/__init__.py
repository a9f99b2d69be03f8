"""Direct feedback: the light specs; feedback alignment is in `alignment`, the other rules are in the modules of their names."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Limit, Plausibility, RuleSpec, Variant

_FAMILY = "direct feedback"
_DIRECT = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="vector",
    perturbation=False,
    past_storage=True,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    package = "rulezoo_plugins.direct_feedback"
    damped = ("condition=both", "activity_damping=1e12", "error_damping=1e12")
    return [
        RuleSpec(
            name="direct-feedback-alignment",
            tags=("default",),
            target=f"{package}.alignment:DirectFeedbackAlignment",
            family=_FAMILY,
            summary="The error of the output reaches every site through fixed random weights of its own.",
            reference="Nøkland 2016, Direct feedback alignment provides learning in deep neural networks, "
            "arXiv:1609.01596",
            formula=(
                r"\delta_l = (B_l\, e) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \text{ fixed and random}",
            ),
            plausibility=_DIRECT,
        ),
        RuleSpec(
            name="direct-kolen-pollack",
            target=f"{package}.direct_kolen_pollack:DirectKolenPollack",
            family=_FAMILY,
            summary="Direct feedback weights that learn as a read-out of their site would.",
            reference="Webster, Choi, Ahn 2021, Learning the Connections in Direct Feedback Alignment, "
            "openreview.net/forum?id=zgGmAx9ZcY",
            formula=(
                r"\delta_l = (B_l^\top e) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"\Delta B_l = -\eta\, e\, h_l^\top - \lambda B_l",
            ),
            plausibility=_DIRECT,
        ),
        RuleSpec(
            name="ndfa",
            target=f"{package}.conditioned:ConditionedDirectFeedback",
            family=_FAMILY,
            summary="Conditioned direct feedback alignment (nDFA, K-nDFA): updates divided by the second moment of the "
            "layer's input, of its error, or of both.",
            reference="Safaai, Reddy, Sabatini 2026, Conditioned Direct Feedback Alignment via Activity and Error "
            "Geometry, github.com/KempnerInstitute/conditioned-dfa",
            formula=(
                r"\delta_l = (B_l^\top e) \odot \varphi'(s_l), \qquad G_l = \overline{\delta_l\, h_{l-1}^\top}",
                r"\Delta W_l = -\eta\, (E_l + \lambda_E I)^{-1}\, G_l\, (A_l + \lambda_A I)^{-1}",
                r"A_l = \overline{h_{l-1} h_{l-1}^\top}, \qquad E_l = \overline{\delta_l\, \delta_l^\top}",
                r"\lambda_A, \lambda_E \text{: damping}",
            ),
            plausibility=replace(_DIRECT, phases=1),  # the inputs of layers are read in a pass of their own
            variants=(Variant(("condition=error",), {"phases": 0}),),
            limits=(Limit(damped, "direct-feedback-alignment"),),
        ),
        RuleSpec(
            name="direct-random-target-projection",
            version=2,  # another default
            target=f"{package}.random_targets:DirectRandomTargetProjection",
            family=_FAMILY,
            summary="Every site receives the label through fixed random weights, in place of the error.",
            reference="Frenkel, Lefebvre, Bol 2021, Learning without feedback: fixed random learning signals "
            "allow for feedforward training of deep neural networks, doi:10.3389/fnins.2021.629892, "
            "arXiv:1909.01311",
            formula=(
                r"\delta_l = -(B_l^\top y^*) \odot \varphi'(s_l), \quad y^* \text{ the label}",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \text{ fixed and random}",
            ),
            plausibility=replace(_DIRECT, update_locking=False, past_storage=False),
        ),
    ]
