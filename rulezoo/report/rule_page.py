"""What the page of a rule shows: how it works, what it differs from and by what, its results, and how it is cited."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from rulezoo.discovery.plugins import foreign
from rulezoo.errors import UserError
from rulezoo.leaderboard import plausibility, references, words
from rulezoo.leaderboard.names import machine
from rulezoo.leaderboard.ranking import by_seed, scaled, sign
from rulezoo.leaderboard.rows import DEFAULT
from rulezoo.options import Option, declared
from rulezoo.report import citation, drawing, figures, formula
from rulezoo.report.commands import command
from rulezoo.text import bounded, clean_lines

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Found, Registry
    from rulezoo.leaderboard.overview import Line
    from rulezoo.leaderboard.ranking import Cell, Ranking, Setting
    from rulezoo.leaderboard.stats import Estimate
    from rulezoo.report.findings import Findings
    from rulezoo.specs import Limit, RuleSpec

_SOURCE = 60_000  # characters of a rule's code that a page holds
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_REPOSITORY = (
    "source",
    "source code",
    "repository",
    "code",
    "homepage",
)  # labels of addresses, the best first


class Number(NamedTuple):
    """A value with its interval, and the sign of a difference."""

    value: str
    interval: str = ""
    sign: str = ""


class Scored(NamedTuple):
    """A rule on a task at one setting."""

    score: Number
    spread: str
    runs: str
    difference: Number
    cost: str
    notes: tuple[str, ...]
    is_bad: bool


class Result(NamedTuple):
    """A row of the table of results: a task, with the settings that were run on it."""

    task: str
    column: str
    variant: str
    settings: tuple[Scored | None, ...]

    @property
    def notes(self) -> list[str]:
        """What tuning chose, evaluations of the networks, and whatever went wrong; each sentence once."""
        return list(dict.fromkeys(note for one in self.settings if one for note in one.notes))


class Overall(NamedTuple):
    """A rule across all tasks at one setting."""

    setting: str
    percent: Number
    difference: Number
    p: str
    smallest_p: str
    cost: str
    rank: str
    gap: str


class Neighbour(NamedTuple):
    """Another rule: what it is to this one, what sets them apart, and by how much their scores differ."""

    label: str
    rule: str
    why: str
    features: tuple[tuple[str, str, str], ...]
    difference: Number | None
    p: str
    smallest_p: str
    pairs: int
    cost: str


def context(found: Findings, rule: str) -> dict[str, Any]:
    """What the template of a rule's page is given."""
    known = found.registry.rules.get(rule)
    spec = known.spec if known else None
    lines = [line for line in found.overview.lines if line.rule == rule]
    curves = figures.curves_of_rule(found, rule)
    angles = list(figures.angles_of_rule(found, rule))
    published = [(one, references.verdict(one, found.records)) for one in references.of_rule(rule)]
    return {
        "title": f"{rule}: rulezoo",
        "rule": rule,
        "spec": spec,
        "origin": known.origin if known else "",
        "explained": _explained(spec) if spec else None,
        "marks": _marks(found, rule, spec),
        "verified": found.verified(rule),
        "limits": list(_limits(found.registry, spec)) if spec else [],
        "options": options(found.registry, "rule", rule),
        "heads": _heads(lines),
        "overall": [one for line in lines for one in _overall(found, line)],
        "results": [one for line in lines for one in _results(found, line)],
        "commands": _commands(found, lines),
        "neighbours": _neighbours(found, lines[0]) if lines else [],
        "ranking": figures.shown_ranking(found),
        "curves": curves,
        "angles": angles,
        "pictures": [figure for figure in (curves, *angles) if figure],
        "published": published,
        "sources": list(dict.fromkeys(one.source for one, _ in published)),
        "bibtex": _lines(citation.bibtex(spec.reference)) if spec else "",
        "code": _code(found.registry, known) if known else None,
    }


# ---------------------------------------------------------------------------------------------------------------------
# How it works


def _explained(spec: RuleSpec) -> dict[str, Any]:
    """Formula, letters and drawing."""
    marks = spec.plausibility
    return {
        "formula": formula.lines(spec.formula),
        "letters": formula.letters(spec.formula),
        "drawing": drawing.draw(spec.name, marks) if marks else Markup(""),
        "words": drawing.describe(marks) if marks else "",
    }


def _marks(found: Findings, rule: str, spec: RuleSpec | None) -> list[dict[str, Any]]:
    """Features of plausibility with their marks, as declared, and the checks that verified them."""
    if spec is None or spec.plausibility is None:
        return []
    verified = found.verified(rule)
    marks, checks = spec.plausibility.marks(), verified.marks if verified else {}
    return [
        {
            "name": plausibility.name(field),
            "field": field,
            "symbol": plausibility.symbol(marks, field) if field != plausibility.HIDDEN else "",
            "mark": marks[field],
            "meaning": plausibility.feature(field).meaning,
            "checks": checks.get(field, ()),
        }
        for field in plausibility.ordered(marks)
        if field != plausibility.HIDDEN or marks[field] == "no"
    ]


def _limits(registry: Registry, spec: RuleSpec) -> Iterator[tuple[str, str, str]]:
    """Sentences on the limits in which the rule equals another, or another equals it: before, name of the other, after."""
    for limit in spec.limits:
        yield (f"With {_listed(limit.options)} it equals", limit.equals, _rest(limit))
    for name, other in registry.rules.items():
        for limit in other.spec.limits:
            if limit.equals == spec.name and name != spec.name:
                own = f"With {_listed(limit.others)} it" if limit.others else "It"
                yield (f"{own} equals", name, f"with {_listed(limit.options)}{_tolerance(limit)}.")


def _rest(limit: Limit) -> str:
    others = f"with {_listed(limit.others)}" if limit.others else ""
    return f"{others}{_tolerance(limit)}."


def _tolerance(limit: Limit) -> str:
    digits, _, exponent = f"{limit.tolerance:.0e}".partition("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return f", to {power if digits == '1' else f'{digits} · {power}'} of the norm of the gradient"


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def options(registry: Registry, kind: str, name: str) -> list[Option] | None:
    """The options of a rule or a task; ``None`` if it is not installed, or its code fails."""
    known = registry.rules if kind == "rule" else registry.tasks
    if name not in known:
        return None
    try:
        with foreign(f"{kind} {name!r} cannot be shown"):
            cls = registry.rule_class(name) if kind == "rule" else registry.task_class(name)
            return list(declared(cls).values())
    except UserError:
        return None


def _code(registry: Registry, known: Found[RuleSpec]) -> dict[str, str] | None:
    """The text at the top of a rule's module, its class, and where they are; ``None`` if its code fails."""
    try:
        with foreign(f"the code of rule {known.spec.name!r} cannot be shown"):
            cls = registry.rule_class(known.spec.name)
            module = sys.modules[cls.__module__]
            source = inspect.getsource(cls)
            text = inspect.getdoc(module) or ""
    except UserError:
        return None
    return {
        "module": cls.__module__,
        "name": cls.__name__,
        "text": _lines(text),
        "source": _lines(source),
        "address": _address(known.distribution),
    }


def _lines(text: str) -> Markup:
    """Text whose lines matter, escaped."""
    return Markup(escape(bounded(clean_lines(text), _SOURCE)))


def _address(distribution: str) -> str:
    """Where the distribution says that its sources are; empty if it does not."""
    try:
        named = metadata.metadata(distribution).get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return ""
    urls = {label.strip().lower(): url.strip() for label, _, url in (one.partition(",") for one in named)}
    return next((urls[label] for label in _REPOSITORY if urls.get(label, "").startswith("https://")), "")


# ---------------------------------------------------------------------------------------------------------------------
# Results


def _heads(lines: Sequence[Line]) -> list[str]:
    """The settings that any line has, as heads of the table of results."""
    defaults = [line.default for line in lines if line.default]
    tuned = [line.tuned for line in lines if line.tuned]
    first = "default" if all(one.ruleset == DEFAULT for one in defaults) else "as set"
    return [first] * bool(defaults) + [one.ruleset for one in tuned[:1]]


def _shown(lines_heads: Sequence[str], line: Line) -> list[Setting | None]:
    """The settings of a line, in the order of the heads."""
    return [line.tuned if head not in ("default", "as set") else line.default for head in lines_heads]


def _overall(found: Findings, line: Line) -> Iterator[Overall]:
    for setting in line.settings:
        one, rank = setting.difference, setting.rank
        name = "default" if setting.ruleset == DEFAULT else setting.ruleset
        yield Overall(
            setting=" ".join(filter(None, [line.variant, name]))
            + (f", kept by {line.kept}" if line.kept else ""),
            percent=_number(setting.percent),
            difference=_difference(one.points) if one else Number(""),
            p=words.p(setting),
            smallest_p=words.p_value(one.smallest_p) if one else "",
            cost=words.cost(setting),
            rank=f"{rank.value} [{rank.low}, {rank.high}] of {len(_ranking_with(found, setting).ranked)}"
            if rank
            else "",
            gap=setting.gap,
        )


def _ranking_with(found: Findings, setting: Setting) -> Ranking:
    """The ranking in which a setting takes part under its own name."""
    rankings = found.overview.rankings
    return next(
        (one for one in rankings if any(setting is other for other in one.settings.values())), rankings[0]
    )


def _results(found: Findings, line: Line) -> Iterator[Result]:
    rule_lines = [one for one in found.overview.lines if one.rule == line.rule]
    for i, column in enumerate(found.overview.columns):
        shown = tuple(_scored(found, one, i) for one in _shown(_heads(rule_lines), line))
        if any(shown):
            yield Result(column.task, column.label, line.variant, shown)


def _scored(found: Findings, setting: Setting | None, i: int) -> Scored | None:
    cell = setting.cells[i] if setting else None
    if setting is None or cell is None:
        return None
    column, label = found.overview.columns[i], list(found.grid.columns)[i]
    mean = found.cells.get((setting.row, label))
    value, spread = words.score(cell)
    interval = _number(scaled(mean.mean, 100)).interval if mean and mean.mean else ""
    chosen = f"{setting.ruleset}: {cell.setting}" if cell.setting else ""
    evaluations = [
        f"{head.label}: {head.value} {' ± '.join(filter(None, pair))}"
        for j, head in enumerate(column.evaluations)
        if (pair := words.evaluated(cell, j))[0]
    ]
    return Scored(
        score=Number(value, interval),
        spread=spread,
        runs=f"{cell.n}" + (f", {cell.failed} failed" if cell.failed else ""),
        difference=_on_task(found, setting, cell, i),
        cost="mixed hardware"
        if cell.mixed
        else f"×{cell.cost:.2f}"
        if cell.cost
        else "–"
        if cell.short
        else "",
        notes=(*filter(None, [chosen, _of_mixed_cost(found, cell)]), *evaluations, *cell.notes),
        is_bad=bool(cell.failed),
    )


def _of_mixed_cost(found: Findings, cell: Cell) -> str:
    """Why there is no cost, where its runs were timed on different hardware."""
    if not cell.mixed:
        return ""
    timed = sorted({machine(run.answered.hardware) for run in found.runs_of(cell) if run.cost})
    return f"cost: measured on different hardware, so not averaged: {'; '.join(timed)}"


def _on_task(found: Findings, setting: Setting, cell: Cell, i: int) -> Number:
    """The paired difference to backprop, in points of the metric."""
    from rulezoo.leaderboard import stats

    ranking = _ranking_with(found, setting)
    own = ranking.settings[ranking.reference] if ranking.reference else None
    other = own.cells[i] if own else None
    if own is None or other is None or own.row == setting.row:
        return Number("")
    chance = found.overview.columns[i].chance
    difference = stats.difference(by_seed(cell, chance), by_seed(other, chance))
    return _difference(scaled(difference, 100)) if difference else Number("")


def _commands(found: Findings, lines: Sequence[Line]) -> list[str]:
    """The commands that reproduce the runs."""
    runs = [
        found.grid.runs(setting.row, column)
        for line in lines
        for setting in line.settings
        for i, column in enumerate(found.grid.columns)
        if setting.cells[i]
    ]
    return list(dict.fromkeys(command(some) for some in runs if some))


def _number(one: Estimate | None) -> Number:
    return Number(*words.estimate(one)) if one else Number("")


def _difference(one: Estimate) -> Number:
    value, interval = words.estimate(one, signed=True)
    return Number(value, interval, sign(one))


# ---------------------------------------------------------------------------------------------------------------------
# Neighbours


def _neighbours(found: Findings, line: Line) -> list[Neighbour]:
    """Backprop, the floor, the rules that a limit names, and those of the family, each compared with this one."""
    registry, grid = found.registry, found.grid
    spec = registry.rules[line.rule].spec if line.rule in registry.rules else None
    limits = {limit.equals for limit in spec.limits} if spec else set()
    limits |= {
        name
        for name, one in registry.rules.items()
        if any(limit.equals == line.rule for limit in one.spec.limits)
    }
    why: dict[str, str] = {}
    for other in found.overview.lines:
        if other.label in (grid.reference, grid.floor):
            why[other.label] = "baseline"
        elif other.rule in limits:
            why[other.label] = "equal in a limit"
        elif other.family == line.family:
            why[other.label] = "same family"
    why.pop(line.label, None)
    order = ("baseline", "equal in a limit", "same family")
    ranking = _ranking_of(found, line)
    compared = _compared(found, ranking, line.label, list(why)) if ranking else {}
    lines = {one.label: one for one in found.overview.lines}
    return [
        _neighbour(line, lines[label], why[label], compared.get(label), ranking)
        for label in sorted(why, key=lambda label: order.index(why[label]))
    ]


def _ranking_of(found: Findings, line: Line) -> Ranking | None:
    """The ranking that is shown, if the rule is ranked there; else the first that ranks it."""
    first = figures.shown_ranking(found)
    return next(
        (
            one
            for one in (first, *found.overview.rankings)
            if one and one.by == "iqm" and line.label in one.ranked
        ),
        None,
    )


def _compared(found: Findings, ranking: Ranking, label: str, others: Sequence[str]) -> Mapping[str, Any]:
    """Label of a neighbour → the paired comparison of it with the rule, neighbour minus rule."""
    from rulezoo.leaderboard import stats

    rows = {one.row: name for name, one in ranking.ranked.items()}
    reference = None if ranking.reference is None else ranking.settings[ranking.reference].row
    own = {name: row for row, name in rows.items()}
    scores = found.grid.scores().only(rows, list(found.grid.columns), reference)
    tested = [own[name] for name in others if name in own]
    tests = stats.compare(scores, own[label], rules=tested) if tested else {}
    return {rows[row]: test for row, test in tests.items()}


def _neighbour(line: Line, other: Line, why: str, test: Any, ranking: Ranking | None) -> Neighbour:  # noqa: ANN401
    features = tuple(
        (plausibility.name(field), plausibility.symbol(line.plausibility, field), theirs)
        for field in plausibility.columns([line.plausibility, other.plausibility])
        if (theirs := plausibility.symbol(other.plausibility, field))
        != plausibility.symbol(line.plausibility, field)
    )
    setting = ranking.settings.get(other.label) if ranking else None
    return Neighbour(
        label=other.label,
        rule=other.rule,
        why=why,
        features=features,
        difference=_difference(_negated(scaled(test.interval, 100))) if test else None,
        p=words.p_value(test.p_holm) if test else "",
        smallest_p=words.p_value(test.smallest_p) if test else "",
        pairs=test.pairs if test else 0,
        cost=words.cost(setting),
    )


def _negated(one: Estimate) -> Estimate:
    return type(one)(-one.value, -one.high, -one.low, one.method)
