"""The pages: what each template is given."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rulezoo import __version__
from rulezoo.discovery.plugins import foreign
from rulezoo.errors import UserError
from rulezoo.leaderboard import plausibility
from rulezoo.leaderboard import words as board_words
from rulezoo.leaderboard.grid import is_too_short
from rulezoo.options import Option, as_text, declared
from rulezoo.report import claims_pages, figures, legend, pictures, rule_page, words
from rulezoo.report.commands import command
from rulezoo.text import clean

if TYPE_CHECKING:
    from jinja2 import Environment

    from rulezoo.discovery.registry import Registry
    from rulezoo.leaderboard import stats
    from rulezoo.leaderboard.board import Cell, Row
    from rulezoo.leaderboard.evaluated import Head
    from rulezoo.report.figures import Figure
    from rulezoo.report.findings import Findings

Pages = dict[str, bytes]


class Field(NamedTuple):
    """A column of plausibility."""

    name: str
    word: str
    meaning: str
    binary: bool


class Evaluated(NamedTuple):
    """An evaluation of a cell: its head, mean, spread and number of networks as text, and its order."""

    head: Head
    mean: str
    sd: str
    few: str
    best: bool
    order: float


class Result(NamedTuple):
    """One rule on one task, as its section shows it."""

    rule: str
    row: str
    task: str
    column: str
    metric: str
    chance: float
    cell: Cell
    stats: stats.Cell | None
    hardware: tuple[str, ...]
    step_ms: str
    memory: str
    setting: str
    made: str
    command: str
    evaluations: list[Evaluated]


def render(found: Findings) -> Pages:
    """Every page and picture."""
    environment = _environment()
    shared = {
        "version": __version__,
        "runs": len(found.records),
        "has_claims": bool(found.claims),
        "root": "",
        "signs": board_words.SIGNS,
        "found": found,
    }
    pages: Pages = {}
    with pictures.style():
        _page(pages, environment, "index.html", "index.html", {**shared, **_index(found)})
        for rule in found.rules:
            context = {**shared, "root": "../", **rule_page.context(found, rule)}
            _page(pages, environment, "rule.html", f"rules/{rule}.html", context)
        for task in found.tasks:
            context = {**shared, "root": "../", **_task(found, task)}
            _page(pages, environment, "task.html", f"tasks/{task}.html", context)
    if found.claims:
        _claims(pages, environment, found, shared)
    return pages


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.finalize,
        trim_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "percent2": lambda score: words.number(100 * score),
        "number": words.number,
        "estimate": words.estimate,
        "difference": words.difference,
        "probability": words.probability,
        "linked": words.linked,
        "value": as_text,
        "variant": plausibility.variant,
    }
    return environment


def _page(
    pages: Pages, environment: Environment, template: str, path: str, context: Mapping[str, Any]
) -> None:
    """Add a page, and the pictures that its context holds."""
    pages[path] = environment.get_template(template).render(context).encode()
    for figure in context["pictures"]:
        pages[f"pictures/{figure.file}"] = figure.svg


def _index(found: Findings) -> dict[str, Any]:
    board = found.board
    notes = legend.footnotes(board)
    fields = _fields(found)
    shown = (
        _present([*figures.costs(found), figures.profile(found), figures.ranks(found)]) if board.rows else []
    )
    specs = found.registry.rules
    summary = found.summary.rows if board.rows else ()
    places = {row.rule: row.place for row in summary}
    return {
        "title": "rulezoo: learning rules, compared",
        "board": board,
        "fields": fields,
        "families": sorted({clean(found.family(rule)) for rule in found.rules}),
        "rulesets": sorted({one for row in board.rows for one in (row.ruleset, *row.kept)}),
        "rows": [_row(found, at, fields, notes, places[row.label]) for at, row in enumerate(board.rows)],
        "legend": legend.numbers(board, bold=True) if board.rows else [],
        "notes": list(notes),
        "verification": legend.verification(board),
        "few": 0 < board.seeds < 5,
        "summary": [
            {
                "row": row,
                "rule": found.grid.rows[row.rule].runs[0].asked.rule,
                "backprop": found.against_reference.get(row.rule),
                "floor": found.against_floor.get(row.rule),
            }
            for row in summary
        ],
        "left_out": found.summary.left_out if board.rows else {},
        "figures": shown,
        "pictures": shown,
        "rules": [_card(name, specs.get(name), found.family(name)) for name in found.rules],
        "tasks": [_card(name, found.registry.tasks.get(name), "") for name in found.tasks],
    }


def _card(name: str, found: Any, family: str) -> dict[str, str]:  # noqa: ANN401  a rule or a task
    summary = found.spec.summary if found else "not installed where this page was written"
    return {"name": name, "family": family, "summary": summary}


def _row(
    found: Findings, at: int, fields: Sequence[Field], notes: Mapping[str, int], place: stats.Estimate | None
) -> dict[str, Any]:
    row = found.board.rows[at]
    ran = [found.cells[row.label, column].counts for column in found.grid.columns]
    return {
        "row": row,
        "place": words.NOTHING if place is None else f"{place.value:g}",
        "more": row.label.removeprefix(row.rule).strip(),
        "family": found.family(row.rule),
        "rulesets": row.rulesets,
        "marks": {f.name: plausibility.mark(row.plausibility, f.name) for f in fields},
        "checks": {f.name: _checks(row, f.name) for f in fields},
        "verified": legend.verified_cell(found.board, row),
        "without": " ".join(f.name for f in fields if f.binary and row.plausibility.get(f.name) == "no"),
        "coverage": f"{sum(c.finished for c in ran)}/{sum(c.planned for c in ran)}",
        "cells": [
            {
                "cell": cell,
                "best": at in found.best[i],
                "share": _share(found, i, cell),
                "notes": [notes[note] for note in cell.notes] if cell else [],
                "evaluated": _evaluated(found, at, i),
            }
            for i, cell in enumerate(row.cells)
        ],
    }


def _evaluated(found: Findings, at: int, i: int) -> list[Evaluated]:
    """The evaluations of a cell, one for each of its column's."""
    board = found.board
    cell, shown = board.rows[at].cells[i], []
    for j, head in enumerate(board.columns[i].evaluations):
        one = cell.evaluations[j] if cell else None
        mean, sd = board_words.evaluated(cell, j)
        last = math.inf if head.higher_is_better is False else -math.inf  # where there is no value
        shown.append(
            Evaluated(
                head,
                mean,
                sd,
                board_words.evaluated_suffix(cell, j),
                at in legend.best_evaluated(board, i, j),
                last if one is None or one.mean is None else one.mean,
            )
        )
    return shown


def _checks(row: Row, field: str) -> tuple[str, ...]:
    """Names of the checks that verified what a narrow table shows as the mark of a field."""
    shown = "hidden_learning" if plausibility.mark(row.plausibility, field) == plausibility.FIXED else field
    return row.verification.marks.get(shown, ()) if row.verification else ()


def _share(found: Findings, i: int, cell: Cell | None) -> str:
    """Where a score lies between chance (0) and the best of the column (1)."""
    chance, best = found.board.columns[i].chance, found.highest[i]
    if cell is None or cell.mean is None or best <= chance:
        return "0"
    return f"{min(1.0, max(0.0, (cell.mean - chance) / (best - chance))):.3f}"


def _fields(found: Findings) -> list[Field]:
    values: dict[str, set[str]] = {}
    for row in found.board.rows:
        for name, mark in row.plausibility.items():
            values.setdefault(name, set()).add(mark)
    shown = plausibility.columns(row.plausibility for row in found.board.rows)
    heads = {name: plausibility.feature(name) for name in shown}
    return [Field(n, h.name, h.meaning, bool(values[n] & {"yes", "no"})) for n, h in heads.items()]


def _task(found: Findings, task: str) -> dict[str, Any]:
    known = found.registry.tasks.get(task)
    columns = [_column(found, i) for i in found.tasks[task]]
    return {
        "title": f"{task}: rulezoo",
        "task": task,
        "spec": known.spec if known else None,
        "origin": known.origin if known else "",
        "columns": columns,
        "options": _options(found.registry, "task", task),
        "pictures": [figure for column in columns for figure in column["figures"]],
    }


def _column(found: Findings, i: int) -> dict[str, Any]:
    column = found.board.columns[i]
    conditions = [
        f"{name.removeprefix('option ').replace('_', ' ')} {as_text(value)}"
        for name, value in column.conditions.items()
        if name != "task"
    ]
    shown = [
        figures.cost_on_task(found, i),
        figures.curves_of_task(found, i),
        figures.perturbations(found, i),
        *figures.options(found, i),
        figures.angles_of_task(found, i),
    ]
    return {
        "column": column,
        "conditions": ", ".join(conditions),
        "figures": _present(shown),
        "results": list(_results(found, found.board.rows, [i])),
    }


def _results(found: Findings, rows: Sequence[Row], columns: Sequence[int] | range) -> Iterator[Result]:
    labels = list(found.grid.columns)
    for row in rows:
        for i in columns:
            cell, runs = row.cells[i], found.grid.runs(row.label, labels[i])
            if cell is None:
                continue
            column = found.board.columns[i]
            costs = [run.cost for run in runs if run.cost and not is_too_short(run)]
            memory = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb]
            last = max(runs, key=lambda run: run.answered.finished).answered
            yield Result(
                rule=row.rule,
                row=row.label,
                task=column.task,
                column=labels[i],
                metric=column.metric,
                chance=column.chance,
                cell=cell,
                stats=found.cells.get((row.label, labels[i])),
                hardware=tuple(sorted({_machine(run) for run in runs if run.cost})),
                step_ms=words.number(statistics.median(c.step_ms for c in costs)) if costs else "",
                memory=f"{max(memory):.0f}" if memory else "",
                setting=cell.setting,
                made=_made(last),
                command=command(runs),
                evaluations=_evaluated(found, found.board.rows.index(row), i),
            )


def _machine(run: Any) -> str:  # noqa: ANN401
    from rulezoo.leaderboard.names import machine

    return machine(run.answered.hardware)


def _made(answered: Any) -> str:  # noqa: ANN401
    version = answered.packages.get("rulezoo")
    commit = (
        f"commit {answered.commit[:10]}{' with changes' if answered.dirty else ''}" if answered.commit else ""
    )
    plugin = answered.rule_plugin
    foreign_rule = (
        f"{plugin.distribution} {plugin.version or ''}".strip() if plugin.distribution != "rulezoo" else ""
    )
    parts = [f"rulezoo {version}" if version else "", commit, foreign_rule, answered.finished[:10]]
    return ", ".join(part for part in parts if part)


def _options(registry: Registry, kind: str, name: str) -> list[Option] | None:
    """The options of a rule or task; ``None`` if it is not installed, or its code fails."""
    known = registry.rules if kind == "rule" else registry.tasks
    if name not in known:
        return None
    try:
        with foreign(f"{kind} {name!r} cannot be shown"):
            cls = registry.rule_class(name) if kind == "rule" else registry.task_class(name)
            return list(declared(cls).values())
    except UserError:
        return None


def _present(shown: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in shown if figure]


def _claims(pages: Pages, environment: Environment, found: Findings, shared: Mapping[str, Any]) -> None:
    shared = {**shared, "page": "claims", "pictures": ()}
    theory = claims_pages.theory(found.claims)
    shown, drawn = claims_pages.profiles(found.claims)
    if theory:
        context, drawn[context["picture"]] = theory
        title = "Theory and measurements: rulezoo"
        _page(pages, environment, "theory.html", "theory.html", {**shared, **context, "title": title})
    context = {
        "summary": claims_pages.summary(found.claims),
        "claims": shown,
        "has_theory": theory is not None,
    }
    _page(pages, environment, "claims.html", "claims.html", {**shared, **context, "title": "Claims: rulezoo"})
    pages |= {f"pictures/{name}": content for name, content in drawn.items()}
