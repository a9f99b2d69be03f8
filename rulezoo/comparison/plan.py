"""What a comparison asks for: one `Cell` for each rule on each task, with its seeds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rulezoo.comparison import budgets
from rulezoo.errors import UserError
from rulezoo.options import declared
from rulezoo.results.records import Asked, Device, Plugin, Precision
from rulezoo.training.protocol import PROTOCOL, Trial

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Found, Registry
    from rulezoo.rule import LearningRule
    from rulezoo.specs import RuleSpec, TaskSpec
    from rulezoo.task import Budget, Task

DEFAULT = "default"  #: tag of the rules and tasks that are compared when none is named

Options = Mapping[str, Mapping[str, str]]
"""name of a rule or task → its options as the user wrote them."""


@dataclass(frozen=True)
class Cell:
    """One rule on one task.

    Attributes:
        rule_name: the rule's name.
        rule: the configured rule.
        rule_plugin: where it came from.
        task_name: the task's name.
        task: the configured task.
        task_plugin: where it came from.
        rule_module: name of the module that the rule's class is asked of.
        task_module: the same of the task's.
        budget: the task's, with what the user set for all rules and what the rule has of its own.
        asked: the identity of each seed's run.
        rule_words: the rule's options as the user wrote them, from which another process can make it again.
        task_words: the task's, likewise.
        epochs: what the user asked for in place of the task's own.
        budget_words: what the user set of the budget for all rules, as written.
        trial: set where the runs are trials of a tuning.
    """

    rule_name: str
    rule: LearningRule
    rule_plugin: Plugin
    task_name: str
    task: Task
    task_plugin: Plugin
    rule_module: str
    task_module: str
    budget: Budget
    asked: tuple[Asked, ...]
    rule_words: Mapping[str, str]
    task_words: Mapping[str, str]
    epochs: int | None
    budget_words: budgets.Words = field(default_factory=dict)
    trial: Trial | None = None

    @property
    def changed(self) -> list[str]:
        """Names of the rule's options that are not the author's default."""
        return [
            name for name, o in declared(type(self.rule)).items() if getattr(self.rule, name) != o.default
        ]


def plan(
    registry: Registry,
    rules: Sequence[str],
    tasks: Sequence[str],
    seeds: Sequence[int],
    device: Device,
    options: Options,
    epochs: int | None = None,
    precision: Precision = "float32",
    budget: budgets.Words | None = None,
) -> list[Cell]:
    """Every rule on every task, task by task.

    Args:
        registry: the rules and tasks there are.
        rules: names; empty = those tagged ``default``.
        tasks: names; empty = those tagged ``default``.
        seeds: the seeds.
        device: class of the device.
        options: of rules and of tasks, by name.
        epochs: in place of the tasks' own.
        precision: of the arithmetic.
        budget: what is set of the tasks' budgets for all rules, as the user wrote it.

    Raises:
        UserError: an unknown name or option, an illegal value, an option of what is not compared, or a budget that
            nothing can be trained with.
    """
    rules = list(dict.fromkeys(map(registry.current, rules)))
    given, options = options, {}
    for name, texts in given.items():
        options = {**options, registry.current(name): {**options.get(registry.current(name), {}), **texts}}
    rules = rules or [name for name, found in registry.rules.items() if DEFAULT in found.spec.tags]
    tasks = tasks or [name for name, found in registry.tasks.items() if DEFAULT in found.spec.tags]
    if not (rules and tasks):
        raise UserError(
            f"nothing to compare: no {'task' if rules else 'rule'} is in the standard comparison; name some"
        )
    for name in options:
        if name not in (*rules, *tasks):
            raise UserError(
                f"-o {name}.…: {name!r} is not compared here; the rules are {', '.join(rules)} and the tasks "
                f"{', '.join(tasks)}"
            )
    made_rules = {name: registry.make_rule(name, options.get(name, {})) for name in rules}
    from rulezoo.comparison.contract import declaration_problem  # brings torch, as the tasks do

    made_tasks = {name: registry.make_task(name, options.get(name, {})) for name in tasks}
    for name, task in made_tasks.items():
        if problem := declaration_problem(task):
            raise UserError(f"task {name!r}: {problem}")
    return [
        _cell(
            registry.rule(r),
            rule,
            registry.task(t),
            task,
            seeds,
            device,
            options,
            epochs,
            precision,
            budget or {},
        )
        for t, task in made_tasks.items()
        for r, rule in made_rules.items()
    ]


def _cell(
    rule_found: Found[RuleSpec],
    rule: LearningRule,
    task_found: Found[TaskSpec],
    task: Task,
    seeds: Sequence[int],
    device: Device,
    options: Options,
    epochs: int | None,
    precision: Precision,
    budget_words: budgets.Words,
) -> Cell:
    given = budgets.changed(task.budget, budget_words)
    budget = budgets.used(given, rule, epochs)
    _check_budget(rule_found.spec.name, rule, task_found.spec.name, budget)
    asked = tuple(
        Asked(
            protocol=PROTOCOL,
            rule=rule_found.spec.name,
            rule_version=rule_found.spec.version,
            rule_options=rule.resolved(),
            task=task_found.spec.name,
            task_version=task_found.spec.version,
            task_options=task.resolved(),
            budget=budgets.identity(task.budget, given, budget),
            seed=seed,
            device=device,
            precision=precision,
        )
        for seed in seeds
    )
    return Cell(
        rule_name=rule_found.spec.name,
        rule=rule,
        rule_plugin=_plugin(rule_found),
        task_name=task_found.spec.name,
        task=task,
        task_plugin=_plugin(task_found),
        rule_module=rule_found.spec.module,
        task_module=task_found.spec.module,
        budget=budget,
        asked=asked,
        rule_words=options.get(rule_found.spec.name, {}),
        task_words=options.get(task_found.spec.name, {}),
        epochs=epochs,
        budget_words=budget_words,
    )


def _check_budget(rule_name: str, rule: LearningRule, task_name: str, budget: Budget) -> None:
    """Refuse what nothing can be trained with; a learning rate of 0 may be a rule's own, and nothing else's."""
    from rulezoo.comparison.contract import budget_problem

    checked = replace(budget, lr=1.0) if rule.lr == 0 else budget
    if problem := budget_problem(checked, decoupled=rule.decoupled_decay):
        raise UserError(f"{rule_name} on {task_name}: {problem}")


def _plugin(found: Found[RuleSpec] | Found[TaskSpec]) -> Plugin:
    return Plugin(distribution=found.distribution, version=found.version or None)


def check_compiler(device: Device) -> None:
    """See that `torch.compile` has the C++ compiler that it needs on a CPU.

    Raises:
        UserError: if there is none.
    """
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and not (shutil.which(compiler) or shutil.which("clang++")):
        raise UserError(
            f"--compile: torch.compile needs a C++ compiler on a CPU, and {compiler!r} is not there; install g++ or "
            "leave --compile out"
        )


def choose_device(name: str) -> Device:
    """The device class to compute on: ``auto`` is the GPU when there is one.

    Raises:
        UserError: if the device is not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there[name]:
        have = ", ".join(n for n, ok in there.items() if ok)
        raise UserError(f"--device {name}: torch finds no such device on this machine; it has {have}")
    return name  # type: ignore[return-value]  # one of the three, checked by the lookup above
