"""A ranking as the report's table shows it: every number as text, with its drawing, and the value by which it is sorted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from rulezoo.leaderboard import plausibility, summary, words
from rulezoo.leaderboard.evaluated import Head
from rulezoo.leaderboard.ranking import by_seed, scaled, sign
from rulezoo.leaderboard.rows import DEFAULT
from rulezoo.report import strips
from rulezoo.report.commands import commands
from rulezoo.report.strips import Axis
from rulezoo.text import number

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Column
    from rulezoo.leaderboard.overview import Line, Overview
    from rulezoo.leaderboard.ranking import Cell, Ranking, Setting
    from rulezoo.leaderboard.stats import Estimate
    from rulezoo.leaderboard.verified import Verified
    from rulezoo.report.findings import Findings

BACKPROP = 100.0  #: % of backprop that backprop has
_PERCENT = ((0.0, 105.0), (-25.0, 150.0))  # ends of the axis of % of backprop: always, and at most
_WIDE, _DOTS = 132, 100  # widths of drawings


class Number(NamedTuple):
    """A number.

    Attributes:
        order: the value by which it is sorted; ``None`` = last.
        value: as text; empty where there is none.
        spread: its interval, or standard deviation.
        sign: of a difference: better, equal, worse, or empty.
        drawing: of the number; empty where it is not drawn.
        is_bold: whether it ties with the best.
        is_bad: whether a run behind it failed.
        n: number of runs, where it is not the usual one.
        notes: numbers of its footnotes.
        seeds: the score of each seed, as text.
    """

    order: float | None
    value: str = ""
    spread: str = ""
    sign: str = ""
    drawing: Markup = Markup("")
    is_bold: bool = False
    is_bad: bool = False
    n: str = ""
    notes: tuple[int, ...] = ()
    seeds: str = ""


class Mark(NamedTuple):
    """A feature of plausibility.

    Attributes:
        kind: ``has``, ``not``, ``part`` (within blocks, or in some settings), or ``word``.
        text: what stands in or next to the mark.
        words: the same in a sentence, for readers of screens and for hovering.
        is_verified: whether the mark was verified.
        letter: of the feature.
    """

    kind: str
    text: str
    words: str
    is_verified: bool
    letter: str


class Score(NamedTuple):
    """A column of a task: its score, or an evaluation of the networks that were trained."""

    key: str
    head: str
    unit: str
    task: str
    best: str
    evaluation: int | None
    column: int


class OnTask(NamedTuple):
    """What is known of a line on a task, behind its score; the remarks are options, evaluations and notes."""

    label: str
    score: Number
    difference: Number
    cost: Number
    remarks: str


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard in one ranking."""

    line: Line
    setting: Setting
    is_reference: bool
    aggregate: Number
    difference: Number
    p: str
    smallest_p: str
    cost: Number
    marks: tuple[Mark, ...]
    features: int
    without: str
    scores: tuple[Number, ...]
    on_tasks: tuple[OnTask, ...]
    commands: tuple[str, ...]
    rank: str
    kept: str
    implausible: str
    verified: str


@dataclass(frozen=True)
class Table:
    """All lines at one setting.

    Attributes:
        name: of the ranking.
        title: in words.
        answer: which rule is best, how far from backprop, and so on.
        warning: where nothing could be significant; else empty.
        by: what the order goes by.
        ticks: the axis above the first column of numbers.
        has_tests: whether there are differences to backprop.
        fields: of plausibility.
        scores: the columns of the tasks.
        rows: best first.
    """

    name: str
    title: str
    answer: str
    warning: str
    by: str
    ticks: Markup
    has_tests: bool
    fields: tuple[plausibility.Feature, ...]
    scores: tuple[Score, ...]
    rows: tuple[Row, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return 4 + self.has_tests + len(self.scores)


class _Maker:
    """What the rows of one ranking share."""

    def __init__(self, found: Findings, ranking: Ranking, columns: Sequence[int]) -> None:
        self.found, self.overview, self.ranking = found, found.overview, ranking
        self.lines = {line.label: line for line in found.overview.lines}
        self.notes = words.footnotes(found.overview)
        self.fields = plausibility.columns(line.plausibility for line in found.overview.lines)
        self.scores = list(_scores(found.overview, columns))
        self.reference = ranking.settings[ranking.reference] if ranking.reference else None
        self.axis, self.marks = _aggregate_axis(found.overview, ranking)
        self.task_axes = {i: self._task_axis(i) for i in columns}
        self.best = {
            (one.column, one.evaluation): words.best_evaluated(
                list(ranking.settings.values()),
                found.overview.columns[one.column].evaluations[one.evaluation],
                one.column,
                one.evaluation,
            )
            for one in self.scores
            if one.evaluation is not None
        }

    def _task_axis(self, i: int) -> Axis:
        """From the worst run of any ranking to the best."""
        settings = [one for ranking in self.overview.rankings for one in ranking.settings.values()]
        cells = [cell for one in settings if (cell := one.cells[i])]
        scores = [run.score for cell in cells for run in cell.runs if run.score is not None]
        low = min(scores, default=self.overview.columns[i].chance)
        return strips.axis(scores, (low, low), (low, math.inf), _DOTS)

    def rows(self, columns: Sequence[int]) -> Iterator[Row]:
        for at, (label, setting) in enumerate(self.ranking.settings.items()):
            if any(setting.cells[i] for i in columns):
                yield self._row(at, self.lines[label], setting, columns)

    def _row(self, at: int, line: Line, one: Setting, columns: Sequence[int]) -> Row:
        marks = tuple(_mark(line, field) for field in self.fields)
        implausible = plausibility.implausible(line.plausibility)
        test = one.difference
        cells = [cell for i in columns if (cell := one.cells[i])]
        is_kept = self.ranking.name != DEFAULT and line.kept == self.ranking.name
        return Row(
            line=line,
            setting=one,
            is_reference=line.label == self.ranking.reference,
            aggregate=self._aggregate(one),
            difference=_difference(test.points if test else None),
            p=words.p(one),
            smallest_p=words.p_value(test.smallest_p) if test else "",
            cost=Number(one.cost, words.cost(one)),
            marks=marks,
            features=len(implausible),
            without=" ".join(
                field for field, mark in zip(self.fields, marks, strict=True) if mark.kind == "not"
            ),
            scores=tuple(self._score(at, one, head) for head in self.scores),
            on_tasks=tuple(self._on_task(one, i) for i in columns if one.cells[i]),
            commands=tuple(commands([runs for cell in cells if (runs := self.found.runs_of(cell))])),
            rank=_rank(one, len(self.ranking.ranked)),
            kept="tuning kept the default" if is_kept else "",
            implausible=", ".join(implausible),
            verified=_verified(line.verification),
        )

    def _aggregate(self, one: Setting) -> Number:
        found = one.percent if self.ranking.by == "iqm" else one.mean_rank
        if found is None:
            notes = (self.notes[words.not_ranked(one)],) if one.gap else ()
            return Number(None, words.estimate(None)[0], notes=notes)
        value, interval = words.estimate(found)
        kind = one.difference.sign if one.difference else ""
        drawing = strips.interval(self.axis, found, self.marks, kind)
        return Number(found.value, value, interval, kind, drawing)

    def _score(self, at: int, one: Setting, head: Score) -> Number:
        cell = one.cells[head.column]
        if cell is None:
            return Number(None)
        if head.evaluation is None:
            return self.score(cell, head.column)
        mean, sd = words.evaluated(cell, head.evaluation)
        value = cell.evaluations[head.evaluation]
        return Number(
            value.mean if value else None,
            mean,
            f"± {sd}" if sd else "",
            is_bold=at in self.best[head.column, head.evaluation],
            n=words.evaluated_suffix(cell, head.evaluation),
        )

    def score(self, cell: Cell, i: int) -> Number:
        """Mean and spread of a cell, with a dot for each seed."""
        mean, sd = words.score(cell)
        axis = self.task_axes[i]
        scores = [run.score for run in cell.runs if run.score is not None]
        failed = [self.overview.columns[i].chance for run in cell.runs if run.score is None]
        reference = self.reference.cells[i] if self.reference else None
        marks = [reference.mean] if reference and reference.mean is not None else []
        return Number(
            cell.mean,
            mean,
            f"± {sd}" if sd else "",
            drawing=strips.dots(axis, scores, failed, marks) if cell.runs else Markup(""),
            is_bold=cell.best,
            is_bad=bool(cell.failed),
            n=f"n = {cell.n}" if cell.mean is not None and cell.n != self.overview.seeds else "",
            notes=tuple(self.notes[note] for note in cell.notes),
            seeds=", ".join("failed" if r.score is None else number(100 * r.score) for r in cell.runs),
        )

    def _on_task(self, one: Setting, i: int) -> OnTask:
        cell, column = one.cells[i], self.overview.columns[i]
        assert cell is not None
        difference = None
        if self.reference and (other := self.reference.cells[i]) and one is not self.reference:
            difference = on_task(cell, other, column)
        return OnTask(
            label=column.label,
            score=self.score(cell, i),
            difference=_difference(difference),
            cost=_cost(cell),
            remarks="; ".join(filter(None, [cell.setting, *_evaluations(column, cell), *cell.notes])),
        )


def tables(found: Findings) -> list[Table]:
    """One for each ranking, with all tasks; the one to show first is the first."""
    columns = range(len(found.overview.columns))
    made = [_table(found, ranking, columns) for ranking in found.overview.rankings]
    return sorted(made, key=lambda table: table.name != first(found.overview))


def of_task(found: Findings, i: int) -> list[Table]:
    """One for each ranking that has runs on a task, the best score first."""
    made = []
    for table in (_table(found, ranking, [i]) for ranking in found.overview.rankings):
        rows = sorted(table.rows, key=lambda row: _descending(row.on_tasks[0].score.order))
        if rows:
            made.append(Table(**{**vars(table), "rows": tuple(rows)}))
    return sorted(made, key=lambda table: table.name != first(found.overview))


def first(overview: Overview) -> str:
    """The ranking that is shown first: that of the tuned settings, unless it lacks lines that the defaults have."""
    tuned, default = overview.tuned, overview.rankings[0]
    return tuned.name if tuned and len(tuned.ranked) >= len(default.ranked) else default.name


def on_task(cell: Cell, other: Cell, column: Column) -> Estimate | None:
    """Mean difference of two cells' scores in %, over the seeds that both have, with its 95 % interval."""
    from rulezoo.leaderboard import stats

    if cell.mean is None or other.mean is None:
        return None
    found = stats.difference(by_seed(cell, column.chance), by_seed(other, column.chance))
    return found and scaled(found, 100)


def _table(found: Findings, ranking: Ranking, columns: Sequence[int]) -> Table:
    maker = _Maker(found, ranking, columns)
    return Table(
        name=ranking.name,
        title="Default"
        if ranking.name == DEFAULT
        else f"Tuned ({ranking.name.removeprefix('tuned-')} trials)",
        answer=summary.answer(found.overview, ranking),
        warning=summary.warning(ranking),
        by=ranking.by,
        ticks=strips.ticks(maker.axis, (0, 50, 100)) if ranking.by == "iqm" else Markup(""),
        has_tests=any(one.difference for one in ranking.settings.values()),
        fields=tuple(plausibility.feature(field) for field in maker.fields),
        scores=tuple(maker.scores),
        rows=tuple(maker.rows(columns)),
    )


def _scores(overview: Overview, columns: Iterable[int]) -> Iterator[Score]:
    for i in columns:
        column = overview.columns[i]
        yield Score(f"task.{column.label}", column.label, f"{column.metric} %", column.task, "high", None, i)
        for j, head in enumerate(column.evaluations):
            yield Score(
                f"task.{column.label}.{head.label}", head.label, head.value, column.task, _better(head), j, i
            )


def _better(head: Head) -> str:
    return "low" if head.higher_is_better is False else "high"


def _aggregate_axis(overview: Overview, ranking: Ranking) -> tuple[Axis, tuple[float, ...]]:
    """The axis of % of backprop, which is the same in all rankings; without it, that of the mean rank."""
    if ranking.by != "iqm":
        size = float(max(2, len(ranking.settings)))
        return strips.axis((), (1.0, size), (1.0, size), _WIDE), (1.0,)
    shown = [
        end
        for one in overview.rankings
        for setting in one.settings.values()
        if setting.percent
        for end in (setting.percent.low, setting.percent.high)
    ]
    return strips.axis(shown, *_PERCENT, _WIDE), (0.0, BACKPROP)


def _difference(points: Estimate | None) -> Number:
    if points is None:
        return Number(None)
    value, interval = words.estimate(points, signed=True)
    return Number(points.value, value, interval, sign(points))


def _cost(cell: Cell) -> Number:
    if cell.mixed:
        return Number(None, "mixed hardware")
    if cell.cost is None:
        return Number(None, "–" if cell.short else "")
    return Number(cell.cost, f"×{cell.cost:.2f}")


def _evaluations(column: Column, cell: Cell) -> Iterator[str]:
    for j, head in enumerate(column.evaluations):
        mean, sd = words.evaluated(cell, j)
        if mean:
            yield f"{head.label}: {head.value} {mean}{f' ± {sd}' if sd else ''}"


def _rank(one: Setting, ranked: int) -> str:
    if one.rank is None:
        return f"Not ranked: {one.gap}." if one.gap else ""
    tied = ", tied" if one.rank.tied else ""
    return f"Rank {one.rank.value} of {ranked}{tied}, 95 % CI [{one.rank.low}, {one.rank.high}]."


def _verified(one: Verified | None) -> str:
    if one is None:
        return ""
    if one.state != "verified":
        return f"{one.state}: {one.reason}"
    options = "" if one.own_options else ", with the author's default options"
    return f"{one.passed} checks passed (version {one.version}{options})"


def _mark(line: Line, field: str) -> Mark:
    feature = plausibility.feature(field)
    shown = plausibility.mark(line.plausibility, field)
    kind, text = _kind(field, plausibility.symbol(line.plausibility, field))
    source = plausibility.HIDDEN if shown == plausibility.FIXED else field
    checks = line.verification.marks.get(source, ()) if line.verification and shown else ()
    said = f"{feature.name}: {shown or 'not known'}"
    said += f", verified by {', '.join(checks)}" if checks else ""
    return Mark(kind, text, said, bool(checks), feature.letter)


def _kind(field: str, symbol: str) -> tuple[str, str]:
    """The class of a mark, and the text in it."""
    if field == plausibility.SIGNAL or not symbol:
        return "word", symbol
    if symbol == plausibility.HAS_NOT:
        return "not", ""
    if symbol == plausibility.HAS:
        return "has", ""
    number = symbol.removeprefix(plausibility.HAS).strip()
    if symbol.startswith(f"{plausibility.HAS} ") and "/" not in symbol:
        return "has", number.split()[0]
    return "part", symbol.removeprefix("within blocks of ") if symbol.startswith("within") else ""


def _descending(order: float | None) -> float:
    return float("inf") if order is None else -order
