"""Score against an option: the rows or columns of a leaderboard that differ in the value of one option and in nothing else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.leaderboard.names import whole
from rulezoo.leaderboard.rows import DEFAULT, SET
from rulezoo.options import Value, as_text
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Board, Cell, Column, Row

LEAST = 3  #: values of an option that make a curve
LEVEL = 0.95  #: of the confidence intervals
_OPTION = "option "  # before the name of a task's option among the conditions of a column

Name = tuple[str, str]
"""Rule or task, and its option."""
Facts = dict[Name, Value]
Rest = tuple[object, ...]


@dataclass(frozen=True)
class Point:
    """The score at one value of the option.

    Attributes:
        value: of the option.
        mean: mean score over the seeds, as a fraction of 1; a failed run counts at chance level.
        half_width: half the width of the 95 % confidence interval of the mean (t distribution); ``None`` for one seed.
        n: number of seeds.
    """

    value: Value
    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class OptionCurve:
    """Score of a rule on a task against an option of either.

    Attributes:
        owner: rule or task that has the option.
        option: its name.
        rule: name of the rule.
        column: place of the column on the leaderboard, of the first of them for an option of a task.
        fixed: values of the other options that tell this curve from others of the same option, in words.
        metric: name of the score.
        points: by ascending value.
    """

    owner: str
    option: str
    rule: str
    column: int
    fixed: str
    metric: str
    points: tuple[Point, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether the values are numbers, and so have a place on an axis."""
        return all(isinstance(p.value, int | float) and not isinstance(p.value, bool) for p in self.points)


def option_curves(board: Board) -> list[OptionCurve]:
    """Every curve over an option with `LEAST` values or more, by the values of the other options."""
    groups: dict[tuple[Name, Rest, Rest], dict[Value, _Place]] = defaultdict(dict)
    for place in _places(board):
        for name, value in place.facts.items():
            others = tuple((other, as_text(v)) for other, v in place.facts.items() if other != name)
            groups[name, place.context, others].setdefault(value, place)
    of_name: dict[tuple[Name, Rest], list[dict[Value, _Place]]] = defaultdict(list)
    for (name, context, _), places in groups.items():
        if len(places) >= LEAST:
            of_name[name, context].append(places)
    return [
        _curve(name, places, alike)
        for (name, _), alike in of_name.items()
        for places in sorted(alike, key=_values)
    ]


@dataclass(frozen=True)
class _Place:
    """A cell of the leaderboard with all options that it was run with, and the rest of what was asked."""

    row: Row
    column: Column
    place: int
    cell: Cell
    facts: Facts
    context: Rest


def _places(board: Board) -> Iterator[_Place]:
    for row in board.rows:
        if row.ruleset not in (DEFAULT, SET):  # what a tuner chose is no grid
            continue
        for i, (column, cell) in enumerate(zip(board.columns, row.cells, strict=True)):
            if cell is None or cell.mean is None:
                continue
            of_rule = {(row.rule, name): whole(value) for name, value in row.options.items()}
            of_task = {
                (column.task, name.removeprefix(_OPTION)): value
                for name, value in column.conditions.items()
                if name.startswith(_OPTION)
            }
            asked = [item for item in column.conditions.items() if not item[0].startswith(_OPTION)]
            context = (row.rule, row.version, *sorted(map(repr, asked)))
            yield _Place(row, column, i, cell, {**of_rule, **of_task}, context)


def _curve(name: Name, places: dict[Value, _Place], alike: Sequence[dict[Value, _Place]]) -> OptionCurve:
    first = next(iter(places.values()))
    firsts = [next(iter(one.values())).facts for one in alike]
    differing = [
        other
        for other in first.facts
        if other != name and len({as_text(facts[other]) for facts in firsts}) > 1
    ]
    fixed = " ".join(f"{option}={as_text(first.facts[owner, option])}" for owner, option in differing)
    return OptionCurve(
        owner=name[0],
        option=clean(name[1]),
        rule=first.row.rule,
        column=min(one.place for one in places.values()),
        fixed=clean(fixed),
        metric=first.column.metric,
        points=tuple(_point(value, places[value].cell) for value in sorted(places, key=_ascending)),
    )


def _point(value: Value, cell: Cell) -> Point:
    assert cell.mean is not None
    return Point(value, cell.mean, _half_width(cell.sd, cell.n), cell.n)


def _half_width(sd: float | None, n: int) -> float | None:
    from scipy.stats import t

    return None if sd is None else float(t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)


def _values(places: dict[Value, _Place]) -> list[tuple[int, float, str]]:
    """By the other options, which all places of a curve share."""
    return [_ascending(value) for value in next(iter(places.values())).facts.values()]


def _ascending(value: Value) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, as_text(value)
