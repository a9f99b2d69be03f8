"""An `rulezoo.leaderboard.overview.Overview` as the columns of a table, for writers that know how to print one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rulezoo.leaderboard import plausibility, words
from rulezoo.leaderboard.rows import DEFAULT

if TYPE_CHECKING:
    from rulezoo.leaderboard.overview import Overview
    from rulezoo.leaderboard.ranking import Ranking, Setting

KEPT = "= default"  #: in place of the numbers of a tuned setting that is the default
PLAUSIBILITY = "plausibility"  #: the group of its columns
ARROW = "→"  #: between the scores of the default and of the tuned setting


class Part(NamedTuple):
    """A piece of a cell: numbers are aligned to the right, words to the left."""

    text: str
    is_number: bool = True
    is_bold: bool = False


Parts = tuple[Part, ...]


@dataclass(frozen=True)
class TableColumn:
    """A column.

    Attributes:
        group: head that neighbouring columns share, or empty.
        head: its own head.
        cells: one for each line; all have the same number of parts, of which some are empty.
        is_numeric: whether the cells hold numbers.
        short: the head where there is little room, or empty.
    """

    group: str
    head: str
    cells: tuple[Parts, ...]
    is_numeric: bool = True
    short: str = ""


@dataclass(frozen=True)
class _Side:
    """The settings of one ranking that the table shows, one for each line."""

    ranking: Ranking
    settings: tuple[Setting | None, ...]
    kept: tuple[bool, ...]

    @property
    def group(self) -> str:
        return "" if self.ranking.name == DEFAULT else "tuned"


def columns(overview: Overview) -> list[TableColumn]:
    """Name, % of backprop, difference, p and cost of the defaults and of the tuned settings, plausibility, then the tasks."""
    notes, sides = words.footnotes(overview), _sides(overview)
    labels = tuple((Part(line.label, is_number=False),) for line in overview.lines)
    found = [TableColumn("", "rule", labels, is_numeric=False)]
    for place, side in enumerate(sides):
        found += _aggregates(side, notes, first=place == 0)
    found += _plausibility(overview)
    for i in range(len(overview.columns)):
        found += _task(overview, sides, i, notes)
    return found


def _sides(overview: Overview) -> list[_Side]:
    sides = []
    for ranking in overview.rankings:
        if ranking.name == DEFAULT:
            settings = tuple(line.default for line in overview.lines)
            sides.append(_Side(ranking, settings, (False,) * len(settings)))
        elif ranking is overview.tuned:
            settings = tuple(line.tuned for line in overview.lines)
            kept = tuple(bool(line.kept) and line.tuned is None for line in overview.lines)
            sides.append(_Side(ranking, settings, kept))
    return sides


def _aggregates(side: _Side, notes: Mapping[str, int], *, first: bool) -> Iterator[TableColumn]:
    def column(head: str, parts: Callable[[Setting | None], Parts]) -> TableColumn:
        return TableColumn(side.group, head, tuple(map(parts, side.settings)))

    ranking = side.ranking
    if ranking.by == "iqm":
        cells = (_percent(one, notes, kept) for one, kept in zip(side.settings, side.kept, strict=True))
        yield TableColumn(side.group, "% of backprop", tuple(cells))
        if any(one and one.difference for one in side.settings):
            yield column("Δ points", _difference)
        if first and ranking.tests:
            yield column(words.p_head(ranking), lambda one: (Part(words.p(one)),))
    else:
        cells = (_mean_rank(one, notes, kept) for one, kept in zip(side.settings, side.kept, strict=True))
        yield TableColumn(side.group, "mean rank", tuple(cells))
    if first:
        yield column("cost", lambda one: (Part(words.cost(one)),))


def _percent(one: Setting | None, notes: Mapping[str, int], kept: bool) -> Parts:
    return _estimated(words.estimate(one.percent if one else None), one, notes, kept)


def _mean_rank(one: Setting | None, notes: Mapping[str, int], kept: bool) -> Parts:
    return _estimated(words.estimate(one.mean_rank if one else None), one, notes, kept)


def _estimated(written: tuple[str, str], one: Setting | None, notes: Mapping[str, int], kept: bool) -> Parts:
    value, interval = ("", KEPT) if kept else written if one else ("", "")
    return Part(value), Part(interval), Part(words.gap_note(one, notes), is_number=False)


def _difference(one: Setting | None) -> Parts:
    if one is None or one.difference is None:
        return Part(""), Part(""), Part("")
    value, interval = words.estimate(one.difference.points, signed=True)
    return Part(value), Part(interval), Part(words.SIGNS[one.difference.sign])


def _plausibility(overview: Overview) -> Iterator[TableColumn]:
    for field in plausibility.columns(line.plausibility for line in overview.lines):
        cells = [
            (
                Part(
                    plausibility.symbol(line.plausibility, field, words.verified_marks(line)), is_number=False
                ),
            )
            for line in overview.lines
        ]
        one = plausibility.feature(field)
        yield TableColumn(PLAUSIBILITY, one.name, tuple(cells), is_numeric=False, short=one.letter)
    if overview.shows_verifications:
        cells = [(Part(words.verified(line), is_number=False),) for line in overview.lines]
        yield TableColumn(PLAUSIBILITY, "verified", tuple(cells), is_numeric=False)


def _task(overview: Overview, sides: list[_Side], i: int, notes: Mapping[str, int]) -> Iterator[TableColumn]:
    column = overview.columns[i]
    shown = [side for side in sides if any(one and one.cells[i] for one in side.settings)]
    yield _joined(
        column.label,
        f"{column.metric} %",
        [[_score(one, i, overview.seeds, notes) for one in side.settings] for side in shown],
    )
    for j, head in enumerate(column.evaluations):
        best = [words.best_evaluated(side.settings, head, i, j) for side in shown]
        cells = [
            [_evaluated(one, i, j, is_best=r in of_side) for r, one in enumerate(side.settings)]
            for side, of_side in zip(shown, best, strict=True)
        ]
        yield _joined(column.label, f"{head.label}: {head.value}", cells)


def _joined(group: str, head: str, sides: list[list[Parts]]) -> TableColumn:
    """One column of the cells of each side, with an arrow before the second."""
    cells = [list(first) for first in sides[0]]
    for side in sides[1:]:
        for cell, parts in zip(cells, side, strict=True):
            cell += [Part(ARROW if parts[0].text else ""), *parts]
    return TableColumn(group, head, tuple(map(tuple, cells)))


def _score(one: Setting | None, i: int, usual: int, notes: Mapping[str, int]) -> Parts:
    cell = one.cells[i] if one else None
    return _mean(words.score(cell), words.suffix(cell, usual, notes), is_bold=bool(cell and cell.best))


def _evaluated(one: Setting | None, i: int, j: int, *, is_best: bool) -> Parts:
    cell = one.cells[i] if one else None
    return _mean(words.evaluated(cell, j), words.evaluated_suffix(cell, j), is_bold=is_best)


def _mean(written: tuple[str, str], suffix: str, *, is_bold: bool) -> Parts:
    mean, sd = written
    numbers = (Part(text, is_bold=is_bold) for text in (mean, "±" if sd else "", sd))
    return (*numbers, Part(suffix, is_number=False))
