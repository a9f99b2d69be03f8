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
            plausibility=_RELAXING,
            variants=_VARIANTS,
            limits=(*_LIMITS, Limit(("rule=backprop",), "weight-mirror")),
        ),
        RuleSpec(
            name="mirrored-manifold",
            target=f"{target}:MirroredInManifold",
            family=_FAMILY,
            summary="The same with a mirror whose noise is restricted to the manifold on which a layer's input lives.",
            reference=f"a combination of rules; the mirror: {MIRROR}, in the manifold of {NMNC}",
            plausibility=_RELAXING,
            variants=_VARIANTS,
            limits=(Limit(("rule=backprop",), "nmnc-layerwise"), Limit(("rank=4096",), "mirrored")),
        ),
    ]
