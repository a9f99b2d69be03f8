"""The conformance suite of tasks, as results to report or as tests for pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.comparison.examination import Examination
from rulezoo.specs import TaskSpec, file_name
from rulezoo.task import Task
from rulezoo.testing import declarations, purity, task_checks
from rulezoo.testing.check import ByFunction, CheckResult, outcomes, parametrized
from rulezoo.testing.task_checks import TaskCase

if TYPE_CHECKING:
    import pytest

CHECKS = (
    task_checks.check_task_spec,
    declarations.check_options,
    declarations.check_frozen_value,
    task_checks.check_budget,
    task_checks.check_trainable,
    task_checks.check_data_deterministic,
    task_checks.check_disjoint,
    task_checks.check_no_leak,
    task_checks.check_network,
    task_checks.check_seeds_together,
    task_checks.check_loss,
    task_checks.check_score,
    task_checks.check_chance,
    task_checks.check_learnable,
)


@dataclass(frozen=True)
class TaskCheck(ByFunction):
    """One check of one task; see `rulezoo.testing.Check`.

    Attributes:
        task: the task, or the spec that loads it (when the check is called, not before).
        function: the check.
        spec: what a plugin says about the task.
        root: the folder of data sets.
        found: what a guarded process found of the task, if that is known.
        made: what the checks of one task share, so that its data are read once.
    """

    task: Task | TaskSpec
    function: Callable[[TaskCase], str | None]
    spec: TaskSpec | None
    root: Path | None
    found: Examination | None
    made: dict[str, TaskCase] = field(repr=False)

    @property
    def id(self) -> str:
        """``digits-cnn:disjoint``; a task without a spec goes by the name of its class."""
        return f"{type(self.task).__name__ if self.spec is None else file_name(self.spec.name)}:{self.name}"

    def __call__(self) -> str | None:
        """Run it; returns what was measured."""
        with purity.undisturbed():
            if "case" not in self.made:
                task = task_checks.made(self.task) if isinstance(self.task, TaskSpec) else self.task
                self.made["case"] = TaskCase(task, self.spec, self.root, self.found)
            return self.function(self.made["case"])


def task_checks_of(
    task: Task | TaskSpec,
    *,
    spec: TaskSpec | None = None,
    root: Path | None = None,
    found: Examination | None = None,
) -> Iterator[TaskCheck]:
    """Every check of a task; nothing is loaded or run before a check is called."""
    known = task if isinstance(task, TaskSpec) else spec
    made: dict[str, TaskCase] = {}
    yield from (TaskCheck(task, function, known, root, found, made) for function in CHECKS)


def check_task(
    task: Task | TaskSpec,
    *,
    spec: TaskSpec | None = None,
    root: Path | None = None,
    found: Examination | None = None,
    expected_failures: Mapping[str, str] | None = None,
    report: Callable[[int, int, str], None] | None = None,
) -> list[CheckResult]:
    """Run the conformance suite on a task.

    Args:
        task: a spec, or a task made with options of your choice.
        spec: of a task that was made with options: what its plugin says about it.
        root: the folder of data sets; where the data are missing, the task is not examined.
        found: what a guarded process found of the task (`rulezoo.comparison.inspection.inspect`); else it is examined here.
        expected_failures: as for `rulezoo.testing.check_rule`.
        report: likewise.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    return outcomes(task_checks_of(task, spec=spec, root=root, found=found), expected_failures, report)


def parametrize_task_checks(
    tasks: Iterable[Task | TaskSpec],
    *,
    root: Path | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """A decorator that makes one pytest test for each check of each task; see `parametrize_rule_checks`."""
    return parametrized(
        (check for task in tasks for check in task_checks_of(task, root=root)), expected_failures
    )
