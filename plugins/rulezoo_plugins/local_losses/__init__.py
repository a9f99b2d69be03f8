"""Local losses: the light specs; the rules are in `rules`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Plausibility, RuleSpec

_FAMILY = "local losses"
_PAPER = "Nøkland, Eidnes 2019, Training neural networks with local error signals, arXiv:1901.06656"
_LOCAL = Plausibility(
    weight_transport=True,  # of the local head, whose transposed weights teach the layer in front of it
    backward_pass=False,
    update_locking=False,
    signal="neuron-specific",
    perturbation=False,
    past_storage=True,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.local_losses.rules"
    return [
        RuleSpec(
            name="local-prediction",
            target=f"{target}:LocalPrediction",
            family=_FAMILY,
            summary="A linear head at every site predicts the target, and teaches the layers in front of the site.",
            reference=_PAPER,
            formula=(
                r"\ell_l = L(A_l h_l, y^*), \quad A_l \text{ a trained linear head}",
                r"\Delta W_l = -\eta\, \frac{\partial \ell_l}{\partial W_l}, \quad h_{l-1} \text{ held fixed}",
            ),
            plausibility=_LOCAL,
        ),
        RuleSpec(
            name="local-similarity",
            target=f"{target}:LocalSimilarity",
            family=_FAMILY,
            summary="Every site's activity should be similar for examples of one class, and no others.",
            reference=_PAPER,
            formula=(
                r"\ell_l = \tfrac{1}{n^2} \left\| S(g_l(h_l)) - S(y^*) \right\|^2, \quad S \text{: cosine similarities of all pairs of the } n \text{ examples}",
                r"\Delta W_l = -\eta\, \frac{\partial \ell_l}{\partial W_l}, \quad h_{l-1} \text{ held fixed}",
            ),
            plausibility=replace(_LOCAL, signal="neuron-specific"),
        ),
        RuleSpec(
            name="local-prediction-similarity",
            target=f"{target}:LocalPredictionSimilarity",
            family=_FAMILY,
            summary="The local losses of prediction and of similarity, weighted.",
            reference=_PAPER,
            formula=(
                r"\ell_l = (1 - \beta)\, L(A_l h_l, y^*) + \tfrac{\beta}{n^2} \left\| S(g_l(h_l)) - S(y^*) \right\|^2",
                r"\Delta W_l = -\eta\, \frac{\partial \ell_l}{\partial W_l}, \quad h_{l-1} \text{ held fixed}",
            ),
            plausibility=_LOCAL,
        ),
        RuleSpec(
            name="greedy-layerwise",
            target=f"{target}:GreedyPrediction",
            family=_FAMILY,
            summary="Layers learn one after the other, each from its own linear head, and then stay as they are.",
            reference="Belilovsky, Eickenberg, Oyallon 2019, Greedy layerwise learning can scale to ImageNet, "
            "arXiv:1812.11446",
            formula=(
                r"\ell_l = L(A_l h_l, y^*), \quad A_l \text{ a trained linear head}",
                r"\Delta W_l = -\eta\, \frac{\partial \ell_l}{\partial W_l}, \quad h_{l-1} \text{ held fixed, for one } l \text{ at a time, from the first to the last}",
            ),
            plausibility=_LOCAL,
        ),
    ]
