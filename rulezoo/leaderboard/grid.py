"""Records arranged as the table that a leaderboard shows: which runs stand in which row, column and cell.

`rulezoo.leaderboard.names` says what tells rows and columns apart. The same arrangement is what the statistics see: a row
is a rule to them, a column a task, and of several runs of one seed the latest counts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rulezoo.leaderboard import names
from rulezoo.leaderboard import rows as board_rows
from rulezoo.specs import family_of

if TYPE_CHECKING:
    from rulezoo.leaderboard.names import Identity
    from rulezoo.leaderboard.rows import Group
    from rulezoo.leaderboard.scores import Scores, Status
    from rulezoo.results.records import Record, RunSpec
    from rulezoo.specs import TaskSpec
    from rulezoo.tuning.records import Tuned

Runs = tuple["Record", ...]

REFERENCE = "backprop"  #: the rule that others are measured against
LEAST_TIMED = 30  #: steps; the costs of one rule in runs of fewer were seen to differ by a factor of fifty
FLOOR = "frozen"  #: the rule that trains the read-out only
NETWORKS = ("mlp", "cnn", "rnn", "snn")  #: tags of tasks, in the order in which the tasks are shown


@dataclass(frozen=True)
class Grid:
    """Rows, columns and the runs in their cells.

    Attributes:
        rows: label → its runs and options; a label stands for one variant of a rule.
        columns: label → its runs; a label stands for a task under one set of conditions.
        details: for each column, what tells it from the others of its task.
        cells: ``(row, column)`` → its runs, the latest last.
        settings: ``(row, column)`` → what a tuner chose, where the row was tuned.
    """

    rows: Mapping[str, Group]
    columns: Mapping[str, Runs]
    details: tuple[str, ...]
    cells: Mapping[tuple[str, str], Runs]
    settings: Mapping[tuple[str, str], str]

    def runs(self, row: str, column: str) -> list[Record]:
        """Of each seed the latest run, in the order of the seeds; empty where nothing was run."""
        return self._latest.get((row, column), [])

    @cached_property
    def _latest(self) -> dict[tuple[str, str], list[Record]]:
        latest = {place: {r.asked.seed: r for r in runs} for place, runs in self.cells.items()}
        return {place: [by_seed[seed] for seed in sorted(by_seed)] for place, by_seed in latest.items()}

    @property
    def reference(self) -> str | None:
        """The row that is 1 on the normalised scale: backprop's; ``None`` without one."""
        return self._row_of(REFERENCE)

    @property
    def floor(self) -> str | None:
        """The row of the rule that leaves the hidden layers alone; ``None`` without one."""
        return self._row_of(FLOOR)

    def _row_of(self, rule: str) -> str | None:
        """Of the variants of a rule, the one with most runs."""
        mine = [row for row, group in self.rows.items() if group.runs[0].asked.rule == rule]
        return min(mine, key=lambda row: (-len(self.rows[row].runs), len(row), row), default=None)

    def scores(self) -> Scores:
        """What the statistics need."""
        return self._scores

    @cached_property
    def _scores(self) -> Scores:
        from rulezoo.leaderboard.scores import Run, Scores

        runs = [
            Run(row, column, r.asked.seed, status(r), test_score(r))
            for row, column in self.cells
            for r in self.runs(row, column)
        ]
        chance = {column: group[-1].chance for column, group in self.columns.items()}
        return Scores.of(runs, chance, self.reference)


def arrange(
    records: Iterable[Record],
    *,
    tasks: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    tunings: Iterable[Tuned] = (),
    task_specs: Mapping[str, TaskSpec] | None = None,
) -> Grid:
    """Arrange records; their order is of no importance.

    Args:
        records: of any rules and tasks.
        tasks: names of the tasks to show, in this order; all, by kind of network and name, if not given.
        rules: names of the rules to show; all if not given.
        tunings: the winners of which get rows of their own.
        task_specs: name of a task → its spec, whose tags tell the kind of network; see `NETWORKS`.
    """
    chosen = [
        r
        for r in records
        if (tasks is None or r.asked.task in tasks) and (rules is None or r.asked.rule in rules)
    ]
    chosen.sort(key=lambda r: (r.answered.finished, r.asked.key))  # the latest of equals comes last
    answers = names.Answers()
    by_column: dict[Identity, list[Record]] = defaultdict(list)
    for record in chosen:
        by_column[answers(record.asked)[1]].append(record)
    order = sorted(by_column, key=lambda c: _column_order(by_column[c][0].asked, tasks, task_specs or {}))
    details = _details([by_column[column] for column in order])
    tasks_in_order = [by_column[column][0].asked.task for column in order]
    heads = dict(zip(order, _distinct(map(_head, tasks_in_order, details)), strict=True))
    groups = board_rows.groups(chosen, tunings, answers)
    rows = dict(zip(_distinct(group.label for group in groups.values()), groups.values(), strict=True))
    cells: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for label, group in rows.items():
        for record in group.runs:
            cells[label, heads[answers(record.asked)[1]]].append(record)
    return Grid(
        rows=rows,
        columns={heads[column]: tuple(by_column[column]) for column in order},
        details=tuple(details),
        cells={key: tuple(runs) for key, runs in cells.items()},
        settings={
            (label, heads[column]): words
            for label, group in rows.items()
            for column, words in group.settings.items()
            if column in heads
        },
    )


def test_score(record: Record) -> float | None:
    """The test score as a fraction of 1; ``None`` when there is none, as when the run failed."""
    score = record.scores.get("test") if record.status == "ok" else None
    return score if score is not None and math.isfinite(score) else None


def cost(record: Record) -> float | None:
    """Time of a step over backprop's; ``None`` if it was not measured, or over fewer than `LEAST_TIMED` steps."""
    if record.cost is None or is_too_short(record):
        return None
    return record.cost.ratio


def is_too_short(record: Record) -> bool:
    """Whether so few steps were timed that their times say nothing; where the curve is not known, it is not known either."""
    return bool(record.cost and record.curve) and record.curve[-1].step < LEAST_TIMED


def status(record: Record) -> Status:
    """How the statistics count a run: one that was interrupted is still to be made."""
    if record.status in ("skipped", "interrupted"):
        return "skipped" if record.status == "skipped" else "missing"
    return "failed" if test_score(record) is None else "finished"


def _column_order(
    asked: RunSpec, tasks: Sequence[str] | None, specs: Mapping[str, TaskSpec]
) -> tuple[int, str, float, str]:
    position = tasks.index(asked.task) if tasks is not None else _kind(specs.get(family_of(asked.task)))
    epochs = asked.budget.get("epochs")
    length = float(epochs) if isinstance(epochs, int | float) else 0.0  # a budget may be of any kind
    return position, asked.task, length, repr(names.conditions(asked))


def _kind(spec: TaskSpec | None) -> int:
    """The position of a task's kind of network among `NETWORKS`; that of a task of no known kind is the last."""
    kinds = [NETWORKS.index(tag) for tag in (spec.tags if spec else ()) if tag in NETWORKS]
    return min(kinds, default=len(NETWORKS))


def _details(groups: Sequence[Sequence[Record]]) -> list[str]:
    conditions = [names.conditions(group[0].asked) for group in groups]
    return [
        names.detail(mine, [other for other in conditions if other["task"] == mine["task"]])
        for mine in conditions
    ]


def _head(task: str, detail: str) -> str:
    return f"{task} ({detail})" if detail else task


def _distinct(labels: Iterable[str]) -> list[str]:
    """The labels, numbered where cleaning has made two of them the same."""
    seen: Counter[str] = Counter()
    numbered = []
    for label in labels:
        seen[label] += 1
        numbered.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return numbered
