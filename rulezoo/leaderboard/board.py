"""The table of results as a value: what a cell, a row and a column are, and how rows are ordered.

A **row** is everything that was asked of a rule: its name, version and options. A **column** is everything
else that was asked but the seed: the task with its version and options, the budget without the rule's own
learning rate and weight decay, the device, the precision and the runner's protocol. So results under
different budgets or on different devices never meet in one cell: they stand in columns of their own, headed
by what tells them apart. A **cell** is what is left: the seeds.

A run that failed or diverged counts at chance level, so that a rule gains nothing by failing. A run that was
interrupted is no result yet: it is named and does not count. A rule is ranked when it has all the runs that
backprop has, finished or failed; one that lacks a run, or skips a task, stands below the ranked ones
(`rulezoo.leaderboard.scores` has the policy, and the order is that of `rulezoo.leaderboard.stats.summarise`).

What a tuning chose may differ from task to task: see `rulezoo.leaderboard.rows`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rulezoo.leaderboard import names
from rulezoo.leaderboard.evaluated import Evaluations, Head, Summary
from rulezoo.leaderboard.grid import Grid, cost, is_too_short, test_score
from rulezoo.leaderboard.marks import Declared
from rulezoo.leaderboard.verified import Verifications, Verified
from rulezoo.results.freshness import mixed_data
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.names import Facts
    from rulezoo.leaderboard.scores import Standing
    from rulezoo.results.records import Record
    from rulezoo.specs import RuleSpec

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
        evaluations: the evaluations of the networks that were trained here.
    """

    task: str
    detail: str
    metric: str
    chance: float
    conditions: Facts
    hardware: tuple[str, ...]
    evaluations: tuple[Head, ...] = ()

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
        short: whether too few steps were timed to say what they cost.
        notes: sentences on whatever went wrong.
        setting: what a tuner chose here, e.g. ``lr=0.0032``; empty unless the row was tuned.
        evaluations: one for each of the column's; ``None`` where it was not carried out.
    """

    n: int
    failed: int = 0
    skipped: bool = False
    mean: float | None = None
    sd: float | None = None
    cost: float | None = None
    mixed: bool = False
    short: bool = False
    notes: tuple[str, ...] = ()
    setting: str = ""
    evaluations: tuple[Summary | None, ...] = ()


@dataclass(frozen=True)
class Row:
    """One variant of a rule.

    Attributes:
        rule: its name.
        version: of the rule.
        options: all of them; of a row that was tuned, those that the user gave.
        label: name, and the options that tell the variant from the author's default and from its neighbours.
        cells: one for each column; ``None`` where nothing was run.
        score: interquartile mean of its runs' scores between chance (0) and backprop (1), of the runs it has;
            ``None`` where there is no backprop to measure by.
        gap: why it is not ranked, in words, and so stands below the others; empty if it is.
        plausibility: name → mark.
        ruleset: ``default``, ``set`` where the user set options, or, e.g., ``tuned-8``.
        kept: tunings, e.g. ``tuned-8``, that chose these options on every task and so have no row of their own.
        verification: whether the rule passed the conformance suite; ``None`` where it is not known.
    """

    rule: str
    version: int
    options: Facts
    label: str
    cells: tuple[Cell | None, ...]
    score: float | None
    gap: str
    plausibility: dict[str, str]
    ruleset: str
    kept: tuple[str, ...] = ()
    verification: Verified | None = None

    @property
    def rulesets(self) -> str:
        """All that the row stands for, e.g. ``default tuned-8``."""
        return " ".join([self.ruleset, *self.kept])


@dataclass(frozen=True)
class Board:
    """The table: columns by task, rows from the best to the worst.

    Attributes:
        columns: `Column`, in order.
        rows: `Row`, in order.
        seeds: number of seeds that most cells have.
        reference: label of the row that counts as 1 in `Row.score`, backprop's; ``None`` where it is not there:
            then the rows are ordered by their mean rank over the columns.
    """

    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    seeds: int = 0
    reference: str | None = None

    @property
    def shows_verifications(self) -> bool:
        """Whether a verification of any row is stored."""
        return any(row.verification for row in self.rows)

    @property
    def shows_evaluations(self) -> bool:
        """Whether an evaluation of any network is stored."""
        return any(column.evaluations for column in self.columns)


def of(
    grid: Grid,
    specs: Mapping[str, RuleSpec] | None = None,
    stale: Callable[[Record], str | None] = lambda record: None,
    verifications: Verifications | None = None,
    evaluations: Evaluations | None = None,
) -> Board:
    """The table of an arrangement that has rows.

    Args:
        grid: the runs, arranged.
        specs: name of a rule → its spec, which declares its plausibility.
        stale: why a record may be out of date, if it may; see `rulezoo.results.freshness`.
        verifications: outcomes of ``rulezoo verify``.
        evaluations: of the trained networks.
    """
    from rulezoo.leaderboard.scores import standings

    marks = Declared(specs or {})
    shown = [run for row, column in grid.cells for run in grid.runs(row, column)]
    mixed = mixed_data(shown)
    known, measured = verifications or Verifications(), _Measured(grid, evaluations or Evaluations())
    rows = [
        _row(grid, standing, marks, stale, mixed, known, measured) for standing in standings(grid.scores())
    ]
    sizes = Counter(cell.n for row in rows for cell in row.cells if cell and cell.mean is not None)
    return Board(
        columns=tuple(_columns(grid, measured)),
        rows=tuple(rows),
        seeds=max(sizes, key=lambda n: (sizes[n], n), default=0),
        reference=grid.reference,
    )


def _columns(grid: Grid, measured: _Measured) -> Iterator[Column]:
    for (label, group), detail in zip(grid.columns.items(), grid.details, strict=True):
        yield Column(
            task=group[0].asked.task,
            detail=detail,
            metric=clean(group[-1].metric),
            chance=group[-1].chance,
            conditions=names.safe(names.conditions(group[0].asked)),
            hardware=tuple(
                sorted({names.machine(h) for h in {r.answered.hardware for r in group if r.cost}})
            ),
            evaluations=measured.heads[label],
        )


class _Measured:
    """The evaluations of the runs in a grid, by column and cell."""

    def __init__(self, grid: Grid, evaluations: Evaluations) -> None:
        runs = {
            column: [run for row in grid.rows for run in grid.runs(row, column)] for column in grid.columns
        }
        self.heads = {column: evaluations.heads(found) for column, found in runs.items()}
        self._data = {
            (column, head): evaluations.usual_data(head, runs[column])
            for column, heads in self.heads.items()
            for head in heads
        }
        self._evaluations = evaluations

    def of(self, column: str, runs: Sequence[Record]) -> tuple[Summary | None, ...]:
        """Those of some runs of a column, one for each of its heads."""
        return tuple(
            self._evaluations.summary(head, runs, self._data[column, head]) for head in self.heads[column]
        )


def _cell(latest: list[Record], old: int) -> Cell:
    """A cell of some runs, one for each seed, ``old`` others being left out."""
    counted = [r for r in latest if r.status != "interrupted"]
    notes = _notes(latest) + _compiled_notes(counted)
    if old:
        notes += (f"left out: {old} older runs of the same seeds, under another lr or weight decay",)
    if counted and all(r.status == "skipped" for r in counted):
        return Cell(n=len(counted), skipped=True, notes=notes)
    if not counted:
        return Cell(n=0, notes=notes)
    scores = [r.chance if (s := test_score(r)) is None else s for r in counted]
    ratios = [ratio for r in counted if (ratio := cost(r)) is not None]
    mixed = len({(r.answered.hardware, r.answered.compiled) for r in counted if r.cost}) > 1
    return Cell(
        n=len(counted),
        failed=sum(test_score(r) is None for r in counted),
        mean=(mean := math.fsum(scores) / len(scores)),
        sd=math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
        if len(scores) > 1
        else None,
        cost=statistics.median(ratios) if ratios and not mixed else None,
        mixed=mixed and bool(ratios),
        short=not ratios and any(map(is_too_short, counted)),
        notes=notes,
    )


def _notes(runs: list[Record]) -> tuple[str, ...]:
    said = Counter(_said(r) for r in runs if test_score(r) is None)
    if len(said) == 1 and all(r.status == "skipped" for r in runs):
        return tuple(said)  # every seed says the same
    return tuple(f"{words} ({k} of {len(runs)})" for words, k in sorted(said.items()))


def _compiled_notes(runs: list[Record]) -> tuple[str, ...]:
    """Of costs that are not those of the others: the rule's steps were compiled, and backprop's as well."""
    compiled = sum(r.answered.compiled for r in runs)
    return (f"compiled by torch.compile ({compiled} of {len(runs)})",) if compiled else ()


def _stale_notes(runs: list[Record], stale: Callable[[Record], str | None]) -> tuple[str, ...]:
    said = Counter(clean(reason) for r in runs if (reason := stale(r)))
    return tuple(f"stale: {words} ({k} of {len(runs)})" for words, k in sorted(said.items()))


def _data_notes(row: str, runs: list[Record], mixed: Mapping[str, str]) -> tuple[str, ...]:
    """Which seeds were trained on other data than the rest of the table."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        if sentence := mixed.get(run.asked.key):
            seeds[sentence].append(str(run.asked.seed))
    return tuple(
        f"mixed data: {row}, seed{'s' * (len(which) > 1)} {', '.join(which)}: {sentence}"
        for sentence, which in sorted(seeds.items())
    )


def _said(record: Record) -> str:
    status = "no test score" if record.status == "ok" else record.status.replace("_", " ")
    reason = clean(record.reason or "")
    reason = reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"
    return f"{status}: {reason}" if reason else status


def _row(
    grid: Grid,
    standing: Standing,
    marks: Declared,
    stale: Callable[[Record], str | None],
    mixed: Mapping[str, str],
    verifications: Verifications,
    measured: _Measured,
) -> Row:
    group = grid.rows[standing.rule]
    asked = group.runs[0].asked
    runs = [run for column in grid.columns for run in grid.runs(standing.rule, column)]
    plausibility = marks.of(runs)
    return Row(
        rule=asked.rule,
        version=asked.rule_version,
        options=group.options,
        label=standing.rule,
        cells=tuple(
            _cell_at(grid, standing.rule, column, marks, stale, mixed, measured) for column in grid.columns
        ),
        score=standing.score,
        gap=standing.gap,
        plausibility=plausibility,
        ruleset=group.ruleset,
        kept=group.kept,
        verification=verifications.of(runs, plausibility),
    )


def _cell_at(
    grid: Grid,
    row: str,
    column: str,
    marks: Declared,
    stale: Callable[[Record], str | None],
    mixed: Mapping[str, str],
    measured: _Measured,
) -> Cell | None:
    latest = grid.runs(row, column)
    old = len(grid.cells.get((row, column), ())) - len(latest)
    if not latest:
        return None
    cell = _cell(latest, old)
    setting = grid.settings.get((row, column), "")
    evaluations = measured.of(column, latest)
    notes = (
        *cell.notes,
        *marks.notes(latest),
        *_stale_notes(latest, stale),
        *_data_notes(row, latest, mixed),
        *(note for one in evaluations if one for note in one.notes),
    )
    return replace(cell, setting=setting, notes=notes, evaluations=evaluations)
