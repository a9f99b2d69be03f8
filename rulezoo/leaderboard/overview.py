"""The leaderboard as a value: one line for each rule, at its default and at its tuned setting, with all that is said of it.

Every written form (terminal, Markdown, LaTeX, CSV, JSON) prints an `Overview` and computes nothing. See `Ranking` for
which settings are compared and tested together, and `rulezoo.leaderboard.stats` for the statistics.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from rulezoo.leaderboard import board as measured
from rulezoo.leaderboard.evaluated import Evaluations
from rulezoo.leaderboard.grid import REFERENCE, Grid, arrange, cost, test_score
from rulezoo.leaderboard.option_curves import option_curves
from rulezoo.leaderboard.rows import DEFAULT, SET
from rulezoo.leaderboard.verified import Verifications
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard import stats
    from rulezoo.leaderboard.board import Board, Column, Row
    from rulezoo.leaderboard.names import Facts
    from rulezoo.leaderboard.option_curves import OptionCurve
    from rulezoo.leaderboard.stats import Comparison, Estimate
    from rulezoo.leaderboard.verified import Verified
    from rulezoo.results.records import Record
    from rulezoo.specs import RuleSpec, TaskSpec
    from rulezoo.tuning.records import Tuned

Sign = Literal["better", "equal", "worse", "unknown"]
By = Literal["iqm", "mean_rank"]

NOT_INSTALLED = "not installed"  #: in place of the family of a rule that is not installed here


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
    """

    ruleset: str
    percent: Estimate | None
    difference: Difference | None
    cost: float | None
    rank: Rank | None
    mean_rank: Estimate | None
    gap: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Line:
    """A rule, or one variant of it.

    Attributes:
        label: name of the rule and its variant.
        rule: name of the rule.
        variant: version or options that tell it from the author's default; empty for the default.
        version: of the rule.
        options: of the rule, by name; of a line that has a tuned setting only, those that the user gave.
        family: of the rule.
        plausibility: field → mark. Where settings differ in a mark it names each, as in ``no/yes``.
        verification: whether the rule passed the conformance suite; ``None`` where it is not known.
        default: without tuning: the author's default, or what the user set; ``None`` where it was not run.
        tuned: as tuned; ``None`` where it was not tuned, or where tuning kept the default on every task.
        kept: the tuning, e.g. ``tuned-8``, that kept the default on every task; else empty.
    """

    label: str
    rule: str
    variant: str
    version: int
    options: Facts
    family: str
    plausibility: dict[str, str]
    verification: Verified | None
    default: Setting | None
    tuned: Setting | None
    kept: str

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Those that the line has."""
        return tuple(one for one in (self.default, self.tuned) if one)


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


@dataclass(frozen=True)
class Overview:
    """The leaderboard.

    Attributes:
        columns: tasks, each under one set of conditions.
        lines: one for each rule or variant, in the order of the first ranking that has it.
        rankings: of the defaults first, then of each tuning, the one with most trials first.
        seeds: number of seeds that most cells have.
        curves: scores against options that were run with several values.
    """

    columns: tuple[Column, ...] = ()
    lines: tuple[Line, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    seeds: int = 0
    curves: tuple[OptionCurve, ...] = ()

    @property
    def tuned(self) -> Ranking | None:
        """The ranking of the tuned settings that lines show; ``None`` where nothing was tuned."""
        return next((one for one in self.rankings if one.name != DEFAULT), None)

    @property
    def shows_verifications(self) -> bool:
        """Whether a verification of any rule is stored."""
        return any(line.verification for line in self.lines)

    @property
    def shows_evaluations(self) -> bool:
        """Whether an evaluation of any network is stored."""
        return any(column.evaluations for column in self.columns)


def build(
    records: Iterable[Record],
    *,
    tasks: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    specs: Mapping[str, RuleSpec] | None = None,
    task_specs: Mapping[str, TaskSpec] | None = None,
    tunings: Iterable[Tuned] = (),
    stale: Callable[[Record], str | None] = lambda record: None,
    verifications: Verifications | None = None,
    evaluations: Evaluations | None = None,
) -> Overview:
    """Make the leaderboard of records in any order.

    Args:
        records: of any rules and tasks.
        tasks: names of the tasks to show, in this order; all, if not given, feedforward networks first.
        rules: names of the rules to show; all if not given.
        specs: name of a rule → its spec, which has its family and declares its plausibility.
        task_specs: name of a task → its spec, by whose tags tasks are ordered.
        tunings: whose winners are the tuned settings.
        stale: why a record may be out of date, if it may; see `rulezoo.results.freshness`.
        verifications: outcomes of ``rulezoo verify``.
        evaluations: of the trained networks.
    """
    grid = arrange(records, tasks=tasks, rules=rules, tunings=tunings, task_specs=task_specs)
    if not grid.rows:
        return Overview()
    return of(grid, measured.of(grid, specs, stale, verifications, evaluations), specs)


def of(grid: Grid, board: Board, specs: Mapping[str, RuleSpec] | None = None) -> Overview:
    """The overview of runs that are arranged, and of what was measured in each cell."""
    rows = {row.label: row for row in board.rows}
    entries = _entries(grid, rows)
    rankings: dict[str, Ranking] = {}
    for name, members in _members(grid, rows, entries).items():
        defaults = rankings[DEFAULT].settings if DEFAULT in rankings else {}
        rankings[name] = _ranking(grid, board, name, members, defaults)
    lines = [_line(entry, rows, rankings, _family(rows, entry, specs or {})) for entry in entries]
    order = list(dict.fromkeys(label for one in rankings.values() for label in one.settings))
    return Overview(
        columns=board.columns,
        lines=tuple(sorted(lines, key=lambda line: order.index(line.label))),
        rankings=tuple(rankings.values()),
        seeds=board.seeds,
        curves=tuple(option_curves(board)),
    )


class _Entry(NamedTuple):
    """The rows that make a line: label of the line, of its plain row, of its tuned row, and the tuning it takes part in."""

    label: str
    plain: str | None
    tuned: str | None
    ruleset: str  # of the tuned row, or that which kept the plain row; empty if neither


def _entries(grid: Grid, rows: Mapping[str, Row]) -> list[_Entry]:
    """Lines of plain rows, each with the tuned row that began with the same options; other tuned rows are lines of their own."""
    tuned = {label: row.ruleset for label, row in rows.items() if _is_tuned(row)}
    rulesets = sorted({*tuned.values(), *(k for row in rows.values() for k in row.kept)}, key=_most_trials)
    shown = rulesets[0] if rulesets else ""  # a line has room for one tuning
    by_options = {_given(grid, label): label for label in reversed(tuned) if tuned[label] == shown}
    entries = []
    for label, row in rows.items():
        if label in tuned:
            continue
        own = None if shown in row.kept else by_options.pop(_given(grid, label), None)
        entries.append(_Entry(label, label, own, shown if own or shown in row.kept else ""))
    taken = {entry.label for entry in entries}
    used = {entry.tuned for entry in entries}
    for label, ruleset in tuned.items():
        if label not in used:
            short = label.removesuffix(f" {ruleset}")
            own_name = short if ruleset == shown and short not in taken else label
            entries.append(_Entry(own_name, None, label, ruleset))
    return entries


def _family(rows: Mapping[str, Row], entry: _Entry, specs: Mapping[str, RuleSpec]) -> str:
    spec = specs.get(rows[entry.plain or entry.tuned or ""].rule)
    return clean(spec.family) if spec else NOT_INSTALLED


def _is_tuned(row: Row) -> bool:
    return row.ruleset not in (DEFAULT, SET)


def _most_trials(ruleset: str) -> tuple[int, str]:
    number = re.search(r"\d+$", ruleset)
    return -int(number[0]) if number else 0, ruleset


def _given(grid: Grid, label: str) -> tuple[object, ...]:
    """What was asked of a rule, apart from what a tuner chose."""
    group = grid.rows[label]
    asked = group.runs[0].asked
    options = dict(group.options)
    if group.ruleset in (DEFAULT, SET):
        changed = {clean(name) for run in group.runs for name in run.changed}
        options = {name: value for name, value in options.items() if name in changed}
    return asked.rule, asked.rule_version, tuple(sorted((name, repr(v)) for name, v in options.items()))


def _members(grid: Grid, rows: Mapping[str, Row], entries: Sequence[_Entry]) -> dict[str, dict[str, str]]:
    """Name of a ranking → row → label of its line, for all that take part."""
    found: dict[str, dict[str, str]] = {}
    plain = {entry.plain: entry.label for entry in entries if entry.plain}
    if plain:
        found[DEFAULT] = plain
    for ruleset in sorted({entry.ruleset for entry in entries if entry.ruleset}, key=_most_trials):
        members = {e.tuned: e.label for e in entries if e.tuned and rows[e.tuned].ruleset == ruleset}
        members |= {row: label for row, label in plain.items() if ruleset in rows[row].kept}
        if not any(rows[row].rule == REFERENCE for row in members) and (own := _reference(grid, plain)):
            members[own] = plain[own]  # backprop was not tuned
        found[ruleset] = members
    return found


def _reference(grid: Grid, members: Iterable[str]) -> str | None:
    """Of the rows of backprop the one with most runs."""
    mine = [row for row in members if grid.rows[row].runs[0].asked.rule == REFERENCE]
    return min(mine, key=lambda row: (-len(grid.rows[row].runs), len(row), row), default=None)


def _ranking(
    grid: Grid, board: Board, name: str, members: Mapping[str, str], defaults: Mapping[str, Setting]
) -> Ranking:
    """All members at one setting; those that are tested as a default already have the difference of ``defaults``."""
    from rulezoo.leaderboard import stats
    from rulezoo.leaderboard.scores import standings

    rows = {row.label: row for row in board.rows}
    reference = _reference(grid, members)
    scores = grid.scores().only(members, reference)
    new_reference = reference is not None and _is_tuned(rows[reference])
    tested = [row for row in members if name == DEFAULT or _is_tuned(rows[row]) or new_reference]
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
        percent=_scaled(ranked.iqm, 100) if ranked and ranked.iqm else None,
        difference=_difference(test) if test else None,
        cost=statistics.median(costs) if costs else None,
        rank=_rank(ranked.place, places) if ranked and ranked.place else None,
        mean_rank=ranked.mean_rank if ranked else None,
        gap="",
        cells=cells,
    )


def _scaled(one: Estimate, factor: float) -> Estimate:
    return replace(one, value=factor * one.value, low=factor * one.low, high=factor * one.high)


def _rank(place: Estimate, places: Sequence[float]) -> Rank:
    return Rank(int(place.value), int(place.low), int(place.high), tied=places.count(place.value) > 1)


def _difference(test: Comparison) -> Difference:
    points = _scaled(test.interval, 100)
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
    top = _by_seed(cells[first], chance)
    return {
        name
        for name, mean in means.items()
        if mean == means[first] or _is_tie(top, _by_seed(cells[name], chance))
    }


def _by_seed(cell: Cell, chance: float) -> dict[int, float]:
    """Seed → score; that of a failed run is chance."""
    return {run.seed: chance if run.score is None else run.score for run in cell.runs}


def _is_tie(best: Mapping[int, float], other: Mapping[int, float]) -> bool:
    from rulezoo.leaderboard import stats

    found = stats.difference(best, other)
    return found is not None and found.low <= 0 <= found.high


def _line(entry: _Entry, rows: Mapping[str, Row], rankings: Mapping[str, Ranking], family: str) -> Line:
    """A line, with what its rankings say of it."""
    plain, tuned = (rows[label] if label else None for label in (entry.plain, entry.tuned))
    row = plain or tuned
    assert row is not None
    kept = entry.ruleset if plain and entry.ruleset in plain.kept else ""
    own = rankings[entry.ruleset].settings[entry.label] if entry.ruleset else None
    is_same = bool(kept) and not rankings[entry.ruleset].tuned_reference
    return Line(
        label=entry.label,
        rule=row.rule,
        variant=entry.label.removeprefix(row.rule).strip(),
        version=row.version,
        options=row.options,
        family=family,
        plausibility=_marks([one for one in (plain, tuned) if one]),
        verification=row.verification or (tuned.verification if tuned else None),
        default=rankings[DEFAULT].settings[entry.label] if plain else None,
        tuned=None if is_same or (kept == "" and not tuned) else own,
        kept=kept,
    )


def _marks(rows: Sequence[Row]) -> dict[str, str]:
    """The marks of all settings of a line; one that differs names each value."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for field, mark in row.plausibility.items():
            found.setdefault(field, set()).update(mark.split("/"))
    return {field: "/".join(sorted(marks)) for field, marks in found.items()}
