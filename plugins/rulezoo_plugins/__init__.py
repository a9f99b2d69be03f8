"""The catalogue of built-in rules. It is read by every command, so nothing heavy is imported here."""

from __future__ import annotations

from rulezoo import Plausibility, RuleSpec, hookimpl

_NMNC = "Kang, Richards, Sabatini 2026, arXiv:2601.02636"
_SIGNS = "Liao, Leibo, Poggio 2016, arXiv:1510.05067; Xiao et al. 2019, arXiv:1811.03567"


@hookimpl
def rulezoo_rules() -> list[RuleSpec]:
    """The rules, family by family, in the order of listings."""
    return [*_measuring_sticks(), *_feedback_weights(), *_noise_correlation()]


def _measuring_sticks() -> list[RuleSpec]:
    return [
        RuleSpec(
            name="backprop",
            tags=("default", "exact"),
            target="rulezoo_plugins.backprop:Backprop",
            family="measuring sticks",
            summary="The exact gradient; through time on recurrent networks.",
            reference="Rumelhart, Hinton, Williams 1986, doi:10.1038/323533a0; Werbos 1990, doi:10.1109/5.58337",
            plausibility=Plausibility(
                weight_transport=True,
                backward_pass=True,
                update_locking=True,
                signal="local",
                perturbation=False,
                phases=1,
            ),
        ),
        RuleSpec(
            name="frozen",
            tags=("default",),
            target="rulezoo_plugins.backprop:Frozen",
            family="measuring sticks",
            summary="Only the read-out learns; hidden layers keep their initial weights. The floor of every board.",
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,
                update_locking=False,
                signal="none",
                perturbation=False,
            ),
        ),
    ]


def _feedback_weights() -> list[RuleSpec]:
    layerwise = Plausibility(
        weight_transport=False,
        backward_pass=True,
        update_locking=True,
        signal="local",
        perturbation=False,
        phases=1,
    )
    signs = Plausibility(
        weight_transport=True,
        backward_pass=True,
        update_locking=True,
        signal="local",
        perturbation=False,
        phases=1,
    )
    return [
        RuleSpec(
            name="feedback-alignment",
            tags=("default",),
            target="rulezoo_plugins.feedback_alignment:FeedbackAlignment",
            family="feedback weights",
            summary="Errors travel back layer by layer through fixed random weights.",
            reference="Lillicrap, Cownden, Tweed, Akerman 2016, doi:10.1038/ncomms13276",
            plausibility=layerwise,
        ),
        RuleSpec(
            name="usf",
            target="rulezoo_plugins.feedback_alignment:UniformSign",
            family="feedback weights",
            summary="Sign symmetry: feedback weights have the signs of the forward weights and one common size.",
            reference=_SIGNS,
            plausibility=signs,
        ),
        RuleSpec(
            name="brsf",
            target="rulezoo_plugins.feedback_alignment:BatchRandomSign",
            family="feedback weights",
            summary="Sign symmetry with random sizes, drawn anew for every batch.",
            reference=_SIGNS,
            plausibility=signs,
        ),
        RuleSpec(
            name="frsf",
            target="rulezoo_plugins.feedback_alignment:FixedRandomSign",
            family="feedback weights",
            summary="Sign symmetry with random sizes, drawn once.",
            reference=_SIGNS,
            plausibility=signs,
        ),
        RuleSpec(
            name="direct-feedback-alignment",
            tags=("default",),
            target="rulezoo_plugins.direct_feedback:DirectFeedbackAlignment",
            family="feedback weights",
            summary="The error of the output reaches every site through fixed random weights of its own.",
            reference="Nøkland 2016, arXiv:1609.01596",
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,
                update_locking=True,
                signal="vector",
                perturbation=False,
            ),
        ),
    ]


def _noise_correlation() -> list[RuleSpec]:
    noisy = Plausibility(
        weight_transport=False,
        backward_pass=False,
        update_locking=True,
        signal="vector",
        perturbation=True,
        phases=2,
    )
    return [
        RuleSpec(
            name="noise-correlation",
            tags=("default",),
            target="rulezoo_plugins.noise_correlation:NoiseCorrelation",
            family="noise correlation",
            summary="Feedback learnt by correlating isotropic perturbations of activity with changes of the output.",
            reference=f"the baseline of {_NMNC}",
            plausibility=noisy,
        ),
        RuleSpec(
            name="nmnc",
            tags=("default",),
            target="rulezoo_plugins.noise_correlation:ManifoldNoiseCorrelation",
            family="noise correlation",
            summary="Noise correlation with perturbations restricted to the manifold on which activity lives.",
            reference=_NMNC,
            plausibility=noisy,
        ),
    ]
