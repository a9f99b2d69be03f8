"""The check of tasks and plugins before the first training, as the process that compares sees it.

Their code runs in guarded processes (`rulezoo.comparison.guard`); only sentences and numbers come back, no data.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from rulezoo.comparison import guard
from rulezoo.comparison.examination import READING, Examination, Examine, Load, answer
from rulezoo.comparison.guard import LIMIT, Death
from rulezoo.discovery import plugins
from rulezoo.discovery.plugins import FILES, Source
from rulezoo.errors import PluginError, UserError
from rulezoo.processes import server
from rulezoo.task import DataMissing

if TYPE_CHECKING:
    from rulezoo.comparison.plan import Cell
    from rulezoo.comparison.request import Request

_SECONDS = 600.0  # that a step of the check may take, unless the limit is set
_DOWNLOADING = 3600.0  # likewise, where data sets may be downloaded
_OWN = "rulezoo"  # the distribution that ships this very code, which needs no guard


class TaskError(UserError):
    """Tasks that cannot be trained on; the message names each, and why."""


class Inspector:
    """Examines each configured task once, before it is trained on for the first time.

    Args:
        data: folder of data sets.
        download: whether data sets may be downloaded into it.
        report: called when an examination begins.
        progress: called with a sentence when data take long, e.g. to be packed.
        note: called with a task, the rules that are to be trained on it, and the depth of its deepest block, where
            that is more than one layer.

    Attributes:
        found: task and options → what was found, of the tasks that passed.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        download: bool = False,
        report: Callable[[], None] = lambda: None,
        progress: Callable[[str], None] = lambda sentence: None,
        note: Callable[[str, Sequence[str], int], None] = lambda task, rules, depth: None,
    ) -> None:
        self.data, self.download, self.report, self.note = data, download, report, note
        self.progress = progress
        self.found: dict[tuple[str, str], Examination] = {}

    @classmethod
    def of(cls, request: Request) -> Inspector:
        """One that reports nothing, for the data of a request."""
        return cls(request.data, download=request.download)

    def check(self, cells: Iterable[Cell]) -> None:
        """Examine the tasks of these cells that were not examined yet.

        Raises:
            TaskError: if a task cannot be trained on, or not with the budget; the message names all of them.
            DataMissing: if nothing is wrong but that data are not there.
        """
        cells = list(cells)
        tasks = {_key(cell): cell for cell in cells}
        tasks = {key: cell for key, cell in tasks.items() if key not in self.found}
        if tasks:
            self._examine(tasks)
        budgets = {(_key(cell), cell.budget): cell for cell in cells}
        _refuse([problem for cell in budgets.values() if (problem := self._schedule_problem(cell))], [])
        for key in tasks:
            if self.found[key].depth > 1:
                rules = sorted({cell.rule_name for cell in cells if _key(cell) == key})
                self.note(tasks[key].task_name, rules, self.found[key].depth)

    def _schedule_problem(self, cell: Cell) -> str | None:
        """Why a schedule does not go with the number of steps, which follows from the data."""
        from rulezoo.training import schedules  # brings torch

        budget, examples = cell.budget, self.found[_key(cell)].sizes["train"]
        problem = schedules.problem(budget, max(1, examples // budget.batch))
        return problem and _sentence(cell.task_name, cell.task_words, problem)

    def _examine(self, tasks: Mapping[tuple[str, str], Cell]) -> None:
        self.report()
        named = [(cell.task_name, cell.task_words) for cell in tasks.values()]
        examined = inspect(named, self.data, download=self.download, on_step=self._on_step)
        problems: list[str] = []
        missing: list[str] = []
        for (key, cell), found in zip(tasks.items(), examined, strict=True):
            if found.missing is not None:
                missing.append(found.missing)
            elif problem := refusal(cell.task_name, cell.task_words, found):
                problems.append(problem)
            else:
                self.found[key] = found
        _refuse(problems, missing)

    def _on_step(self, step: str) -> None:
        if step.startswith(READING):
            self.progress(step.removeprefix(READING))


def inspect(
    tasks: Sequence[tuple[str, Mapping[str, str]]],
    data: Path | None,
    *,
    download: bool = False,
    files: Sequence[Path] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> list[Examination]:
    """What a guarded process found of each task; what it does to that process is one of the problems.

    Args:
        tasks: the name of each, and its options as the user wrote them.
        data: folder of data sets.
        download: whether data sets may be downloaded into it.
        files: single-file plugins, in addition to those of ``$RULEZOO_PLUGINS``.
        on_step: called with each step of the examination as it begins.
    """
    root = None if data is None else str(data.expanduser().resolve())
    requests = [
        Examine(task=name, options=dict(words), data=root, download=download) for name, words in tasks
    ]
    limit = _limit(_DOWNLOADING if download else _SECONDS)
    outcomes = _run(requests, server.context(), limit, on_step, files)
    return [
        Examination(problems=[outcome.cause])
        if isinstance(outcome, Death)
        else msgspec.json.decode(outcome, type=Examination)
        for outcome in outcomes
    ]


def refusal(name: str, words: Mapping[str, str], found: Examination) -> str | None:
    """Why a task cannot be trained on, in a sentence; ``None`` where it can, or where its data are not there."""
    if not found.problems:
        return None
    return _sentence(name, words, "; ".join(found.problems))


def _sentence(name: str, words: Mapping[str, str], problem: str) -> str:
    options = " ".join(f"{option}={text}" for option, text in sorted(words.items()))
    called = f"{name!r} ({options})" if options else f"{name!r}"
    return f"task {called} cannot be trained on: {problem}"


def load(request: Request) -> None:
    """Import the plugins, and make the rules and tasks, in a guarded process before they are imported here.

    What comes with rulezoo itself, and what was imported here already, is not tried again.

    Args:
        request: with the names of rules and tasks, and their options.

    Raises:
        PluginError: if the code of a plugin does not return: it hangs, crashes, or ends its process.
    """
    foreign = [source for source in _sources() if source.distribution != _OWN]
    if not foreign or all(plugins.is_loaded(source) for source in foreign):
        return
    server.context()  # it is needed soon, and imports what it needs while this process waits
    words = {name: dict(texts) for name, texts in request.options.items()}
    asked = Load(rules=list(request.rules), tasks=list(request.tasks), options=words)
    (outcome,) = _run([asked], multiprocessing.get_context("spawn"), _limit(_SECONDS))
    if isinstance(outcome, Death):
        raise PluginError(outcome.cause)


def _sources() -> list[Source]:
    return [*plugins.installed(), *plugins.single_files(())]


def _run(
    requests: Sequence[Load | Examine],
    context: object,
    limit: float,
    on_step: Callable[[str], None] = lambda step: None,
    files: Sequence[Path] = (),
) -> list[bytes | Death]:
    named = [os.environ.get(FILES, ""), *(str(path.expanduser().resolve()) for path in files)]
    environ = {
        FILES: os.pathsep.join(filter(None, named)),
        server.SAFE_PATH: os.environ.get(server.SAFE_PATH),
    }
    encoded = [msgspec.json.encode(request) for request in requests]
    return list(guard.run(answer, encoded, context, limit, environ, on_step))


def _limit(usual: float) -> float:
    text = os.environ.get(LIMIT)
    try:
        limit = usual if not text else float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise UserError(f"{LIMIT} must be a number of seconds above 0, got {text!r}")
    return limit


def _key(cell: Cell) -> tuple[str, str]:
    return cell.task_module, msgspec.json.encode(
        [cell.task_name, cell.task.resolved()], order="sorted"
    ).decode()


def _refuse(problems: Sequence[str], missing: Sequence[str]) -> None:
    said = list(dict.fromkeys([*problems, *missing]))
    if problems:
        raise TaskError(
            f"{'; '.join(said)}; nothing was trained, `rulezoo verify NAME` checks a task in full"
        )
    if missing:
        raise DataMissing("; ".join(said))
