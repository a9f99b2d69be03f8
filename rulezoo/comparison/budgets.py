"""The budget of a run: the task's, with what the user sets for a comparison and what the rule has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from rulezoo.errors import UserError, did_you_mean
from rulezoo.options import Value
from rulezoo.task import Budget
from rulezoo.training.torch_classes import read, sequence_options

if TYPE_CHECKING:
    from rulezoo.rule import LearningRule

Words = Mapping[str, str]
"""name of a field, or ``optimizer.momentum`` and the like → its value as the user wrote it."""

BASE = {"lr": "base_lr", "weight_decay": "base_weight_decay"}
"""Fields that a rule may have of its own → their name in a run's identity where they were set for all rules.

What a rule sets itself is shown by its options, and no condition of a comparison; what was set for all of them is.
"""
_NESTED = ("optimizer", "schedule")


def names() -> list[str]:
    """What a user may set."""
    own = [f.name for f in fields(Budget) if not f.name.endswith("_options")]
    return [name for name in own if name != "epochs"]


def changed(budget: Budget, words: Words) -> Budget:
    """A budget with what a user set; with another optimiser or schedule, the options of the old one go.

    Raises:
        UserError: if there is no such field.
    """
    if not words:
        return budget
    plain: dict[str, Any] = {}
    nested: dict[str, dict[str, str]] = {owner: {} for owner in _NESTED}
    for name, text in words.items():
        owner, _, option = name.partition(".")
        if owner in nested and option:
            nested[owner][option] = text
        elif name in names():
            plain[name] = text if name in _NESTED else read(text)
        else:
            raise UserError(_unknown(name))
    for owner, texts in nested.items():
        cls = plain.get(owner, getattr(budget, owner))
        kept = getattr(budget, f"{owner}_options") if cls == getattr(budget, owner) else {}
        new = {option: _of_torch(owner, cls, option, text) for option, text in texts.items()}
        plain[f"{owner}_options"] = {**kept, **new}
    return replace(budget, **plain)


def used(budget: Budget, rule: LearningRule, epochs: int | None) -> Budget:
    """A budget with the number of epochs that the user asked for, and the rule's own learning rate and weight decay."""
    return replace(
        budget,
        epochs=budget.epochs if epochs is None else epochs,
        lr=budget.lr if rule.lr is None else rule.lr,
        weight_decay=budget.weight_decay if rule.weight_decay is None else rule.weight_decay,
    )


def identity(tasks: Budget, given: Budget, used: Budget) -> dict[str, Value]:
    """What a run's identity says of its budget.

    Args:
        tasks: the task's own.
        given: with what the user set for all rules.
        used: with what the rule has of its own.
    """
    before, now = tasks.flat(), given.flat()
    differing = {name: value for name, value in now.items() if name not in before or value != before[name]}
    base = {BASE[name]: value for name, value in differing.items() if name in BASE}
    others = {name: value for name, value in differing.items() if name not in BASE}
    return {**others, **base, **used.resolved()}


def words(budget: Mapping[str, Value]) -> list[tuple[str, Value]]:
    """What a user has to set to get the budget of a stored run, whatever the task's own is by now."""
    own = {"epochs", *BASE}
    back = {base: name for name, base in BASE.items()}
    return [(back.get(name, name), value) for name, value in sorted(budget.items()) if name not in own]


def _of_torch(owner: str, name: str, option: str, text: str) -> Any:  # noqa: ANN401
    """The value of an option; one number stands for a sequence of one where the option takes sequences only."""
    from rulezoo.training import optimizers, schedules

    value = read(text)
    cls = (optimizers if owner == "optimizer" else schedules).class_of(name)
    alone = cls is not None and option in sequence_options(cls) and isinstance(value, int | float)
    return (value,) if alone else value


def _unknown(name: str) -> str:
    if name == "epochs":
        return "-b epochs: use --epochs"
    hint = (
        did_you_mean(name, names())
        or f"there are {', '.join(names())}, and options such as optimizer.momentum"
    )
    return f"-b {name}: a budget has no {name!r}; {hint}"
