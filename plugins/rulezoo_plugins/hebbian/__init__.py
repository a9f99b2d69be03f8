"""Hebbian learning: the light specs; the rules are in `rules`."""

from __future__ import annotations

from rulezoo import Plausibility, RuleSpec

_FAMILY = "Hebbian learning"
_HEBBIAN = Plausibility(
    weight_transport=False,
    backward_pass=False,
    update_locking=False,
    signal="none",
    perturbation=False,
)


def specs() -> list[RuleSpec]:
    """The specs of the family."""
    target = "rulezoo_plugins.hebbian.rules"
    return [
        RuleSpec(
            name="softhebb",
            target=f"{target}:SoftHebb",
            family=_FAMILY,
            summary="Units compete softly for inputs, and move towards those that they win; a read-out is trained.",
            reference="Moraitis, Toichkin, Journé, Chua, Guo 2022, SoftHebb: Bayesian inference in unsupervised "
            "Hebbian soft winner-take-all networks, doi:10.1088/2634-4386/aca710; "
            "Journé, Garcia Rodriguez, Guo, Moraitis 2023, Hebbian deep learning without feedback, arXiv:2209.11883",
            formula=(
                r"y = \mathrm{softmax}(u / \tau), \qquad u_k = w_k \cdot x",
                r"\Delta w_k = \eta\, \left| \|w_k\| - 1 \right|^{p}\, y_k\, (x - u_k w_k)",
                r"\eta \text{: rate of the Hebbian updates}",
                r"x \text{: centred input of a layer}",
            ),
            plausibility=_HEBBIAN,
        ),
        RuleSpec(
            name="oja",
            target=f"{target}:Oja",
            family=_FAMILY,
            summary="Units find the principal subspace of their inputs; a read-out is trained.",
            reference="Oja 1982, Simplified neuron model as a principal component analyzer, "
            "doi:10.1007/BF00275687; Oja 1989, Neural networks, principal components, and subspaces, "
            "doi:10.1142/S0129065789000475",
            formula=(
                r"\Delta W = \eta\, \left( \overline{u\, x^\top} - \overline{u\, u^\top}\, W \right), \qquad u = W x",
                r"\eta \text{: rate of the Hebbian updates}",
                r"x \text{: centred input of a layer}",
            ),
            plausibility=_HEBBIAN,
        ),
        RuleSpec(
            name="sanger",
            version=2,  # the Hebbian learning rate falls; another default
            target=f"{target}:Sanger",
            family=_FAMILY,
            summary="Units find the principal components of their inputs, in order; a read-out is trained.",
            reference="Sanger 1989, Optimal unsupervised learning in a single-layer linear feedforward neural "
            "network, doi:10.1016/0893-6080(89)90044-0",
            formula=(
                r"\Delta W = \eta\, \left( \overline{u\, x^\top} - \mathrm{lower}\!\left(\overline{u\, u^\top}\right) W \right), \qquad u = W x",
                r"\eta \text{: rate of the Hebbian updates, which falls}",
                r"x \text{: centred input of a layer}",
            ),
            plausibility=_HEBBIAN,
        ),
    ]
