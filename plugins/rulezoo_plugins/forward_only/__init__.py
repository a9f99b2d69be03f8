"""Forward only: the light specs; the rules are in `goodness` and `pepita`."""

from __future__ import annotations

from rulezoo import Plausibility, RuleSpec, Variant

_FAMILY = "forward only"


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    package = "rulezoo_plugins.forward_only"
    return [
        RuleSpec(
            name="forward-forward",
            target=f"{package}.goodness:ForwardForward",
            family=_FAMILY,
            summary="Layers make their goodness high for inputs with the true label, and low with a wrong one.",
            reference="Hinton 2022, The forward-forward algorithm: some preliminary investigations, arXiv:2212.13345",
            formula=(
                r"\ell_l = \mathrm{softplus}(\theta - G_l^+) + \mathrm{softplus}(G_l^- - \theta), \qquad G_l = \sum_i h_{l,i}^2",
                r"\Delta W_l = -\eta\, \frac{\partial \ell_l}{\partial W_l}, \quad h_{l-1} \text{ held fixed}",
                r"+ \text{: input with its label}, \quad - \text{: input with a wrong label}",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,
                update_locking=False,
                signal="scalar",  # one number for each layer: how far its goodness is from what it should be
                perturbation=False,
                phases=1,  # the negative pass
            ),
            # The pass with the neutral label, and the gradient of the read-out from it.
            variants=(Variant(("answer=readout",), {"phases": 2}),),
        ),
        RuleSpec(
            name="self-contrastive-forward-forward",
            target=f"{package}.goodness:SelfContrastive",
            family=_FAMILY,
            summary="Layers tell an input from a mixture of two inputs, without labels; the read-out learns from them.",
            reference="Chen, Liu, Laydevant, Grollier 2025, Self-contrastive forward-forward algorithm, "
            "doi:10.1038/s41467-025-61037-0",
            formula=(
                r"\ell_l = \mathrm{softplus}(\theta^+ - G_l^+) + \mathrm{softplus}(G_l^- - \theta^-), \qquad G_l = \overline{\mathrm{relu}(h_l)^2}",
                r"\Delta W_l = -\eta\, \frac{\partial \ell_l}{\partial W_l}, \quad h_{l-1} \text{ held fixed}",
                r"+ \text{: input with itself}, \quad - \text{: input with another input}",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,
                update_locking=False,
                signal="none",
                perturbation=False,
                phases=1,  # the negative pass
            ),
        ),
        RuleSpec(
            name="pepita",
            version=2,  # other defaults
            target=f"{package}.pepita:Pepita",
            family=_FAMILY,
            summary="The error is added to the input, and layers learn from the change of activity in a second pass.",
            reference="Dellaferrera, Kreiman 2022, Error-driven input modulation: solving the credit assignment "
            "problem without a backward pass, arXiv:2201.11665",
            formula=(
                r"h_l' \text{: activity in a second pass, of the input } x + F e, \quad F \text{ fixed and random}",
                r"\Delta W_l = -\eta\, (h_l - h_l')\, h_{l-1}'^{\top}",
            ),
            plausibility=Plausibility(
                weight_transport=False,
                backward_pass=False,
                update_locking=True,
                signal="vector",
                perturbation=True,
                phases=1,  # the modulated pass
            ),
        ),
    ]
