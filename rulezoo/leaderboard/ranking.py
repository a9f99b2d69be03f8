"""All lines of a leaderboard at one setting: ranked, compared with backprop, and tested as one family."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from rulezoo.leaderboard import board as measured
from rulezoo.leaderboard.grid import REFERENCE, Grid, cost, test_score
from rulezoo.leaderboard.rows import DEFAULT, SET
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard import stats
    from rulezoo.leaderboard.board import Row
    from rulezoo.leaderboard.stats import Comparison, Estimate

Sign = Literal["better", "equal", "worse", "unknown"]
By = Literal["iqm", "mean_rank"]


@dataclass(frozen=True)
class Run:
    """One run of a cell.

    Attributes:
        seed: its seed.
        score: on test data, as a fraction of 1; ``None`` where it failed, and so counts at chance level.
        status: ``ok``, or how it failed.
        key: of its record.
        cost: time of a training step relative to backprop's in the same run; ``None`` where it was not measured.
    """

    seed: int
    score: float | None
    status: str
    key: str
    cost: float | None


@dataclass(frozen=True)
class Cell(measured.Cell):
    """The runs of one setting on one task.

    Attributes:
        runs: those that count, by seed.
        best: whether its mean is the highest of the ranking, or the 95 % interval of the paired difference to the highest
            contains 0.
    """

    runs: tuple[Run, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Rank:
    """Position in a ranking: 1 = best, and equal rules share the better one.

    Attributes:
        value: the rank.
        low: lower end of its 95 % bootstrap interval.
        high: upper end of the interval.
        tied: whether another rule has the same rank.
    """

    value: int
    low: int
    high: int
    tied: bool


@dataclass(frozen=True)
class Difference:
    """A setting minus backprop, mean over pairs of task and seed.

    Attributes:
        points: a point is 1 % of the distance from chance to backprop; with a 95 % interval (t).
        sign: ``better`` or ``worse`` where the interval excludes 0, ``equal`` where it contains 0, ``unknown`` without one.
        p: of a paired sign-flip test, two-sided, corrected for the number of rules in the ranking (Holm).
        smallest_p: the smallest p that the number of pairs and rules allows, whatever the scores.
        pairs: number of pairs.
    """

    points: Estimate
    sign: Sign
    p: float
    smallest_p: float
    pairs: int


@dataclass(frozen=True)
class Setting:
    """A line at one setting: the author's default, what the user set, or what tuning chose.

    Attributes:
        ruleset: ``default``, ``set``, or, e.g., ``tuned-8``.
        percent: % of backprop: interquartile mean of the runs of all tasks, chance = 0 and backprop = 100, with its 95 %
            bootstrap interval; ``None`` where the setting is not ranked, or there is no backprop above chance.
        difference: to backprop; ``None`` for backprop itself, and where there is no percentage.
        cost: time of a training step relative to backprop's: median over the tasks of the median over the seeds.
        rank: in its ranking; ``None`` where the setting is not ranked.
        mean_rank: rank on each task, mean over the tasks; ``None`` likewise.
        gap: why it is not ranked, in words; empty where it is.
        cells: one for each column; ``None`` where nothing was run.
        row: label of its runs in the grid.
    """

    ruleset: str
    percent: Estimate | None
    difference: Difference | None
    cost: float | None
    rank: Rank | None
    mean_rank: Estimate | None
    gap: str
    cells: tuple[Cell | None, ...]
    row: str


@dataclass(frozen=True)
class Ranking:
    """All lines at one setting, best first: they are compared, and tested as one family.

    Attributes:
        name: ``default``, or, e.g., ``tuned-8``.
        reference: label of the line that is 100 %, backprop's; ``None`` where it is not there.
        by: what the order goes by: the interquartile mean, or the mean rank where there is no reference above chance.
        settings: label → setting, ranked lines first. Rules whose tuning kept the default take part with their default.
        tests: number of rules tested against the reference; what is tested as a default is not tested again.
        pairs: number of pairs of task and seed in a test; 0 without tests.
        smallest_p: the smallest p (Holm) that this design allows; 1 without tests.
        tuned_reference: whether the reference is tuned, too, so that percentages are not those of the defaults' ranking.
        left_out: column → why % of backprop and the tests do without it.
    """

    name: str
    reference: str | None
    by: By
    settings: Mapping[str, Setting]
    tests: int
    pairs: int
    smallest_p: float
    tuned_reference: bool
    left_out: Mapping[str, str]

    @property
    def ranked(self) -> dict[str, Setting]:
        """The settings that have a rank."""
        return {label: one for label, one in self.settings.items() if one.rank}


def is_tuned(row: Row) -> bool:
    """Whether a row is what a tuning chose."""
    return row.ruleset not in (DEFAULT, SET)


def reference_of(grid: Grid, members: Iterable[str]) -> str | None:
    """Of the rows of backprop the one with most runs."""
    mine = [row for row in members if grid.rows[row].runs[0].asked.rule == REFERENCE]
    return min(mine, key=lambda row: (-len(grid.rows[row].runs), len(row), row), default=None)


def ranking(
    grid: Grid,
    rows: Mapping[str, Row],
    name: str,
    members: Mapping[str, str],
    defaults: Mapping[str, Setting],
) -> Ranking:
    """All members at one setting.

    Args:
        grid: the runs, arranged.
        rows: label → row.
        name: of the ranking.
        members: row → label of its line.
        defaults: label of a line → its setting in the ranking of the defaults, whose tests are not repeated.
    """
    from rulezoo.leaderboard import stats
    from rulezoo.leaderboard.scores import standings

    reference = reference_of(grid, members)
    own = [row for row in members if name == DEFAULT or is_tuned(rows[row]) or name in rows[row].kept]
    tasks = [column for column in grid.columns if any((row, column) in grid.cells for row in own)]
    scores = grid.scores().only(members, tasks, reference)
    new_reference = reference is not None and is_tuned(rows[reference])
    tested = [row for row in members if name == DEFAULT or is_tuned(rows[row]) or new_reference]
    summary = stats.summarise(scores)
    ranked = {one.rule: one for one in summary.rows if not one.unranked}
    tests = stats.compare(scores, reference, rules=tested) if reference in ranked and reference else {}
    cells = _cells(grid, rows, members)
    places = [one.place.value for one in ranked.values() if one.place]
    settings = {}
    for one in standings(scores):
        label, row = members[one.rule], rows[one.rule]
        setting = _setting(row, ranked.get(one.rule), tests.get(one.rule), cells[one.rule], places)
        if one.rule not in tested:
            setting = replace(setting, difference=defaults[label].difference)
        settings[label] = replace(setting, gap=clean(one.gap))
    return Ranking(
        name=name,
        reference=None if reference is None else members[reference],
        by=summary.by,
        settings=settings,
        tests=len(tests),
        pairs=max((test.pairs for test in tests.values()), default=0),
        smallest_p=min((test.smallest_p for test in tests.values()), default=1.0),
        tuned_reference=new_reference,
        left_out={} if reference is None else dict(summary.left_out),
    )


def _setting(
    row: Row,
    ranked: stats.Row | None,
    test: Comparison | None,
    cells: tuple[Cell | None, ...],
    places: Sequence[float],
) -> Setting:
    costs = [cell.cost for cell in cells if cell and cell.cost is not None]
    return Setting(
        ruleset=row.ruleset,
        percent=scaled(ranked.iqm, 100) if ranked and ranked.iqm else None,
        difference=_difference(test) if test else None,
        cost=statistics.median(costs) if costs else None,
        rank=_rank(ranked.place, places) if ranked and ranked.place else None,
        mean_rank=ranked.mean_rank if ranked else None,
        gap="",
        cells=cells,
        row=row.label,
    )


def scaled(one: Estimate, factor: float) -> Estimate:
    """An estimate in another unit."""
    return replace(one, value=factor * one.value, low=factor * one.low, high=factor * one.high)


def _rank(place: Estimate, places: Sequence[float]) -> Rank:
    return Rank(int(place.value), int(place.low), int(place.high), tied=places.count(place.value) > 1)


def _difference(test: Comparison) -> Difference:
    points = scaled(test.interval, 100)
    return Difference(points, sign(points), test.p_holm, test.smallest_p, test.pairs)


def sign(points: Estimate) -> Sign:
    """Whether a difference is one, by its interval."""
    if points.method == "none":
        return "unknown"
    return "better" if points.low > 0 else "worse" if points.high < 0 else "equal"


def _cells(grid: Grid, rows: Mapping[str, Row], members: Iterable[str]) -> dict[str, tuple[Cell | None, ...]]:
    """Row → its cells, with those marked that tie with the best of a column."""
    found: dict[str, list[Cell | None]] = {row: [] for row in members}
    for i, (column, group) in enumerate(grid.columns.items()):
        made = {row: _cell(grid, rows[row].cells[i], row, column) for row in found}
        best = ties({row: cell for row, cell in made.items() if cell}, group[-1].chance)
        for row, cell in made.items():
            found[row].append(replace(cell, best=row in best) if cell else None)
    return {row: tuple(cells) for row, cells in found.items()}


def _cell(grid: Grid, cell: measured.Cell | None, row: str, column: str) -> Cell | None:
    if cell is None:
        return None
    runs = [
        Run(r.asked.seed, test_score(r), r.status, r.asked.key, cost(r))
        for r in grid.runs(row, column)
        if r.status not in ("interrupted", "skipped")
    ]
    return Cell(**{one.name: getattr(cell, one.name) for one in fields(cell)}, runs=tuple(runs))


def ties(cells: Mapping[str, Cell], chance: float) -> set[str]:
    """The names of the cells with the highest mean of a column, and of those that tie with it; see `Cell`.

    A cell of which every run failed is never one of them. Where cells share no seed, only equal means tie.
    """
    means = {
        name: cell.mean for name, cell in cells.items() if cell.mean is not None and cell.failed < cell.n
    }
    if not means:
        return set()
    first = max(means, key=means.__getitem__)
    top = by_seed(cells[first], chance)
    return {
        name
        for name, mean in means.items()
        if mean == means[first] or _is_tie(top, by_seed(cells[name], chance))
    }


def by_seed(cell: Cell, chance: float) -> dict[int, float]:
    """Seed → score of a cell; that of a failed run is ``chance``."""
    return {run.seed: chance if run.score is None else run.score for run in cell.runs}


def _is_tie(best: Mapping[int, float], other: Mapping[int, float]) -> bool:
    from rulezoo.leaderboard import stats

    found = stats.difference(best, other)
    return found is not None and found.low <= 0 <= found.high
