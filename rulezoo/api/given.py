"""What a `rulezoo.Learner` is given, made into values: a rule, options of its optimizer, a task."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from rulezoo.api.errors import CallError
from rulezoo.credit import Loss
from rulezoo.discovery.registry import discover
from rulezoo.net import Net
from rulezoo.options import as_text, configure
from rulezoo.rule import Batch, LearningRule
from rulezoo.task import Budget, Task


def rule_of(given: object, options: dict[str, Any]) -> tuple[LearningRule, str]:
    """The rule, and what it is called in messages."""
    texts = {name: as_text(value) for name, value in options.items()}
    if isinstance(given, str):
        return discover().make_rule(given, texts), given
    if isinstance(given, type) and issubclass(given, LearningRule):
        return configure(given, given.__name__, texts), given.__name__
    if not isinstance(given, LearningRule):
        raise CallError(f"rule must be the name of a rule, a LearningRule or its class, got {given!r}")
    if options:
        raise CallError(
            f"options={options!r} are those of a rule that is yet to be made; make the {type(given).__name__} with them"
        )
    return given, type(given).__name__


def with_those_of_the_rule(
    rule: LearningRule, name: str, optimizer: object, options: dict[str, Any]
) -> dict[str, Any]:
    """The options of the optimizer, with the learning rate and the weight decay that the rule was made with."""
    names = ("lr",) if rule.decoupled_decay else ("lr", "weight_decay")
    own = {one: value for one in names if (value := getattr(rule, one)) is not None}
    if own and isinstance(optimizer, Optimizer):
        raise CallError(
            f"{name} was made with {', '.join(f'{one}={value:g}' for one, value in own.items())}, and the "
            f"{type(optimizer).__name__} has its own learning rate and weight decay; set them there, and leave them out of the "
            "options of the rule"
        )
    return own | options


def decay_of(rule: LearningRule, name: str, steps: int | None) -> float:
    """The exponent of a step's share of the decay of a whole training."""
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise CallError(
            f"steps must be a whole number, 1 or more, the steps of the whole training, got {steps!r}"
        )
    if not rule.decoupled_decay or not rule.weight_decay:
        return 0.0
    if steps is None:
        raise CallError(
            f"{name} spreads its weight decay ({rule.weight_decay:g}) over the whole training; give its number of steps, "
            "as steps=1000, or the option weight_decay=0"
        )
    return rule.weight_decay / steps


def task_of(loss: Loss, net: Net, batch: Batch) -> Task:
    """A task for rules to look at before they train: the loss, and what the first batch shows of the targets."""
    x, y = batch
    targets = classes = None
    if y.is_floating_point():
        targets = "numbers" if tuple(y.shape[1:]) == net.output_shape else None
    elif y.dtype != torch.bool and y.ndim == 1 and len(net.output_shape) == 1:
        targets, classes = "labels", net.output_shape[0]
    known = {
        "budget": Budget(epochs=1, batch=len(x), lr=1e-3),
        "metric": "loss",
        "chance": float("nan"),
        "targets": targets,
        "classes": classes,
        "loss": staticmethod(loss),
    }
    made: Task = type("LearnerTask", (Task,), known)()
    return made
