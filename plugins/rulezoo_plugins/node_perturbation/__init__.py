"""Node perturbation: the light specs; the rules are in `rules`."""

from __future__ import annotations

from rulezoo import Limit, Plausibility, RuleSpec, Variant
from rulezoo_plugins.shared import NMNC

_FAMILY = "node perturbation"
_PACKAGE = "rulezoo_plugins.node_perturbation"
_SCALAR = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="scalar",
    perturbation=True,
    phases="2 per site",
    past_storage=True,
)
_VARIANTS = (
    Variant(("antithetic=false",), {"phases": "1 per site"}),
    Variant(("together=true",), {"phases": 2}),
    Variant(("together=true", "antithetic=false"), {"phases": 1}),
)
_REFERENCE = (
    "Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning, "
    "doi:10.1007/BF00992696; Fiete & Seung 2006, Gradient learning in spiking neural networks by dynamic "
    "perturbation of conductances, doi:10.1103/PhysRevLett.97.048104"
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    return [
        RuleSpec(
            name="node-perturbation",
            target=f"{_PACKAGE}.rules:NodePerturbation",
            family=_FAMILY,
            summary="The change of the loss, one number, times the isotropic noise that caused it.",
            reference=_REFERENCE,
            formula=(
                r"\hat{g}_l = \frac{L(h_l + \xi) - L(h_l - \xi)}{2 v}\; \xi",
                r"\Delta W_l = -\eta\, \left(\hat{g}_l \odot \varphi'(s_l)\right) h_{l-1}^\top",
                r"\xi \sim \mathcal{N}(0, v I)",
            ),
            plausibility=_SCALAR,
            variants=_VARIANTS,
        ),
        RuleSpec(
            name="node-perturbation-manifold",
            target=f"{_PACKAGE}.rules:ManifoldNodePerturbation",
            family=_FAMILY,
            summary="Node perturbation with noise restricted to the manifold on which activity lives.",
            reference=f"{_REFERENCE}; the manifold as in {NMNC}",
            formula=(
                r"\hat{g}_l = \frac{L(h_l + \xi) - L(h_l - \xi)}{2 v}\; \xi",
                r"\Delta W_l = -\eta\, \left(\hat{g}_l \odot \varphi'(s_l)\right) h_{l-1}^\top",
                r"\xi = U_l z, \quad z \sim \mathcal{N}(0, v I_d), \qquad U_l \text{: leading } d \text{ principal directions of recent } h_l",
            ),
            plausibility=_SCALAR,
            variants=_VARIANTS,
            limits=(Limit(("rank=4096", "sigma=1e-5"), "node-perturbation", ("sigma=1e-5",)),),
        ),
    ]
