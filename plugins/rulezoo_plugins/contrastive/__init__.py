"""Contrastive Hebbian learning and dual propagation: the light specs; the rules are in `rules`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Limit, Plausibility, RuleSpec

_FAMILY = "contrastive Hebbian learning"
_CONTRASTIVE = Plausibility(
    weight_transport=True,  # feedback travels through the transposed forward weights
    backward_pass=False,  # all layers relax at the same time
    update_locking=True,
    signal="neuron-specific",
    perturbation=False,
    phases=22,  # a pass and its pull-back for each of 10 steps, and for the update
    past_storage=True,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.contrastive.rules"
    return [
        RuleSpec(
            name="contrastive-hebbian-learning",
            version=2,  # another default
            target=f"{target}:ContrastiveHebbianLearning",
            family=_FAMILY,
            summary="Correlations with the output clamped at its target, minus those without; feedback is weak.",
            reference="Xie, Seung 2003, Equivalence of backpropagation and contrastive Hebbian learning in a "
            "layered network, doi:10.1162/089976603762552988; Movellan 1991, Contrastive Hebbian learning in the "
            "continuous Hopfield model",
            formula=(
                r"x_k \to f_k\left(d_k + \gamma\, W_{k+1}^\top x_{k+1}\right), \text{ with the output free } (x) \text{ and clamped } (\hat{x})",
                r"\Delta W_k \propto \gamma^{k-K} \left( \hat{x}_k \hat{x}_{k-1}^\top - x_k x_{k-1}^\top \right)",
                r"K \text{: the layer of the output}",
                r"\gamma \text{: strength of the feedback}",
            ),
            plausibility=replace(_CONTRASTIVE, phases=84),
            limits=(Limit(("feedback=1e-4", "ceiling=100"), "backprop", tolerance=1e-3),),
        ),
        RuleSpec(
            name="dual-propagation",
            target=f"{target}:DualPropagation",
            family=_FAMILY,
            summary="Each neuron has two states, nudged oppositely: their mean is the activity, their difference the error.",
            reference="Høier, Staudt, Zach 2023, Dual propagation: accelerating contrastive Hebbian learning with "
            "dyadic neurons, arXiv:2302.01228",
            formula=(
                r"z_k^\pm = f_k\left(d_k(\bar{z}_{k-1}) \pm \tfrac{1}{2} W_{k+1}^\top (z_{k+1}^+ - z_{k+1}^-)\right), \qquad \bar{z} = \tfrac{1}{2}(z^+ + z^-)",
                r"\Delta W_k \propto \frac{1}{\beta} (z_k^+ - z_k^-)\, \bar{z}_{k-1}^\top",
                r"\beta \text{: nudge of the output}",
            ),
            plausibility=_CONTRASTIVE,
            limits=(Limit(("beta=1e-4",), "backprop"),),
        ),
    ]
