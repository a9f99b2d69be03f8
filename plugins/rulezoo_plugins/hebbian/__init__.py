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
            reference="Moraitis, Toichkin, Journé, Chua, Guo 2022, doi:10.1088/2634-4386/aca710; "
            "Journé, Garcia Rodriguez, Guo, Moraitis 2023, arXiv:2209.11883",
            plausibility=_HEBBIAN,
        ),
        RuleSpec(
            name="oja",
            target=f"{target}:Oja",
            family=_FAMILY,
            summary="Units find the principal subspace of their inputs; a read-out is trained.",
            reference="Oja 1982, doi:10.1007/BF00275687; Oja 1989, doi:10.1142/S0129065789000475",
            plausibility=_HEBBIAN,
        ),
        RuleSpec(
            name="sanger",
            version=2,  # the Hebbian learning rate falls; another default
            target=f"{target}:Sanger",
            family=_FAMILY,
            summary="Units find the principal components of their inputs, in order; a read-out is trained.",
            reference="Sanger 1989, doi:10.1016/0893-6080(89)90044-0",
            plausibility=_HEBBIAN,
        ),
    ]
