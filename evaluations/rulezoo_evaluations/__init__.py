"""The catalogue of built-in evaluations. It is read by every command, so nothing heavy is imported here."""

from __future__ import annotations

from rulezoo import EvaluationSpec, hookimpl


@hookimpl
def rulezoo_evaluations() -> list[EvaluationSpec]:
    """The evaluations, in the order of listings."""
    return [
        *_brain_data(),
        *_networks(),
    ]


def _brain_data() -> list[EvaluationSpec]:
    """Comparisons with recordings from brains."""
    return []


def _networks() -> list[EvaluationSpec]:
    """Properties of the network itself, and of its answers."""
    return []
