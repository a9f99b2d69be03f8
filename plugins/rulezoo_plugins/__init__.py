"""The catalogue of built-in rules and claims. It is read by every command, so nothing heavy is imported here.

Each family is a package: its ``__init__`` holds the light specs, its modules the rules. `shared` is what several families use.
"""

from __future__ import annotations

from rulezoo import ClaimSpec, RuleSpec, hookimpl
from rulezoo_plugins import (
    baselines,
    contrastive,
    dendrites,
    direct_feedback,
    equilibrium,
    feedback_weights,
    forward_gradients,
    forward_only,
    hebbian,
    learnt_feedback,
    local_losses,
    nmnc_claims,
    node_perturbation,
    noise_correlation,
    noise_regression,
    perturbations,
    predictive_coding,
    recurrent,
    spiking,
    target_propagation,
)

FAMILIES = (
    baselines,
    feedback_weights,
    direct_feedback,
    noise_correlation,
    noise_regression,
    node_perturbation,
    perturbations,
    recurrent,
    spiking,
    predictive_coding,
    equilibrium,
    contrastive,
    target_propagation,
    dendrites,
    learnt_feedback,
    local_losses,
    forward_only,
    hebbian,
    forward_gradients,
)  #: packages of rules, in the order of listings


@hookimpl
def rulezoo_rules() -> list[RuleSpec]:
    """The rules, family by family."""
    return [spec for family in FAMILIES for spec in family.specs()]


@hookimpl
def rulezoo_claims() -> list[ClaimSpec]:
    """The claims of the NMNC paper, then those of our own."""
    return nmnc_claims.specs()
