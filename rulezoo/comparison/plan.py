"""What a comparison asks for: one `Cell` for each rule on each task, with its seeds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from rulezoo.comparison import budgets
from rulezoo.comparison.grids import listed, single, size, variants
from rulezoo.comparison.request import Request
from rulezoo.errors import UserError, did_you_mean
from rulezoo.options import declared
from rulezoo.results.records import Device, Plugin, RunSpec
from rulezoo.training.protocol import PROTOCOL, Trial

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Found, Registry
    from rulezoo.rule import LearningRule
    from rulezoo.specs import RuleSpec, TaskSpec
    from rulezoo.task import Budget, Task

C = TypeVar("C")

DEFAULT = "default"  #: tag of the rules and tasks that are compared when none is named

ALL = ("all",)  #: in place of names: every rule, or every task


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
        rule_module: name of the module that the rule's class is imported from.
        task_module: likewise for the task.
        budget: the task's, with what the user set for all rules and the rule's own learning rate and weight decay.
        asked: the identity of each seed's run.
        request: the part of what was asked that concerns this rule on this task.
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
    asked: tuple[RunSpec, ...]
    request: Request
    trial: Trial | None = None

    @property
    def rule_words(self) -> Mapping[str, str]:
        """The rule's options as the user wrote them, from which another process can make it."""
        return single(self.request.options.get(self.rule_name, {}))

    @property
    def task_words(self) -> Mapping[str, str]:
        """The task's options as the user wrote them."""
        return single(self.request.options.get(self.task_name, {}))

    @property
    def changed(self) -> list[str]:
        """Names of the rule's options that are not the author's default."""
        return [
            name for name, o in declared(type(self.rule)).items() if getattr(self.rule, name) != o.default
        ]


@dataclass(frozen=True)
class _Made(Generic[C]):
    """A configured rule or task, and the words it was made from."""

    found: Found[Any]
    words: Mapping[str, str]
    value: C

    @property
    def name(self) -> str:
        name: str = self.found.spec.name
        return name


def plan(registry: Registry, request: Request) -> list[Cell]:
    """Every rule on every task, task by task; options with several values give a cell for each combination.

    Args:
        registry: the available rules and tasks.
        request: what is asked.

    Raises:
        UserError: an unknown name or option, a value that is not allowed, an option of what is not compared, or a
            budget that nothing can be trained with.
    """
    request = resolved(registry, request)
    rules = [
        _Made(registry.rule(name), words, made)
        for name in request.rules
        for words, made in _each(registry.rule_class, registry.make_rule, name, request)
    ]
    from rulezoo.comparison.contract import declaration_problem  # brings torch, as the tasks do

    tasks = [
        _Made(registry.task(name), words, made)
        for name in request.tasks
        for words, made in _each(registry.task_class, registry.make_task, name, request)
    ]
    for task in tasks:
        if problem := declaration_problem(task.value):
            raise UserError(f"task {task.name!r}: {problem}")
    return [_cell(rule, task, request) for task in tasks for rule in rules]


def number_of_cells(registry: Registry, request: Request) -> int:
    """The number of cells of a plan, without making it: a grid may be too large for that."""
    request = resolved(registry, request)

    def count(names: Sequence[str], class_of: Callable[[str], type]) -> int:
        return sum(size(declared(class_of(name)), request.options.get(name, {})) for name in names)

    return count(request.rules, registry.rule_class) * count(request.tasks, registry.task_class)


def is_grid(registry: Registry, request: Request) -> bool:
    """Whether an option of a rule or task has several values."""
    named = resolved(registry, request)
    return number_of_cells(registry, named) > len(named.rules) * len(named.tasks)


def resolved(registry: Registry, request: Request) -> Request:
    """The same request with everything filled in: names, the values of grids, and the device.

    Evaluations need the trained weights, which are then kept.

    Raises:
        UserError: if nothing is left to compare, an option belongs to what is not compared, or the device is missing.
    """
    rules = _named(tuple(map(registry.current, request.rules)), registry.rules)
    tasks = _named(request.tasks, registry.tasks)
    evaluations = tuple(map(registry.current, request.evaluations))
    evaluations = tuple(registry.evaluations) if evaluations == ALL else evaluations
    if not (rules and tasks):
        raise UserError(
            f"nothing to compare: no {'task' if rules else 'rule'} is in the standard comparison; name some"
        )
    options: dict[str, dict[str, str | tuple[str, ...]]] = {}
    for name, texts in request.options.items():
        options.setdefault(registry.current(name), {}).update(texts)
    for name in options:
        if name not in (*rules, *tasks, *evaluations):
            near = did_you_mean(name, (*rules, *tasks, *evaluations))
            raise UserError(
                f"-o {name}.…: {name!r} is not compared here; {near and near + ' '}the rules are {', '.join(rules)} and the tasks "
                f"{', '.join(tasks)}"
            )
    for names, class_of in ((rules, registry.rule_class), (tasks, registry.task_class)):
        for name in set(names) & set(options):
            options[name] = listed(declared(class_of(name)), options[name])
    device = choose_device("auto") if request.device == "auto" else request.device
    return replace(
        request,
        rules=rules,
        tasks=tasks,
        evaluations=evaluations,
        options=options,
        device=device,
        keep_weights=request.keep_weights or bool(evaluations),
    )


def _named(names: tuple[str, ...], known: Mapping[str, Found[Any]]) -> tuple[str, ...]:
    if names == ALL:
        return tuple(name for name, found in known.items() if not found.spec.is_family)
    return names or tuple(name for name, found in known.items() if DEFAULT in found.spec.tags)


def _each(
    class_of: Callable[[str], type],
    make: Callable[[str, Mapping[str, str]], C],
    name: str,
    request: Request,
) -> Iterator[tuple[Mapping[str, str], C]]:
    """A rule or task with each combination of its options; values that are written differently and equal count once."""
    known: list[C] = []
    for words in variants(declared(class_of(name)), request.options.get(name, {})):
        made = make(name, words)
        if made not in known:
            known.append(made)
            yield words, made


def _cell(rule: _Made[LearningRule], task: _Made[Task], request: Request) -> Cell:
    given = budgets.changed(task.value.budget, request.budget)
    budget = budgets.used(given, rule.value, request.epochs)
    _check_budget(rule.name, rule.value, task.name, budget)
    asked = tuple(
        RunSpec(
            protocol=PROTOCOL,
            rule=rule.name,
            rule_version=rule.found.spec.version,
            rule_options=rule.value.resolved(),
            task=task.name,
            task_version=task.found.spec.version,
            task_options=task.value.resolved(),
            budget=budgets.identity(task.value.budget, given, budget),
            seed=seed,
            device=cast(Device, request.device),  # `resolved` leaves no other
            precision=request.precision,
        )
        for seed in request.seeds
    )
    return Cell(
        rule_name=rule.name,
        rule=rule.value,
        rule_plugin=_plugin(rule.found),
        task_name=task.name,
        task=task.value,
        task_plugin=_plugin(task.found),
        rule_module=rule.found.spec.module,
        task_module=task.found.spec.module,
        budget=budget,
        asked=asked,
        request=request.of_cell(rule.name, rule.words, task.name, task.words),
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
