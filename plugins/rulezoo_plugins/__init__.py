"""The catalogue of built-in rules and claims. It is read by every command, so nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import ClaimSpec, Limit, Plausibility, RuleSpec, Variant, hookimpl
from rulezoo_plugins import (
    contrastive,
    dendrites,
    direct_feedback_variants,
    equilibrium,
    forward_gradients,
    forward_only,
    hebbian,
    local_losses,
    nmnc_claims,
    noise_regression,
    perturbations,
    predictive_coding,
    spiking,
    target_propagation,
)

_NMNC = "Kang, Richards, Sabatini 2026, arXiv:2601.02636"
_MIRROR = "Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, arXiv:1904.05391"
_SIGNS = "Liao, Leibo, Poggio 2016, arXiv:1510.05067; Xiao et al. 2019, arXiv:1811.03567"

_MIRRORED = Plausibility(
    weight_transport=False,
    backward_pass=True,
    update_locking=True,
    signal="neuron-specific",
    perturbation=True,
    phases=2,
    past_storage=True,
)
_DERIVATIVE = "response=derivative"  # a finite difference also sees how the network bends
# Antithetic perturbations take two passes; one-sided ones and the derivative along the noise take one.
_ONE_PASS = (Variant(("antithetic=false",), {"phases": 1}), Variant((_DERIVATIVE,), {"phases": 1}))
_FULL_RANK = Limit(("rank=4096", _DERIVATIVE), "noise-correlation", (_DERIVATIVE,))
_FULL_RANK_IN_SUBSPACE = Limit(
    ("rank=4096", "feedback=subspace", _DERIVATIVE), "noise-correlation", (_DERIVATIVE,)
)


@hookimpl
def rulezoo_rules() -> list[RuleSpec]:
    """The rules, family by family, in the order of listings."""
    return [
        *_measuring_sticks(),
        *_feedback_weights(),
        *_noise_correlation(),
        *_node_perturbation(),
        *_recurrent(),
        *spiking.specs(),
        *predictive_coding.specs(),
        *equilibrium.specs(),
        *contrastive.specs(),
        *target_propagation.specs(),
        *dendrites.specs(),
        *local_losses.specs(),
        *forward_only.specs(),
        *hebbian.specs(),
        *direct_feedback_variants.specs(),
        *noise_regression.specs(),
        *perturbations.specs(),
        *forward_gradients.specs(),
    ]


@hookimpl
def rulezoo_claims() -> list[ClaimSpec]:
    """The claims of the NMNC paper, then those of our own."""
    return nmnc_claims.specs()


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
                signal="neuron-specific",
                perturbation=False,
                phases=1,
                past_storage=True,
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
                hidden_learning=False,
                past_storage=False,
            ),
        ),
    ]


def _feedback_weights() -> list[RuleSpec]:
    layerwise = Plausibility(
        weight_transport=False,
        backward_pass=True,
        update_locking=True,
        signal="neuron-specific",
        perturbation=False,
        phases=1,
        past_storage=True,
    )
    signs = Plausibility(
        weight_transport=True,
        backward_pass=True,
        update_locking=True,
        signal="neuron-specific",
        perturbation=False,
        phases=1,
        past_storage=True,
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
            name="kolen-pollack",
            version=2,
            target="rulezoo_plugins.kolen_pollack:KolenPollack",
            family="feedback weights",
            summary="Feedback weights get the increments of the forward weights; decay makes the two agree.",
            reference=f"Kolen & Pollack 1994, doi:10.1109/ICNN.1994.374486; {_MIRROR}",
            plausibility=layerwise,
        ),
        RuleSpec(
            name="weight-mirror",
            target="rulezoo_plugins.weight_mirror:WeightMirror",
            family="feedback weights",
            summary="Every layer learns its feedback weight by correlating noise at its input with its own response.",
            reference=_MIRROR,
            plausibility=_MIRRORED,
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
                past_storage=True,
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
        past_storage=True,
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
            variants=_ONE_PASS,
        ),
        RuleSpec(
            name="nmnc",
            tags=("default",),
            target="rulezoo_plugins.noise_correlation:ManifoldNoiseCorrelation",
            family="noise correlation",
            summary="Noise correlation with perturbations restricted to the manifold on which activity lives.",
            reference=_NMNC,
            plausibility=noisy,
            variants=_ONE_PASS,
            limits=(_FULL_RANK, _FULL_RANK_IN_SUBSPACE),
        ),
        RuleSpec(
            name="nmnc-layerwise",
            version=2,
            tags=("cnn",),
            target="rulezoo_plugins.weight_mirror:LayerwiseManifoldNoiseCorrelation",
            family="noise correlation",
            summary="NMNC layer by layer, the form for deep convolutional networks: a weight mirror with noise "
            "restricted to the manifold on which the layer's input lives.",
            reference=f"{_NMNC}; {_MIRROR}",
            plausibility=_MIRRORED,
            limits=(
                Limit(("rank=4096",), "weight-mirror"),
                Limit(
                    ("rank=4096", "estimator=least-squares"), "weight-mirror", ("estimator=least-squares",)
                ),
            ),
            former_names=("weight-mirror-manifold",),
        ),
        RuleSpec(
            name="nmnc-random",
            target="rulezoo_plugins.noise_correlation:RandomSubspaceNoiseCorrelation",
            family="noise correlation",
            summary="The control of NMNC: perturbations restricted to a random subspace of the same dimension.",
            plausibility=noisy,
            variants=_ONE_PASS,
            limits=(_FULL_RANK, _FULL_RANK_IN_SUBSPACE),
        ),
    ]


def _node_perturbation() -> list[RuleSpec]:
    scalar = Plausibility(
        weight_transport=False,
        backward_pass=False,
        update_locking=True,
        signal="scalar",
        perturbation=True,
        phases="2 per site",
        past_storage=True,
    )
    variants = (
        Variant(("antithetic=false",), {"phases": "1 per site"}),
        Variant(("together=true",), {"phases": 2}),
        Variant(("together=true", "antithetic=false"), {"phases": 1}),
    )
    reference = "Williams 1992, doi:10.1007/BF00992696; Fiete & Seung 2006, doi:10.1103/PhysRevLett.97.048104"
    return [
        RuleSpec(
            name="node-perturbation",
            target="rulezoo_plugins.node_perturbation:NodePerturbation",
            family="node perturbation",
            summary="The change of the loss, one number, times the isotropic noise that caused it.",
            reference=reference,
            plausibility=scalar,
            variants=variants,
        ),
        RuleSpec(
            name="node-perturbation-manifold",
            target="rulezoo_plugins.node_perturbation:ManifoldNodePerturbation",
            family="node perturbation",
            summary="Node perturbation with noise restricted to the manifold on which activity lives.",
            reference=f"{reference}; the manifold as in {_NMNC}",
            plausibility=scalar,
            variants=variants,
            limits=(Limit(("rank=4096", "sigma=1e-5"), "node-perturbation", ("sigma=1e-5",)),),
        ),
    ]


def _recurrent() -> list[RuleSpec]:
    online = Plausibility(
        weight_transport=False,
        backward_pass=False,
        update_locking=True,
        signal="vector",
        perturbation=False,
        past_storage=False,
    )
    symmetric = replace(online, weight_transport=True)
    kicked = replace(online, perturbation=True, phases=2)
    lagged = replace(kicked, past_storage=True)  # activity waits for errors of later time steps
    return [
        RuleSpec(
            name="rflo",
            target="rulezoo_plugins.online:RFLO",
            tags=("rnn",),
            family="recurrent networks",
            summary="Eligibility traces that fade with the leak, times the error through fixed random weights.",
            reference="Murray 2019, doi:10.7554/eLife.43299",
            plausibility=online,
        ),
        RuleSpec(
            name="e-prop",
            target="rulezoo_plugins.online:EProp",
            tags=("rnn",),
            family="recurrent networks",
            summary="Eligibility traces times the error through the weights of the read-out; "
            "in rate networks its traces are those of RFLO.",
            reference="Bellec et al. 2020, doi:10.1038/s41467-020-17236-y",
            plausibility=symmetric,
            variants=(Variant(("mode=random",), {"weight_transport": False}),),
            limits=(Limit(("mode=random",), "rflo"),),
        ),
        RuleSpec(
            name="rflo-noise-correlation",
            target="rulezoo_plugins.online:LearntRFLO",
            tags=("rnn",),
            family="recurrent networks",
            summary="RFLO with feedback learnt from the immediate response to isotropic kicks of the state.",
            reference=f"Murray 2019, doi:10.7554/eLife.43299, with the feedback of the baseline of {_NMNC}",
            plausibility=kicked,
            variants=_ONE_PASS,
        ),
        RuleSpec(
            name="rflo-nmnc",
            target="rulezoo_plugins.online:LearntManifoldRFLO",
            tags=("rnn",),
            family="recurrent networks",
            summary="RFLO with feedback learnt from kicks restricted to the manifold on which states live.",
            reference=f"Murray 2019, doi:10.7554/eLife.43299, with the feedback of {_NMNC}",
            plausibility=kicked,
            variants=_ONE_PASS,
            limits=(Limit(("rank=4096",), "rflo-noise-correlation"),),
        ),
        RuleSpec(
            name="lagged-noise-correlation",
            target="rulezoo_plugins.lagged_noise_correlation:LaggedNoiseCorrelation",
            tags=("rnn",),
            family="recurrent networks",
            summary="Feedback for every lag, learnt by kicking the state once and watching the outputs that follow.",
            reference=f"a recurrent form of the baseline of {_NMNC}",
            plausibility=lagged,
            variants=(*_ONE_PASS, Variant(("horizon=0",), {"past_storage": False})),
        ),
        RuleSpec(
            name="lagged-nmnc",
            target="rulezoo_plugins.lagged_noise_correlation:LaggedManifoldNoiseCorrelation",
            tags=("rnn",),
            family="recurrent networks",
            summary="Lagged noise correlation with kicks restricted to the manifold on which states live.",
            reference=f"a recurrent form of {_NMNC}",
            plausibility=lagged,
            variants=(*_ONE_PASS, Variant(("horizon=0",), {"past_storage": False})),
        ),
    ]
