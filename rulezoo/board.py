"""The table of results as a value: what a cell, a row and a column are, and how rows are ordered.

A **row** is everything that was asked of a rule: its name, version and options. A **column** is everything
else that was asked but the seed: the task with its version and options, the budget without the rule's own
learning rate and weight decay, the device, the precision and the runner's protocol. So results under
different budgets or on different devices never meet in one cell: they stand in columns of their own, headed
by what tells them apart. A **cell** is what is left: the seeds.

What a tuning chose may differ from task to task: see `rulezoo.board_rows`.

A run that failed or diverged counts at chance level, so that a rule gains nothing by failing. A run that was
interrupted is no result yet: it is named and does not count.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rulezoo import board_names as names
from rulezoo import board_rows
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.board_names import Facts, Identity
    from rulezoo.board_rows import Group
    from rulezoo.records import Asked, Record
    from rulezoo.specs import Plausibility
    from rulezoo.tuning.records import Tuned

Format = Literal["table", "md", "csv", "json"]
LONGEST = 300  # characters of a reason; the record has it whole


@dataclass(frozen=True)
class Column:
    """A task under one set of conditions.

    Attributes:
        task: its name.
        detail: what tells it from the other columns of the task, e.g. ``10 epochs``; else empty.
        metric: name of the score.
        chance: the score of guessing, as a fraction of 1.
        conditions: everything that was asked, by name.
        hardware: the classes of machine that the costs were measured on, in words.
    """

    task: str
    detail: str
    metric: str
    chance: float
    conditions: Facts
    hardware: tuple[str, ...]

    @property
    def label(self) -> str:
        """The task, and what tells it from the other columns of the task."""
        return f"{self.task} ({self.detail})" if self.detail else self.task


@dataclass(frozen=True)
class Cell:
    """The runs of one row in one column.

    Attributes:
        n: seeds that count.
        failed: how many of them count at chance level because they failed or diverged.
        skipped: whether the rule said that it cannot serve the task.
        mean: mean test score over the seeds, as a fraction of 1; ``None`` if skipped or if no run counts.
        sd: sample standard deviation over the seeds; ``None`` for one seed.
        cost: time of a training step over backprop's, median over the seeds; ``None`` if not known or mixed.
        mixed: whether the costs come from different hardware, so that they have no common median.
        notes: sentences on whatever went wrong.
        setting: what a tuner chose here, e.g. ``lr=0.0032``; empty unless the row was tuned.
    """

    n: int
    failed: int = 0
    skipped: bool = False
    mean: float | None = None
    sd: float | None = None
    cost: float | None = None
    mixed: bool = False
    notes: tuple[str, ...] = ()
    setting: str = ""


@dataclass(frozen=True)
class Row:
    """One variant of a rule.

    Attributes:
        rule: its name.
        version: of the rule.
        options: all of them; of a row that was tuned, those that the user gave.
        label: name, and the options that tell the variant from the author's default and from its neighbours.
        cells: one for each column; ``None`` where nothing was run.
        score: mean over the columns of the score between chance (0) and backprop (1), skipped columns at 0.
        complete: whether every column has a score or was skipped; rows with a gap stand below the others.
        plausibility: name → mark.
        ruleset: ``default``, ``set`` where the user set options, or, e.g., ``tuned-8``.
    """

    rule: str
    version: int
    options: Facts
    label: str
    cells: tuple[Cell | None, ...]
    score: float
    complete: bool
    plausibility: dict[str, str]
    ruleset: str


@dataclass(frozen=True)
class Board:
    """The table: columns by task, rows from the best to the worst.

    Attributes:
        columns: `Column`, in order.
        rows: `Row`, in order.
        seeds: number of seeds that most cells have.
        reference: what counts as 1 in `Row.score`: ``backprop``, or ``the best`` where backprop is not there.
    """

    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    seeds: int = 0
    reference: str = "backprop"


def build(
    records: Iterable[Record],
    *,
    tasks: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    plausibility: Mapping[str, Plausibility | None] | None = None,
    tunings: Iterable[Tuned] = (),
) -> Board:
    """Make the table; the order of the records is of no importance.

    Args:
        records: of any rules and tasks.
        tasks: names of the tasks to show, in this order; all, by name, if not given.
        rules: names of the rules to show; all if not given.
        plausibility: name of a rule → what its spec declares.
        tunings: the winners of which get rows of their own.
    """
    chosen = [
        r
        for r in records
        if (tasks is None or r.asked.task in tasks) and (rules is None or r.asked.rule in rules)
    ]
    chosen.sort(key=lambda r: (r.answered.finished, r.asked.key))  # the latest of equals comes last
    by_column = _grouped(chosen, names.conditions)
    groups = board_rows.groups(chosen, tunings)
    order = sorted(by_column, key=lambda c: _column_order(by_column[c][0].asked, tasks))
    columns = _columns([by_column[c] for c in order])
    cells = {row: _cells(group, order) for row, group in groups.items()}
    backprop = {row for row in groups if dict(row)["rule"] == "backprop"}
    ones = [_one([(cells[row][i], row in backprop) for row in groups]) for i in range(len(columns))]
    marks = {name: declared.marks() for name, declared in (plausibility or {}).items() if declared}
    rows = [
        _row(group, cells[row], _score(cells[row], columns, ones), marks) for row, group in groups.items()
    ]
    sizes = Counter(cell.n for row in rows for cell in row.cells if cell and cell.mean is not None)
    return Board(
        columns=columns,
        rows=tuple(sorted(rows, key=lambda r: (not r.complete, -r.score, r.label))),
        seeds=max(sizes, key=lambda n: (sizes[n], n), default=0),
        reference="backprop" if backprop else "the best",
    )


def render(
    board: Board,
    format: Format = "table",  # noqa: A002  the name of the command line's option
    *,
    width: int = 100,
    color: bool = False,
) -> str:
    """Write the table; the same board gives the same bytes.

    Args:
        board: from `build`.
        format: ``table`` and ``md`` for reading, scores in %; ``csv`` (one line per cell) and ``json`` for
            machines, scores as fractions of 1.
        width: characters in a line of ``table``; columns that do not fit go into a second table below.
        color: whether ``table`` may use bold and colours; without it there is no control character.

    Raises:
        ValueError: if the format is not known.
    """
    from rulezoo import board_text

    match format:
        case "table":
            return board_text.table(board, width, color)
        case "md":
            return board_text.markdown(board)
        case "csv":
            return board_text.csv(board)
        case "json":
            return board_text.json(board)
    raise ValueError(f"format must be table, md, csv or json, got {format!r}")


def _grouped(records: list[Record], by: Callable[[Asked], Facts]) -> dict[Identity, list[Record]]:
    groups: dict[Identity, list[Record]] = defaultdict(list)
    for record in records:
        groups[names.identity(by(record.asked))].append(record)
    return groups


def _column_order(asked: Asked, tasks: Sequence[str] | None) -> tuple[int, str, float, str]:
    position = tasks.index(asked.task) if tasks is not None else 0
    epochs = asked.budget.get("epochs")
    length = float(epochs) if isinstance(epochs, int | float) else 0.0
    return position, asked.task, length, repr(names.conditions(asked))


def _columns(groups: list[list[Record]]) -> tuple[Column, ...]:
    conditions = [names.conditions(group[0].asked) for group in groups]
    return tuple(
        Column(
            task=group[0].asked.task,
            detail=names.detail(mine, [other for other in conditions if other["task"] == mine["task"]]),
            metric=clean(group[-1].metric),
            chance=group[-1].chance,
            conditions=names.safe(mine),
            hardware=tuple(sorted({names.machine(r.answered.hardware) for r in group if r.cost})),
        )
        for group, mine in zip(groups, conditions, strict=True)
    )


def _cells(group: Group, order: Sequence[Identity]) -> tuple[Cell | None, ...]:
    by_column = _grouped(group.runs, names.conditions)
    return tuple(
        replace(_cell(by_column[column]), setting=group.settings.get(column, ""))
        if column in by_column
        else None
        for column in order
    )


def _cell(runs: list[Record]) -> Cell:
    latest = {r.asked.seed: r for r in runs}
    counted = [r for r in latest.values() if r.status != "interrupted"]
    notes = _notes(list(latest.values()))
    if len(runs) > len(latest):
        old = len(runs) - len(latest)
        notes += (f"left out: {old} older runs of the same seeds, under another lr or weight decay",)
    if counted and all(r.status == "skipped" for r in counted):
        return Cell(n=len(counted), skipped=True, notes=notes)
    if not counted:
        return Cell(n=0, notes=notes)
    scores = [r.chance if (s := _test_score(r)) is None else s for r in counted]
    ratios = [r.cost.ratio for r in counted if r.cost]
    mixed = len({r.answered.hardware for r in counted if r.cost}) > 1
    return Cell(
        n=len(counted),
        failed=sum(_test_score(r) is None for r in counted),
        mean=statistics.fmean(scores),
        sd=statistics.stdev(scores) if len(scores) > 1 else None,
        cost=statistics.median(ratios) if ratios and not mixed else None,
        mixed=mixed,
        notes=notes,
    )


def _test_score(record: Record) -> float | None:
    """``None`` when the run counts at chance level."""
    score = record.scores.get("test") if record.status == "ok" else None
    return score if score is not None and math.isfinite(score) else None


def _notes(runs: list[Record]) -> tuple[str, ...]:
    said = Counter(_said(r) for r in runs if _test_score(r) is None)
    if len(said) == 1 and all(r.status == "skipped" for r in runs):
        return tuple(said)  # every seed says the same
    return tuple(f"{words} ({k} of {len(runs)})" for words, k in sorted(said.items()))


def _said(record: Record) -> str:
    status = "no test score" if record.status == "ok" else record.status.replace("_", " ")
    reason = clean(record.reason or "")
    reason = reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"
    return f"{status}: {reason}" if reason else status


def _one(column: list[tuple[Cell | None, bool]]) -> float:
    """The mean score that counts as 1: of backprop, or the best where backprop has none.

    Args:
        column: its cells, each with whether it is backprop's.
    """
    means = [(cell.mean, is_backprop) for cell, is_backprop in column if cell and cell.mean is not None]
    backprop = [mean for mean, is_backprop in means if is_backprop]
    return max(backprop or [mean for mean, _ in means], default=0.0)


def _score(cells: Sequence[Cell | None], columns: Sequence[Column], ones: Sequence[float]) -> float:
    shares = []
    for cell, column, one in zip(cells, columns, ones, strict=True):
        if cell and cell.skipped:
            shares.append(0.0)
        elif cell and cell.mean is not None:
            shares.append((cell.mean - column.chance) / (one - column.chance) if one > column.chance else 0.0)
    return statistics.fmean(shares) if shares else 0.0


def _row(
    group: Group,
    cells: tuple[Cell | None, ...],
    score: float,
    marks: Mapping[str, dict[str, str]],
) -> Row:
    asked = group.runs[0].asked
    return Row(
        rule=asked.rule,
        version=asked.rule_version,
        options=group.options,
        label=group.label,
        cells=cells,
        score=score,
        complete=all(cell and (cell.skipped or cell.mean is not None) for cell in cells),
        plausibility={clean(name): clean(mark) for name, mark in marks.get(asked.rule, {}).items()},
        ruleset=group.ruleset,
    )
