"""Noise correlation, vanilla (VNC) and in the neural manifold (NMNC): the light specs; the rules are in `rules`."""

from __future__ import annotations

from rulezoo import Limit, Plausibility, RuleSpec, Variant
from rulezoo_plugins.feedback_weights import MIRRORED
from rulezoo_plugins.shared import MIRROR, NMNC

_FAMILY = "noise correlation"
_PACKAGE = "rulezoo_plugins.noise_correlation"
_NOISY = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="vector",
    perturbation=True,
    phases=1,
    past_storage=True,
)
_DERIVATIVE = "response=derivative"  # a finite difference also sees how the network bends
#: Antithetic perturbations take two passes; one-sided ones and the derivative along the noise take one.
ONE_PASS = (Variant(("antithetic=false",), {"phases": 1}), Variant((_DERIVATIVE,), {"phases": 1}))
_TWO_PASSES = (
    Variant(("antithetic=true",), {"phases": 2}),
    Variant(("antithetic=true", _DERIVATIVE), {"phases": 1}),
)
_FULL_RANK = Limit(("rank=4096", _DERIVATIVE), "noise-correlation", (_DERIVATIVE,))
_FULL_RANK_IN_SUBSPACE = Limit(
    ("rank=4096", "feedback=subspace", _DERIVATIVE), "noise-correlation", (_DERIVATIVE,)
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    return [
        RuleSpec(
            name="noise-correlation",
            tags=("default",),
            target=f"{_PACKAGE}.rules:NoiseCorrelation",
            family=_FAMILY,
            summary="Feedback learnt by correlating isotropic perturbations of activity with changes of the output.",
            reference=f"the baseline of {NMNC}",
            formula=(
                r"\delta_l = (B_l^\top e) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \leftarrow (1 - r)\, B_l + \frac{r}{K v} \sum_{k=1}^{K} \Delta y_k\, \xi_k^\top, \qquad \Delta y_k = y(h_l + \xi_k) - y(h_l)",
                r"\xi \sim \mathcal{N}(0, v I)",
            ),
            plausibility=_NOISY,
            variants=_TWO_PASSES,
        ),
        RuleSpec(
            name="nmnc",
            tags=("default",),
            target=f"{_PACKAGE}.rules:ManifoldNoiseCorrelation",
            family=_FAMILY,
            summary="Noise correlation with perturbations restricted to the manifold on which activity lives.",
            reference=NMNC,
            formula=(
                r"\delta_l = (B_l^\top e) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \leftarrow (1 - r)\, B_l + \frac{r}{K v} \sum_{k=1}^{K} \Delta y_k\, \xi_k^\top, \qquad \Delta y_k = y(h_l + \xi_k) - y(h_l)",
                r"\xi = U_l z, \quad z \sim \mathcal{N}(0, v I_d), \qquad U_l \text{: leading } d \text{ principal directions of recent } h_l",
            ),
            plausibility=_NOISY,
            variants=_TWO_PASSES,
            limits=(_FULL_RANK, _FULL_RANK_IN_SUBSPACE),
        ),
        RuleSpec(
            name="nmnc-layerwise",
            version=2,
            tags=("cnn",),
            # A weight mirror with other noise, so it is in the module of the weight mirror.
            target="rulezoo_plugins.feedback_weights.weight_mirror:LayerwiseManifoldNoiseCorrelation",
            family=_FAMILY,
            summary="NMNC layer by layer, the form for deep convolutional networks: a weight mirror with noise "
            "restricted to the manifold on which the layer's input lives.",
            reference=f"{NMNC}; {MIRROR}",
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \leftarrow (1 - r)\, B_l + \frac{r}{K v} \sum_{k=1}^{K} \xi_k\, (W_{l+1}\, \xi_k)^\top",
                r"\xi = U_l z, \quad z \sim \mathcal{N}(0, v I_d), \qquad U_l \text{: leading } d \text{ principal directions of recent } h_l",
            ),
            plausibility=MIRRORED,
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
            target=f"{_PACKAGE}.rules:RandomSubspaceNoiseCorrelation",
            family=_FAMILY,
            summary="The control of NMNC: perturbations restricted to a random subspace of the same dimension.",
            formula=(
                r"\delta_l = (B_l^\top e) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"B_l \leftarrow (1 - r)\, B_l + \frac{r}{K v} \sum_{k=1}^{K} \Delta y_k\, \xi_k^\top, \qquad \Delta y_k = y(h_l + \xi_k) - y(h_l)",
                r"\xi = U_l z, \quad z \sim \mathcal{N}(0, v I_d), \qquad U_l \text{: a random subspace of dimension } d\text{, drawn once}",
            ),
            plausibility=_NOISY,
            variants=_TWO_PASSES,
            limits=(_FULL_RANK, _FULL_RANK_IN_SUBSPACE),
        ),
    ]
