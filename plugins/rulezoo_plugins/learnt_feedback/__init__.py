"""Feedback weights learnt from noise, for other rules: the light specs; the rules are in `rules`."""

from __future__ import annotations

from rulezoo import Limit, Plausibility, RuleSpec, Variant
from rulezoo_plugins.shared import MIRROR, NMNC

_FAMILY = "learnt feedback"
_RELAXING = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="neuron-specific",
    perturbation=True,
    phases=43,  # those of predictive coding, and the noise that drives single layers
    past_storage=True,
)
_PHASES = {
    "fixed-prediction-coding": 23,
    "symmetric-equilibrium-propagation": 69,
    "dual-propagation": 23,
    "burst-ccn": 2,
    "backprop": 2,
}
_SEQUENTIAL = ("fixed-prediction-coding", "burst-ccn", "backprop")
_VARIANTS = tuple(
    Variant((f"rule={name}",), {"phases": phases, "backward_pass": name in _SEQUENTIAL})
    for name, phases in _PHASES.items()
)
_FULL = ("rate=1", "estimator=least-squares")
_LIMITS = tuple(
    Limit((f"rule={name}", *_FULL), name, ("feedback_weights=symmetric",) if name == "burst-ccn" else ())
    for name in ("predictive-coding", *_PHASES)
)

_MIRROR = (
    r"F = \sum_l \tfrac{1}{2} \left\| x_l - f_l(x_{l-1}; W_l) \right\|^2 + L",
    r"\Delta x_l \propto -\epsilon_l + B_l \left(\epsilon_{l+1} \odot \varphi'(s_{l+1})\right) \text{ until activities have relaxed}",
    r"\epsilon_l = x_l - f_l(x_{l-1}; W_l), \qquad \Delta W_l = -\eta\, \frac{\partial F}{\partial W_l}",
    r"B_l \leftarrow (1 - r)\, B_l + \frac{r}{K v} \sum_{k=1}^{K} \xi_k\, (W_{l+1}\, \xi_k)^\top",
    r"f_l \text{: what lies in front of site } l",
    r"x_l \text{: its activity, free to relax}",
)  # with ``rule=predictive-coding``, the default


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.learnt_feedback.rules"
    return [
        RuleSpec(
            name="mirrored",
            target=f"{target}:Mirrored",
            family=_FAMILY,
            summary="Predictive coding, or another rule, through feedback weights that a weight mirror learns.",
            reference=f"a combination of rules; the mirror: {MIRROR}",
            formula=(*_MIRROR, r"\xi \sim \mathcal{N}(0, v I)"),
            plausibility=_RELAXING,
            variants=_VARIANTS,
            limits=(*_LIMITS, Limit(("rule=backprop",), "weight-mirror")),
        ),
        RuleSpec(
            name="mirrored-manifold",
            target=f"{target}:MirroredInManifold",
            family=_FAMILY,
            summary="The same with a mirror whose noise is restricted to the manifold on which a layer's input lives.",
            reference=f"a combination of rules; the mirror: {MIRROR}; the manifold: {NMNC}",
            formula=(
                *_MIRROR,
                r"\xi = U_l z, \quad z \sim \mathcal{N}(0, v I_d), \qquad U_l \text{: leading } d \text{ principal directions of recent } h_l",
            ),
            plausibility=_RELAXING,
            variants=_VARIANTS,
            limits=(Limit(("rule=backprop",), "nmnc-layerwise"), Limit(("rank=4096",), "mirrored")),
        ),
    ]
