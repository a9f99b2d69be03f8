"""The figures of the report: which numbers they show, and the words that stand for them."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rulezoo.leaderboard.grid import test_score
from rulezoo.leaderboard.option_curves import option_curves
from rulezoo.leaderboard.rows import DEFAULT, SET
from rulezoo.report import pictures
from rulezoo.report.series import Series, angles, curve, series
from rulezoo.report.words import NOTHING, number
from rulezoo.specs import file_name
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Row
    from rulezoo.leaderboard.option_curves import OptionCurve
    from rulezoo.report.findings import Findings

_BUDGET = re.compile(r" perturbations=\S+")  # in a label, whatever other options stand beside it
MOST = 6  # rules in one picture of curves: more could not be told apart
_WIDE = 20.0  # ratio of the largest to the smallest value of an option that gets a logarithmic axis
MOST_ROWS = 60  # rows in one picture; the tables have all


class Table(NamedTuple):
    """Numbers behind a picture."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Figure(NamedTuple):
    """A picture, with what stands for it.

    Attributes:
        file: its name in the folder ``pictures``.
        svg: the file's content.
        title: what it is.
        words: what there is to see, in a sentence or two.
        table: the numbers.
    """

    file: str
    svg: bytes
    title: str
    words: str
    table: Table


def places(found: Findings) -> Figure | None:
    """The place of each ranked rule, with its interval."""
    rows = [row for row in found.summary.rows if row.place]
    if len(rows) < 2:
        return None
    dots = [pictures.Dot(clean(r.rule), r.place.value, 0, r.place.low, r.place.high) for r in rows if r.place]
    first = [dot.name for dot in dots if dot.low is not None and dot.low <= 1]
    sure = (
        "in all but a few of the resampled rankings." if len(first) == 1 else f"but {_listed(first)} could."
    )
    words = f"{dots[0].name} stands first, {sure}{_only(len(dots))}"
    table = [(d.name, f"{d.x:g}", f"{d.low:g} to {d.high:g}") for d in dots]
    return Figure(
        "places.svg",
        pictures.intervals(dots[:MOST_ROWS], "place in the ranking, with its 95 % interval"),
        "Who could stand where",
        words,
        Table(("rule", "place", "95 % interval"), table),
    )


def cost(found: Findings) -> Figure | None:
    """Score across tasks against cost: one dot for each ranked rule."""
    dots = []
    for row in found.board.rows:
        costs = [cell.cost for cell in row.cells if cell and cell.cost]
        if row.score is not None and not row.gap and costs:
            dots.append(_dot(row, statistics.median(costs), row.score))
    return _cost("cost.svg", dots, "score (0 = chance, 1 = backprop)", number)


def _dot(row: Row, x: float, y: float) -> pictures.Dot:
    """A row as a dot; a tuned row is a variant of the one that it began with."""
    tuned = row.ruleset if row.ruleset not in (DEFAULT, SET) else ""
    return pictures.Dot(
        row.label, x, y, series=row.label.removesuffix(f" {tuned}") if tuned else row.label, variant=tuned
    )


def cost_on_task(found: Findings, i: int) -> Figure | None:
    """Score against cost on one task."""
    column = found.board.columns[i]
    dots = [
        _dot(row, cell.cost, 100 * cell.mean)
        for row in found.board.rows
        if (cell := row.cells[i]) and cell.cost and cell.mean is not None
    ]
    return _cost(f"{_file(found, i)}-cost.svg", dots, f"{column.metric}, %", lambda y: number(y, 1))


def _cost(file: str, dots: list[pictures.Dot], y: str, write: Callable[[float], str]) -> Figure | None:
    dots = [dot for dot in dots if dot.x > 0]
    if len(dots) < 2:
        return None
    dots.sort(key=lambda d: (-d.y, d.name))
    cheapest, best = min(dots, key=lambda d: d.x), dots[0]
    words = (
        f"Up is better, left is cheaper. {best.name} scores highest ({write(best.y)}) at ×{best.x:.2f} the time of a "
        f"step of backprop; {cheapest.name} is cheapest (×{cheapest.x:.2f}) and scores {write(cheapest.y)}."
    )
    rows = [(d.name, write(d.y), f"×{d.x:.2f}") for d in dots]
    return Figure(
        file,
        pictures.scatter(dots, "time of a training step, relative to backprop's", y),
        "Score against cost",
        words,
        Table(("rule", y, "cost"), rows),
    )


def curves_of_rule(found: Findings, rule: str) -> Figure | None:
    """How a rule learns each task, beside backprop."""
    label = found.rules[rule][0].label
    reference = found.grid.reference
    groups, names = [], []
    for column in list(found.grid.columns)[:MOST]:
        own = curve("this rule", found.grid.runs(label, column))
        if not own or len(own.x) < 2:
            continue
        beside = curve("backprop", found.grid.runs(reference, column)) if reference else None
        groups.append([own, beside] if beside and reference != label else [own])
        names.append(column)
    return _curves(f"{rule}-curves.svg", groups, names)


def curves_of_task(found: Findings, i: int) -> Figure | None:
    """How the rules learn a task: backprop, the floor, and the best of the others."""
    column = list(found.grid.columns)[i]
    chosen = [row for row in (found.grid.reference, found.grid.floor) if row]
    chosen += [row.label for row in found.board.rows if row.label not in chosen]
    groups = [[one] for row in chosen if (one := curve(row, found.grid.runs(row, column))) and len(one.x) > 1]
    return _curves(f"{_file(found, i)}-curves.svg", groups[:MOST], [""] * len(groups[:MOST]))


def _curves(file: str, groups: list[list[Series]], names: Sequence[str]) -> Figure | None:
    if not groups:
        return None
    rows = []
    for group, name in zip(groups, names, strict=True):
        for one in group:
            half = next(x for x, y in zip(one.x, one.mean, strict=True) if y >= one.mean[-1] / 2)
            label = ": ".join(filter(None, [name, one.name]))
            rows.append((label, *(number(v, 1) for v in (one.mean[0], one.mean[-1])), f"{half:g}"))
    first = rows[0]
    words = (
        f"Validation score by epoch, mean over seeds, with a band from the lowest seed to the highest. {first[0]} goes "
        f"from {first[1]} % to {first[2]} %."
    )
    head = ("curve", "first point, %", "last point, %", "epoch at which half of the last is reached")
    svg = pictures.lines(groups, names, "epoch", "validation score, %")
    return Figure(file, svg, "Learning curves", words, Table(head, rows))


def angles_of_rule(found: Findings, rule: str) -> Iterator[Figure]:
    """The angle to backprop through training, one picture for each task that was probed."""
    label = found.rules[rule][0].label
    for i, column in enumerate(found.grid.columns):
        lines = angles(found.grid.runs(label, column))
        if not any(len(one.x) > 1 for one in lines):  # one point is in the task's picture
            continue
        rows = [(one.name, number(one.mean[0], 1), number(one.mean[-1], 1)) for one in lines]
        words = (
            "Angle between the teaching signal of the rule and that of backprop: 0° is backprop, 90° is no information. "
            f"On {column}, {rows[0][0]} goes from {rows[0][1]}° to {rows[0][2]}°."
        )
        yield Figure(
            f"{rule}-{_file(found, i)}-angles.svg",
            pictures.lines(
                [[one] for one in lines], [""] * len(lines), "epoch", "angle to backprop, degrees"
            ),
            f"Angles to backprop on {column}",
            words,
            Table(("site", "before training, degrees", "after training, degrees"), rows),
        )


def angles_of_task(found: Findings, i: int) -> Figure | None:
    """Rule × site: the angle to backprop after training."""
    column = list(found.grid.columns)[i]
    last = {
        row.label: {one.name: one.mean[-1] for one in angles(found.grid.runs(row.label, column))}
        for row in found.board.rows
    }
    last = {label: sites for label, sites in last.items() if sites}
    sites = list(dict.fromkeys(site for of_row in last.values() for site in of_row))
    if len(last) < 2:
        return None
    values = [[of_row.get(site, math.nan) for site in sites[:MOST_ROWS]] for of_row in last.values()]
    drawn = [*last][:MOST_ROWS]
    rows = [
        (label, *(NOTHING if math.isnan(v) else number(v, 1) for v in row))
        for label, row in zip(last, values, strict=True)
    ]
    words = "Degrees between the teaching signal and that of backprop after training; 90 is no information."
    words += _only(len(last))
    return Figure(
        f"{_file(found, i)}-angles.svg",
        pictures.heat_map(
            drawn, sites[:MOST_ROWS], values[:MOST_ROWS], "angle to backprop after training, degrees"
        ),
        "Angle to backprop, rule by site",
        words,
        Table(("rule", *sites[:MOST_ROWS]), rows),
    )


def perturbations(found: Findings, i: int) -> Figure | None:
    """Score against the number of perturbations, for rules that were run with several."""
    column = list(found.grid.columns)[i]
    points: dict[str, list[tuple[float, float | None]]] = {}
    for row in found.board.rows:
        for run in found.grid.runs(row.label, column):
            number_of = run.asked.rule_options.get("perturbations")
            score = test_score(run)
            if isinstance(number_of, int | float) and score is not None:
                name = _BUDGET.sub("", row.label)
                points.setdefault(name, []).append((float(number_of), 100 * score))
    lines = [one for rule, xy in sorted(points.items()) if (one := series(rule, xy)) and len(one.x) > 1]
    if not lines:
        return None
    rows = [
        (one.name, f"{x:g}", f"{m:.1f}", f"{low:.1f} to {high:.1f}")
        for one in lines
        for x, m, low, high in zip(one.x, one.mean, one.low, one.high, strict=True)
    ]
    words = f"{lines[0].name} goes from {rows[0][2]} % with {rows[0][1]} to {lines[0].mean[-1]:.1f} % with {lines[0].x[-1]:g}."
    return Figure(
        f"{_file(found, i)}-perturbations.svg",
        pictures.lines(
            [[one] for one in lines], [""] * len(lines), "perturbations per step", "test score, %", log=True
        ),
        "Score against perturbations",
        words,
        Table(("rule", "perturbations", "mean, %", "lowest to highest seed, %"), rows),
    )


def options(found: Findings, i: int) -> Iterator[Figure]:
    """Score against each option that was run with several numbers, a line for each rule and its other options.

    The number of perturbations has a picture of its own.
    """
    by_option: dict[tuple[str, str], list[OptionCurve]] = {}
    for one in option_curves(found.board):
        if one.column == i and one.is_numeric and one.option != "perturbations":
            by_option.setdefault((one.owner, one.option), []).append(one)
    for (owner, option), curves in by_option.items():
        yield _over_option(f"{_file(found, i)}-{owner}-{option}.svg", f"{owner}.{option}", curves[:MOST])


def _over_option(file: str, option: str, curves: Sequence[OptionCurve]) -> Figure:
    lines = [_line(one) for one in curves]
    rows = [
        (one.name, f"{x:g}", f"{mean:.1f}", "" if low == high else f"{low:.1f} to {high:.1f}")
        for one in lines
        for x, mean, low, high in zip(one.x, one.mean, one.low, one.high, strict=True)
    ]
    first, last = lines[0].x[0], lines[0].x[-1]
    words = (
        f"Mean over seeds, with the 95 % confidence interval of the mean. {lines[0].name} goes from "
        f"{lines[0].mean[0]:.1f} % at {option} = {first:g} to {lines[0].mean[-1]:.1f} % at {last:g}."
    )
    is_wide = first > 0 and last / first >= _WIDE
    svg = pictures.lines([[one] for one in lines], [""] * len(lines), option, "test score, %", log=is_wide)
    return Figure(
        file, svg, f"Score against {option}", words, Table(("rule", option, "mean, %", "95 % CI, %"), rows)
    )


def _line(of: OptionCurve) -> Series:
    half = [point.half_width or 0.0 for point in of.points]
    return Series(
        " ".join(filter(None, [of.rule, of.fixed])),
        tuple(float(point.value) for point in of.points if isinstance(point.value, int | float)),
        tuple(100 * point.mean for point in of.points),
        tuple(100 * (point.mean - h) for point, h in zip(of.points, half, strict=True)),
        tuple(100 * (point.mean + h) for point, h in zip(of.points, half, strict=True)),
    )


def _only(rows: int) -> str:
    return f" The picture shows the first {MOST_ROWS} of {rows} rows." if rows > MOST_ROWS else ""


def _file(found: Findings, i: int) -> str:
    """A name for the files of a column: the task's, and a number where it has several columns."""
    task = found.board.columns[i].task
    of_task = found.tasks[task]
    name = file_name(task)
    return name if len(of_task) == 1 else f"{name}-{of_task.index(i) + 1}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
