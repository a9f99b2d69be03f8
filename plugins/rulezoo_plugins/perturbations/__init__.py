"""Perturbations of weights, and node perturbation with decorrelated inputs: the light specs; the rules are in `rules`."""

from __future__ import annotations

from dataclasses import replace

from rulezoo import Limit, Plausibility, RuleSpec, Variant

_FAMILY = "perturbations"
_DALM = (
    "Dalm, van Gerven, Ahmad 2023, Effective learning with node perturbation in multi-layer neural networks, "
    "arXiv:2310.00965"
)
_PERTURBED = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=True,
    signal="scalar",
    perturbation=True,
    phases=1,  # the noisy pass
    past_storage=True,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.perturbations.rules"
    return [
        RuleSpec(
            name="weight-perturbation",
            target=f"{target}:WeightPerturbation",
            family=_FAMILY,
            summary="The change of an example's loss, times the noise of the weights that caused it.",
            reference="Jabri, Flower 1992, Weight perturbation: an optimal architecture and learning technique "
            "for analog VLSI feedforward and recurrent multilayer networks, doi:10.1109/72.105429; Cauwenberghs "
            "1993, A fast stochastic error-descent algorithm for supervised learning and optimization (Advances "
            "in Neural Information Processing Systems 5)",
            formula=(
                r"\Delta W = -\eta\; \frac{L(W + \xi) - L(W - \xi)}{2 \sigma^2}\; \xi, \qquad \xi \sim \mathcal{N}(0, \sigma^2 I)",
            ),
            plausibility=replace(_PERTURBED, phases=2),
            variants=(Variant(("antithetic=false",), {"phases": 1}),),
        ),
        RuleSpec(
            name="activity-node-perturbation",
            target=f"{target}:ActivityNodePerturbation",
            family=_FAMILY,
            summary="Node perturbation by the measured change of all activity, of which the injected noise is one part.",
            reference=_DALM,
            formula=(
                r"\hat{g}_l = N\, \delta L\, \frac{\delta a_l}{\|\delta a\|^2}",
                r"\Delta W_l = -\eta\, \hat{g}_l\, h_{l-1}^\top",
                r"\delta L, \delta a \text{: changes of the loss and of all } N \text{ drives in a noisy pass}",
            ),
            plausibility=_PERTURBED,
        ),
        RuleSpec(
            name="decorrelated-node-perturbation",
            target=f"{target}:DecorrelatedNodePerturbation",
            family=_FAMILY,
            summary="Activity-based node perturbation of a network whose layers learn to decorrelate their inputs.",
            reference=f"{_DALM}; Ahmad, Schrader, van Gerven 2023, Constrained parameter inference as a principle "
            "for learning (Transactions on Machine Learning Research)",
            formula=(
                r"x_l^* = R_l\, h_{l-1}, \qquad s_l = W_l\, x_l^*",
                r"\hat{g}_l = N\, \delta L\, \frac{\delta a_l}{\|\delta a\|^2}, \qquad \Delta W_l = -\eta\, \hat{g}_l\, x_l^{*\top}",
                r"\Delta R_l = -\varepsilon\, \overline{\left(x_l^* x_l^{*\top} - \mathrm{diag}(x_l^{*2})\right)}\, R_l",
            ),
            # The noisy pass, and one in which the inputs of all layers are read.
            plausibility=replace(_PERTURBED, phases=2),
            limits=(Limit(("decorrelation=0",), "activity-node-perturbation"),),
        ),
    ]
