"""NMNC by regression of responses on noise: the light specs; the rules are in `layerwise` and `direct`."""

from __future__ import annotations

from rulezoo import Limit, Plausibility, RuleSpec, Variant
from rulezoo_plugins.shared import MIRROR, NMNC

_DELTA = "the delta rule: Widrow & Hoff 1960"
_PACKAGE = "rulezoo_plugins.noise_regression"
_CORRELATION = ("estimator=correlation", "rate=0.1")


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    return [
        RuleSpec(
            name="nmnc-regression",
            target=f"{_PACKAGE}.direct:NoiseRegression",
            family="noise correlation",
            summary="NMNC whose direct feedback predicts the responses to noise and learns from what it fails to predict.",
            reference=f"{NMNC}; {_DELTA}",
            formula=(
                r"\delta_l = (B_l^\top e) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"r = \Delta y - \sum_l B_l\, \xi_l, \qquad \Delta B_l = \mu\; \overline{r\, \xi_l^\top} / v_l",
                r"\xi = U_l z, \quad z \sim \mathcal{N}(0, v I_d), \qquad U_l \text{: leading } d \text{ principal directions of recent } h_l",
                r"r \text{: change of the output that the feedback does not predict}",
                r"\mu \text{: step of the delta rule}",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,
                update_locking=True,
                signal="vector",
                perturbation=True,
                phases=1,
                past_storage=True,
            ),
            variants=(
                Variant(("antithetic=true",), {"phases": 2}),
                Variant(("response=derivative",), {"phases": 1}),
            ),
            limits=(Limit((*_CORRELATION, "rank=32"), "nmnc", ("together=true", "rank=32", "every=1")),),
        ),
        RuleSpec(
            name="nmnc-layerwise-regression",
            tags=("cnn",),
            target=f"{_PACKAGE}.layerwise:LayerwiseNoiseRegression",
            family="noise correlation",
            summary="Layerwise NMNC whose feedback weights predict the responses to noise and learn from what "
            "they fail to "
            "predict.",
            reference=f"{NMNC}; {MIRROR}; {_DELTA}",
            formula=(
                r"\delta_l = (B_l\, \delta_{l+1}) \odot \varphi'(s_l)",
                r"\Delta W_l = -\eta\, \delta_l\, h_{l-1}^\top",
                r"\Delta B_l^\top = \mu\; \overline{(W_{l+1}\, \xi - B_l^\top\, \xi)\, \xi^\top} / v",
                r"\xi = U_l z, \quad z \sim \mathcal{N}(0, v I_d), \qquad U_l \text{: leading } d \text{ principal directions of recent } h_l",
                r"\mu \text{: step of the delta rule}",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=True,
                update_locking=True,
                signal="neuron-specific",
                perturbation=True,
                phases=2,
                past_storage=True,
            ),
            limits=(
                Limit((*_CORRELATION, "rank=32"), "nmnc-layerwise"),
                Limit((*_CORRELATION, "rank=4096"), "weight-mirror"),
            ),
        ),
    ]
