"""The claims of the NMNC paper and some of our own, with the protocol of each study; this module holds their light specs.

The statements are the paper's, in our words (Kang, Richards, Sabatini 2026, arXiv:2601.02636), unless a source says
otherwise. Its set-ups and numbers are not known to us: every architecture, setting and threshold here is our choice,
and every number that comes out is ours.
"""

from __future__ import annotations

from rulezoo import ClaimSpec
from rulezoo_plugins.shared import NMNC

_HERE = "rulezoo_plugins.nmnc_claims"
_OURS = "a question of ours"


def specs() -> list[ClaimSpec]:
    """The claims of the NMNC paper, then those of our own."""
    return [
        ClaimSpec(
            "alignment",
            f"{_HERE}.geometry:ALIGNMENT",
            "In trained networks the row space of the Jacobian aligns with the neural manifold.",
            reference=NMNC,
        ),
        ClaimSpec(
            "dimension",
            f"{_HERE}.geometry:DIMENSION",
            "The dimension of the neural manifold grows slowly with the size of the network.",
            reference=NMNC,
        ),
        ClaimSpec(
            "cifar",
            f"{_HERE}.perturbations:CIFAR",
            "At an equal, small number of perturbations, 8 perturbed examples per site and step, NMNC beats vanilla noise "
            "correlation (VNC) on CIFAR-10.",
            version=2,
            reference=NMNC,
        ),
        ClaimSpec(
            "rnn",
            f"{_HERE}.perturbations:RNN",
            "At an equal, small number of perturbations, 8 perturbed examples per step, NMNC beats vanilla noise "
            "correlation (VNC) on recurrent networks.",
            version=2,
            reference=NMNC,
        ),
        ClaimSpec(
            "imagenet",
            f"{_HERE}.imagenet:IMAGENET",
            "On an AlexNet on Tiny-ImageNet NMNC beats vanilla noise correlation (VNC) with 8 perturbed examples per site and "
            "step, and layerwise NMNC beats the weight mirror with 1 noise vector per layer and step.",
            reference=NMNC,
        ),
        ClaimSpec(
            "primate",
            f"{_HERE}.primate:PRIMATE",
            "The representations of a network trained by NMNC are closer to monkey IT and V4 than those of one trained by "
            "vanilla noise correlation (VNC), at every site, both with 8 perturbed examples per site and step.",
            reference=NMNC,
        ),
        ClaimSpec(
            "width",
            f"{_HERE}.width:WIDTH",
            "At a fixed number of perturbations, 8 perturbed examples per site and step, the number of perturbations that NMNC "
            "saves against vanilla noise correlation (VNC) for the same angle grows with the width of the network.",
            reference=NMNC,
        ),
        ClaimSpec(
            "gap",
            f"{_HERE}.standing:GAP",
            "At its own best setting NMNC beats vanilla noise correlation (VNC), feedback alignment (FA) and direct "
            "feedback alignment (DFA).",
            reference=_OURS,
        ),
        ClaimSpec(
            "auto",
            f"{_HERE}.standing:AUTO",
            "A rank chosen from the rule's own measurements is at every budget at least as good as the better of "
            "vanilla noise correlation and a fixed rank.",
            reference=_OURS,
        ),
        ClaimSpec(
            "mirror",
            f"{_HERE}.mirror:MIRROR",
            "With 1 noise vector per layer and step, a weight mirror that is restricted to the manifold of activity reaches the "
            "angle for which an unrestricted one needs k times as many, with k above 1 for dense and for convolutional layers.",
            version=2,
            reference=_OURS,
        ),
    ]
