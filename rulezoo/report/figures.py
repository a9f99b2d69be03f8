"""The figures of the report: which numbers they show, and the words that stand for them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from rulezoo.leaderboard.grid import test_score
from rulezoo.leaderboard.option_curves import option_curves
from rulezoo.leaderboard.rows import DEFAULT
from rulezoo.report import pictures
from rulezoo.report.looks import CLASSES, COLOURS, DASHES, Look
from rulezoo.report.pictures import Dot, Drawing, Line
from rulezoo.report.series import Series, angles, curve, series
from rulezoo.report.words import NOTHING, number
from rulezoo.specs import file_name
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.option_curves import OptionCurve
    from rulezoo.leaderboard.ranking import Ranking, Setting
    from rulezoo.leaderboard.scores import Floats
    from rulezoo.report.findings import Findings

_BUDGET = re.compile(r" perturbations=\S+")  # in a label, whatever other options stand beside it
MOST = 8  # rules in one picture of lines: more could not be told apart
MOST_PANELS = 12  # tasks in one picture
_WIDE = 20.0  # ratio of the largest to the smallest value of an option that gets a logarithmic axis
MOST_ROWS = 60  # rows in one picture; the tables have all
_STEPS = [i / 2 for i in range(601)]  # % of backprop at which a profile is computed
_SHOWN = (50.0, 80.0, 90.0, 95.0, 100.0)  # of these, those in its table
_COST = "time of a training step, relative to backprop"


class Table(NamedTuple):
    """Numbers behind a picture."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Figure(NamedTuple):
    """A picture, with what stands for it.

    Attributes:
        file: its name in the folder ``pictures``.
        svg: the file's content.
        inline: the same as a part of a page.
        title: what it is.
        words: what there is to see, in a sentence or two.
        table: the numbers.
        ranking: name of the ranking that it shows, where there is a figure for each; else empty.
    """

    file: str
    svg: bytes
    inline: Markup
    title: str
    words: str
    table: Table
    ranking: str = ""


def _figure(file: str, drawn: Drawing, title: str, words: str, table: Table, ranking: str = "") -> Figure:
    alt = _alt(title, words)
    return Figure(
        file, drawn.file(), drawn.inline(file.removesuffix(".svg"), alt), title, words, table, ranking
    )


def _alt(title: str, words: str) -> str:
    return clean(f"{title}. {words} The numbers are in the table below.")


def of_ranking(found: Findings, ranking: Ranking) -> Iterator[Figure]:
    """The figures of all rules at one setting: score against cost, performance profile, ranks."""
    yield from filter(None, [cost(found, ranking), profile(found, ranking), ranks(found, ranking)])


def _named(what: str, ranking: Ranking) -> tuple[str, str]:
    """File and title of a figure of a ranking."""
    file = what.lower().replace(" ", "-")
    if ranking.name == DEFAULT:
        return f"{file}.svg", what
    return f"{file}-{ranking.name}.svg", f"{what}, {ranking.name} settings"


def ranks(found: Findings, ranking: Ranking) -> Figure | None:
    """The rank of each ranked rule, with its interval."""
    dots = [
        Dot(
            label,
            r.value,
            0,
            found.looks[label],
            r.low,
            r.high,
            f"{label}: rank {r.value} [{r.low}, {r.high}]",
        )
        for label, one in ranking.ranked.items()
        if (r := one.rank)
    ]
    if len(dots) < 2:
        return None
    first = [dot.name for dot in dots if dot.low is not None and dot.low <= 1]
    sure = (
        f"{dots[0].name} has the best rank, and no other rule's interval reaches rank 1."
        if len(first) == 1
        else f"{dots[0].name} has the best rank; the intervals of {_listed(first)} reach rank 1."
    )
    file, title = _named("Ranks", ranking)
    return _figure(
        file,
        pictures.intervals(dots[:MOST_ROWS], "rank, with its 95 % interval"),
        title,
        f"{sure}{_only(len(dots))}",
        Table(("rule", "rank", "95 % CI"), [(d.name, f"{d.x:g}", f"[{d.low:g}, {d.high:g}]") for d in dots]),
        ranking.name,
    )


def shown_ranking(found: Findings) -> Ranking | None:
    """The ranking of the tuned settings, or, where nothing was tuned, of the defaults."""
    rankings = found.overview.rankings
    return found.overview.tuned or (rankings[0] if rankings else None)


def cost(found: Findings, ranking: Ranking) -> Figure | None:
    """% of backprop against cost: one dot for each ranked rule."""
    dots = [
        _cost_dot(found, label, one.cost, one.percent.value, (one.percent.low, one.percent.high), " %")
        for label, one in ranking.ranked.items()
        if one.percent and one.cost
    ]
    file, title = _named("Score against cost", ranking)
    return _cost(found, file, title, dots, "% of backprop", ranking.name)


def _cost_dot(
    found: Findings, label: str, x: float, y: float, interval: tuple[float, float], unit: str
) -> Dot:
    low, high = interval
    ends = f" [{number(low, 1)}, {number(high, 1)}]" if high > low else ""
    return Dot(
        label, x, y, found.looks[label], low, high, f"{label}: {number(y, 1)}{unit}{ends}, cost ×{x:.2f}"
    )


def cost_on_task(found: Findings, i: int) -> Figure | None:
    """Score against cost on one task."""
    column = found.overview.columns[i]
    dots = []
    for label, setting in _settings(found, i):
        cell = setting.cells[i]
        own = found.cells.get((setting.row, list(found.grid.columns)[i]))
        if cell and cell.cost and cell.mean is not None:
            mean = own.mean if own and own.mean and own.mean.method != "none" else None
            ends = (100 * mean.low, 100 * mean.high) if mean else (100 * cell.mean, 100 * cell.mean)
            dots.append(_cost_dot(found, label, cell.cost, 100 * cell.mean, ends, " %"))
    return _cost(found, f"{_file(found, i)}-cost.svg", "Score against cost", dots, f"{column.metric}, %")


def _settings(found: Findings, i: int) -> list[tuple[str, Setting]]:
    """Label of each line that has results in a column → its tuned setting, or the default where there is none."""
    chosen = []
    for line in found.overview.lines:
        one = next((s for s in (line.tuned, line.default) if s and s.cells[i]), None)
        if one:
            chosen.append((line.label, one))
    return chosen


def _cost(
    found: Findings, file: str, title: str, dots: list[Dot], y: str, ranking: str = ""
) -> Figure | None:
    dots = [dot for dot in dots if dot.x > 0]
    if len(dots) < 2:
        return None
    dots.sort(key=lambda d: (-d.y, d.name))
    cheapest = min(dots, key=lambda d: d.x)
    others = [dot for dot in dots if dot.name != found.grid.reference]
    words = (
        f"Up is better, left is cheaper. {_scores(others[0], 'has the highest score')}{_best_of(others, dots)}; "
        f"{_scores(cheapest, 'is the cheapest')}. Whiskers are 95 % intervals over seeds. Colour: family; marker: the first "
        "implausible feature that a rule has."
    )
    rows = [(d.name, number(d.y, 1), _ends(d), f"×{d.x:.2f}") for d in dots]
    stem, alt = file.removesuffix(".svg"), _alt(title, words)
    forms = {width: pictures.scatter(dots, found.looks.families, _COST, y, width=width)
             for width in (pictures.WIDE, pictures.NARROW)}  # fmt: skip
    inline = forms[pictures.WIDE].inline(stem, alt, "wide") + forms[pictures.NARROW].inline(
        f"{stem}-narrow", alt, "narrow"
    )
    table = Table(("rule", y, "95 % CI", "cost"), rows)
    return Figure(file, forms[pictures.WIDE].file(), inline, title, words, table, ranking)


def _scores(dot: Dot, what: str) -> str:
    return f"{dot.name} {what} ({number(dot.y, 1)} %, ×{dot.x:.2f} the time of a step of backprop)"


def _best_of(others: Sequence[Dot], dots: Sequence[Dot]) -> str:
    return " of all rules but backprop" if len(others) < len(dots) else ""


def _ends(dot: Dot) -> str:
    if dot.low is None or dot.high is None or dot.low == dot.high:
        return ""
    return f"[{number(dot.low, 1)}, {number(dot.high, 1)}]"


def profile(found: Findings, ranking: Ranking) -> Figure | None:
    """Performance profile: the share of a rule's runs that reach a score, for the best rules."""
    from rulezoo.leaderboard import stats

    if ranking.by != "iqm" or len(ranking.ranked) < 2:
        return None
    members = {one.row: label for label, one in ranking.ranked.items()}
    reference = None if ranking.reference is None else ranking.settings[ranking.reference].row
    scores = found.grid.scores().only(members, list(found.grid.columns), reference)
    every = stats.profile(scores, [step / 100 for step in _STEPS])
    shares = {label: every[row] for row, label in members.items() if row in every}
    if not shares:
        return None
    few = _few(found, list(shares))
    changing = [i for i in range(len(_STEPS)) if any(0 < shares[label][i] < 1 for label in few)] or [0]
    span = slice(max(0, changing[0] - 4), changing[-1] + 5)
    drawn = [Line(_profile_line(label, shares[label], span), found.looks[label]) for label in few]
    rows = [
        (label, *(f"{100 * share[_STEPS.index(step)]:.0f}" for step in _SHOWN))
        for label, share in shares.items()
    ]
    words = (
        "The share of a rule's runs, of all tasks and seeds, whose score is at least that on the horizontal axis. A curve that "
        f"stays high to the right is better.{_of(len(drawn), len(shares))}"
    )
    file, title = _named("Performance profile", ranking)
    head = ("rule", *(f"% of runs at ≥ {step:g} %" for step in _SHOWN))
    svg = pictures.lines(drawn, "score, % of backprop", "runs that reach it, %")
    return _figure(file, svg, title, words, Table(head, rows), ranking.name)


def _profile_line(label: str, share: Floats, span: slice) -> Series:
    values = tuple(100 * float(one) for one in share[span])
    return Series(label, tuple(_STEPS[span]), values, values, values)


def _few(found: Findings, ordered: Sequence[str], most: int = MOST) -> list[str]:
    """The reference, the floor, and the first of the others."""
    kept = [row for row in (found.grid.reference, found.grid.floor) if row and row in ordered]
    return [*kept, *[label for label in ordered if label not in kept]][:most]


def _of(drawn: int, there: int) -> str:
    return f" The picture shows {drawn} of {there} rules; the table has all." if drawn < there else ""


def curves_of_rule(found: Findings, rule: str) -> Figure | None:
    """How a rule learns each task, with backprop."""
    columns = list(found.grid.columns)
    own = [line for line in found.overview.lines if line.rule == rule][:3]
    reference = next((one for one in found.overview.lines if one.label == found.grid.reference), None)
    groups: dict[str, list[Line]] = {}
    for i, column in enumerate(columns):
        group = [
            drawn
            for line in own
            for setting, state in ((line.default, "default"), (line.tuned, "tuned"))
            if setting and (drawn := _curve(found, line.label, setting, i, state if line.tuned else ""))
        ]
        if group and reference and reference not in own and reference.default:
            beside = _curve(found, reference.label, reference.default, i, "")
            group += [beside] if beside else []
        if group:
            groups[column] = group
    if not groups:
        return None
    few = dict(list(groups.items())[:MOST_PANELS])
    left_out = f" The picture shows {len(few)} of {len(groups)} tasks." if len(few) < len(groups) else ""
    named = [(f"{column}: {line.of.name}", line.of) for column, group in groups.items() for line in group]
    svg = pictures.panels(few, "epoch", "validation score, %")
    return _curves(f"{rule}-curves.svg", svg, named, left_out)


def _curve(found: Findings, label: str, setting: Setting, i: int, state: str) -> Line | None:
    """The learning curve of a setting; ``None`` without two points."""
    name = f"{label}, {state}" if state else label
    one = curve(name, found.grid.runs(setting.row, list(found.grid.columns)[i]))
    return Line(one, found.looks[label], is_hollow=state == "default") if one and len(one.x) > 1 else None


def curves_of_task(found: Findings, i: int) -> Figure | None:
    """How the rules learn a task: backprop, the floor, and the best of the others."""
    settings = dict(_settings(found, i))
    ordered = sorted(settings, key=lambda label: -_mean(settings[label], i))
    lines = {label: line for label in ordered if (line := _curve(found, label, settings[label], i, ""))}
    if not lines:
        return None
    drawn = [lines[label] for label in _few(found, list(lines))]
    named = [(line.of.name, line.of) for line in lines.values()]
    svg = pictures.lines(drawn, "epoch", "validation score, %")
    return _curves(f"{_file(found, i)}-curves.svg", svg, named, _of(len(drawn), len(lines)))


def _mean(setting: Setting, i: int) -> float:
    cell = setting.cells[i]
    return cell.mean if cell and cell.mean is not None else -math.inf


def _curves(file: str, svg: Drawing, named: Sequence[tuple[str, Series]], more: str) -> Figure:
    rows = []
    for name, one in named:
        half = next(x for x, y in zip(one.x, one.mean, strict=True) if y >= one.mean[-1] / 2)
        rows.append((name, *(number(v, 1) for v in (one.mean[0], one.mean[-1])), f"{half:g}"))
    first = rows[0]
    words = (
        f"Validation score by epoch, mean over seeds, with a band from the lowest seed to the highest. {first[0]} goes "
        f"from {first[1]} % to {first[2]} %.{more}"
    )
    head = ("curve", "first point, %", "last point, %", "epoch at which half of the last is reached")
    return _figure(file, svg, "Learning curves", words, Table(head, rows))


def angles_of_rule(found: Findings, rule: str) -> Iterator[Figure]:
    """The angle to backprop through training, one picture for each task that was probed."""
    label = found.rules[rule][0].label
    for i, column in enumerate(found.grid.columns):
        lines = angles(found.grid.runs(label, column))
        if not any(len(one.x) > 1 for one in lines):  # one point is in the task's picture
            continue
        rows = [(one.name, number(one.mean[0], 1), number(one.mean[-1], 1)) for one in lines]
        words = (
            "Angle between the error signal of the rule and that of backprop: 0° is backprop, 90° is no information. "
            f"On {column}, {rows[0][0]} goes from {rows[0][1]}° to {rows[0][2]}°."
        )
        yield _figure(
            f"{rule}-{_file(found, i)}-angles.svg",
            pictures.lines(_sites(lines), "epoch", "angle to backprop, degrees"),
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
    words = "Degrees between the error signal and that of backprop after training; 90 is no information."
    words += _only(len(last))
    return _figure(
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
    rules: dict[str, str] = {}
    for row in found.board.rows:
        for run in found.grid.runs(row.label, column):
            number_of = run.asked.rule_options.get("perturbations")
            score = test_score(run)
            if isinstance(number_of, int | float) and score is not None:
                name = _BUDGET.sub("", row.label)
                points.setdefault(name, []).append((float(number_of), 100 * score))
                rules.setdefault(name, row.rule)
    lines = [one for rule, xy in sorted(points.items()) if (one := series(rule, xy)) and len(one.x) > 1]
    if not lines:
        return None
    rows = [
        (one.name, f"{x:g}", f"{m:.1f}", f"{low:.1f} to {high:.1f}")
        for one in lines
        for x, m, low, high in zip(one.x, one.mean, one.low, one.high, strict=True)
    ]
    words = f"{lines[0].name} goes from {rows[0][2]} % with {rows[0][1]} to {lines[0].mean[-1]:.1f} % with {lines[0].x[-1]:g}."
    drawn = _told_apart([Line(one, found.looks.of_rule(rules[one.name])) for one in lines])
    return _figure(
        f"{_file(found, i)}-perturbations.svg",
        pictures.lines(drawn[:MOST], "perturbations per step", "test score, %", log=True),
        "Score against perturbations",
        words + _of(len(drawn[:MOST]), len(drawn)),
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
        yield _over_option(
            found, f"{_file(found, i)}-{owner}-{option}.svg", f"{owner}.{option}", curves[:MOST]
        )


def _over_option(found: Findings, file: str, option: str, curves: Sequence[OptionCurve]) -> Figure:
    lines = [_line(one) for one in curves]
    drawn = _told_apart(
        [Line(one, found.looks.of_rule(of.rule)) for one, of in zip(lines, curves, strict=True)]
    )
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
    svg = pictures.lines(drawn, option, "test score, %", log=is_wide)
    return _figure(
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


def _sites(shown: Sequence[Series]) -> list[Line]:
    """Lines of one rule, each with a colour, a dash and a marker of its own."""
    hues = [name for name in COLOURS if name.startswith("c")]
    return [
        Line(one, Look(hues[k % len(hues)], DASHES[k % len(DASHES)], CLASSES[k % len(CLASSES)]))
        for k, one in enumerate(shown)
    ]


def _told_apart(shown: Sequence[Line]) -> list[Line]:
    """Lines whose looks differ: of several with one look, all but the first get other dashes."""
    taken: list[Look] = []
    made = []
    for line in shown:
        free = [line.look.dash, *(dash for dash in DASHES if dash != line.look.dash)]
        looks = [replace(line.look, dash=dash) for dash in free]
        look = next((one for one in looks if one not in taken), line.look)
        taken.append(look)
        made.append(line._replace(look=look))
    return made


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
