"""The hooks by which a plugin enters the zoo."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from rulezoo.specs import ClaimSpec, EvaluationSpec, RuleSpec, TaskSpec

GROUP = "rulezoo"  #: the entry-point group, and pluggy's name of the project

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def rulezoo_rules() -> Iterable[RuleSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """The learning rules of this plugin. Import nothing heavy here: a spec names its class by text."""


@hookspec
def rulezoo_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """The tasks of this plugin. Import nothing heavy here: a spec names its class by text."""


@hookspec
def rulezoo_evaluations() -> Iterable[EvaluationSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """The evaluations of trained networks of this plugin. Import nothing heavy here: a spec names its class by text."""


@hookspec
def rulezoo_claims() -> Iterable[ClaimSpec]:  # type: ignore[empty-body]  # a hook specification has no body
    """The claims of this plugin. Import nothing heavy here: a spec names its claim by text."""
