"""The leaderboard as a value: one line for each rule, at its default and at its tuned setting, with all that is known of it.

Every written form (terminal, Markdown, LaTeX, CSV, JSON) prints an `Overview` and computes nothing. See `Ranking` for
which settings are compared and tested together, and `rulezoo.leaderboard.stats` for the statistics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rulezoo.leaderboard import board as measured
from rulezoo.leaderboard.evaluated import Evaluations
from rulezoo.leaderboard.grid import REFERENCE, Grid, arrange
from rulezoo.leaderboard.option_curves import option_curves
from rulezoo.leaderboard.ranking import Ranking, Setting, is_tuned, ranking, reference_of
from rulezoo.leaderboard.rows import DEFAULT, SET
from rulezoo.leaderboard.verified import Verifications
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Board, Column, Row
    from rulezoo.leaderboard.names import Facts
    from rulezoo.leaderboard.option_curves import OptionCurve
    from rulezoo.leaderboard.verified import Verified
    from rulezoo.results.records import Record
    from rulezoo.specs import RuleSpec, TaskSpec
    from rulezoo.tuning.records import Tuned

NOT_INSTALLED = "not installed"  #: in place of the family of a rule that is not installed here


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
        rankings[name] = ranking(grid, rows, name, members, defaults)
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
    tuned = {label: row.ruleset for label, row in rows.items() if is_tuned(row)}
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
        if not any(rows[row].rule == REFERENCE for row in members) and (own := reference_of(grid, plain)):
            members[own] = plain[own]  # backprop was not tuned
        found[ruleset] = members
    return found


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
