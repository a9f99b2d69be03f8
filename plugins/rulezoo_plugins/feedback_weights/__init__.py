"""Feedback weights, layer by layer: the light specs; the rules are in the modules of their names."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Plausibility, RuleSpec
from rulezoo_plugins.shared import MIRROR

_FAMILY = "feedback weights"
_PACKAGE = "rulezoo_plugins.feedback_weights"
_LAYERWISE = Plausibility(
    weight_transport=False,
    backward_pass=True,
    update_locking=True,
    signal="neuron-specific",
    perturbation=False,
    phases=1,
    past_storage=True,
)
_SIGNS = replace(_LAYERWISE, weight_transport=True)
#: Of a rule that learns feedback weights from the responses of layers to noise.
MIRRORED = replace(_LAYERWISE, perturbation=True, phases=2)
_SIGN_SYMMETRY = (
    "Liao, Leibo, Poggio 2016, How important is weight symmetry in backpropagation?, arXiv:1510.05067; Xiao et "
    "al. 2019, Biologically-plausible learning algorithms can scale to large datasets, arXiv:1811.03567"
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    return [
        RuleSpec(
            name="feedback-alignment",
            tags=("default",),
            target=f"{_PACKAGE}.feedback_alignment:FeedbackAlignment",
            family=_FAMILY,
            summary="Errors travel back layer by layer through fixed random weights.",
            reference="Lillicrap, Cownden, Tweed, Akerman 2016, Random synaptic feedback weights support error "
            "backpropagation for deep learning, doi:10.1038/ncomms13276",
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \text{ fixed and random}",
            ),
            plausibility=_LAYERWISE,
        ),
        RuleSpec(
            name="usf",
            target=f"{_PACKAGE}.feedback_alignment:UniformSign",
            family=_FAMILY,
            summary="Sign symmetry: feedback weights have the signs of the forward weights and one common size.",
            reference=_SIGN_SYMMETRY,
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l = m_l\, \mathrm{sign}(W_{l+1}^\top), \quad m_l \text{ one constant}",
            ),
            plausibility=_SIGNS,
        ),
        RuleSpec(
            name="brsf",
            target=f"{_PACKAGE}.feedback_alignment:BatchRandomSign",
            family=_FAMILY,
            summary="Sign symmetry with random sizes, drawn anew for every batch.",
            reference=_SIGN_SYMMETRY,
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l = M_l \odot \mathrm{sign}(W_{l+1}^\top), \quad M_l \text{ drawn anew for every batch}",
            ),
            plausibility=_SIGNS,
        ),
        RuleSpec(
            name="frsf",
            target=f"{_PACKAGE}.feedback_alignment:FixedRandomSign",
            family=_FAMILY,
            summary="Sign symmetry with random sizes, drawn once.",
            reference=_SIGN_SYMMETRY,
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l = M_l \odot \mathrm{sign}(W_{l+1}^\top), \quad M_l \text{ drawn once}",
            ),
            plausibility=_SIGNS,
        ),
        RuleSpec(
            name="kolen-pollack",
            version=2,
            target=f"{_PACKAGE}.kolen_pollack:KolenPollack",
            family=_FAMILY,
            summary="Feedback weights get the increments of the forward weights; decay makes the two agree.",
            reference="Kolen & Pollack 1994, Backpropagation without weight transport, "
            f"doi:10.1109/ICNN.1994.374486; {MIRROR}",
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top - \lambda W_l",
                r"\Delta B_{l-1}^\top = -\eta\, \delta_l\, h_{l-1}^\top - \lambda B_{l-1}^\top",
            ),
            plausibility=_LAYERWISE,
        ),
        RuleSpec(
            name="weight-mirror",
            target=f"{_PACKAGE}.weight_mirror:WeightMirror",
            family=_FAMILY,
            summary="Every layer learns its feedback weight by correlating noise at its input with its own response.",
            reference=MIRROR,
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \leftarrow (1 - r)\, B_l + \frac{r}{K v} \sum_{k=1}^{K} \xi_k\, (W_{l+1}\, \xi_k)^\top",
                r"\xi \sim \mathcal{N}(0, v I) \text{ at the input of each layer}",
            ),
            plausibility=MIRRORED,
        ),
    ]
