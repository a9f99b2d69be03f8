"""The pages: what each template is given."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from rulezoo import __version__
from rulezoo.discovery.plugins import foreign
from rulezoo.errors import UserError
from rulezoo.leaderboard import plausibility, references
from rulezoo.leaderboard import words as board_words
from rulezoo.leaderboard.grid import is_too_short
from rulezoo.options import Option, as_text, declared
from rulezoo.report import figures, pairs, pictures, table, words
from rulezoo.report.commands import command

if TYPE_CHECKING:
    from jinja2 import Environment

    from rulezoo.discovery.registry import Registry
    from rulezoo.leaderboard import stats
    from rulezoo.leaderboard.board import Cell, Row
    from rulezoo.leaderboard.evaluated import Head
    from rulezoo.report.figures import Figure
    from rulezoo.report.findings import Findings

Pages = dict[str, bytes]
_CITATION = Markup(f"""@software{{rulezoo,
  author = {{{{The rulezoo contributors}}}},
  title = {{{{rulezoo}}: biologically plausible learning rules for {{PyTorch}}, compared fairly}},
  version = {{{__version__}}}
}}""")  # several lines, which `words.finalize` would join


class Evaluated(NamedTuple):
    """An evaluation of a cell: its head, mean, spread and number of networks as text."""

    head: Head
    mean: str
    sd: str
    few: str


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
        "page": "",
        "citation": _CITATION,
        "signs": board_words.SIGNS,
        "found": found,
    }
    pages: Pages = {}
    with pictures.style():
        _page(
            pages, environment, "index.html", "index.html", {**shared, "page": "leaderboard", **_index(found)}
        )
        for rule in found.rules:
            context = {**shared, "root": "../", **_rule(found, rule)}
            _page(pages, environment, "rule.html", f"rules/{rule}.html", context)
        for task in found.tasks:
            context = {**shared, "root": "../", **_task(found, task)}
            _page(pages, environment, "task.html", f"tasks/{task}.html", context)
    for ranking in found.overview.rankings:
        pages[f"pairs-{ranking.name}.js"] = pairs.script(found, ranking)
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
        "linked": words.linked,
        "value": as_text,
        "variant": plausibility.variant,
        "order": lambda value: f"{value:.6g}",
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
    overview, specs = found.overview, found.registry.rules
    shown = _present([figures.places(found), figures.cost(found)]) if overview.lines else []
    verified = [line.verification for line in overview.lines if line.verification]
    return {
        "title": "rulezoo: learning rules, compared",
        "tables": table.tables(found) if overview.rankings else [],
        "families": sorted({line.family for line in overview.lines}),
        "filters": _filters(found),
        "legend": board_words.legend(overview, bold=True, letters=False) if overview.lines else [],
        "notes": list(board_words.footnotes(overview)),
        "verification": board_words.verification(verified),
        "figures": shown,
        "pictures": shown,
        "rules": [_card(name, specs.get(name), found.family(name)) for name in found.rules],
        "tasks": [_card(name, found.registry.tasks.get(name), "") for name in found.tasks],
    }


def _filters(found: Findings) -> list[plausibility.Feature]:
    """The features of plausibility that a rule may be free of."""
    marks = [line.plausibility for line in found.overview.lines]
    return [
        plausibility.feature(field)
        for field in plausibility.columns(marks)
        if any(plausibility.symbol(one, field) in (plausibility.HAS, plausibility.HAS_NOT) for one in marks)
    ]


def _card(name: str, found: Any, family: str) -> dict[str, str]:  # noqa: ANN401  a rule or a task
    summary = found.spec.summary if found else "not installed where this page was written"
    return {"name": name, "family": family, "summary": summary}


def _evaluated(found: Findings, at: int, i: int) -> list[Evaluated]:
    """The evaluations of a cell, one for each of its column's."""
    board = found.board
    cell, shown = board.rows[at].cells[i], []
    for j, head in enumerate(board.columns[i].evaluations):
        mean, sd = board_words.evaluated(cell, j)
        shown.append(Evaluated(head, mean, sd, board_words.evaluated_suffix(cell, j)))
    return shown


def _rule(found: Findings, rule: str) -> dict[str, Any]:
    known = found.registry.rules.get(rule)
    curves = figures.curves_of_rule(found, rule)
    angles = list(figures.angles_of_rule(found, rule))
    published = [(one, references.verdict(one, found.records)) for one in references.of_rule(rule)]
    marks = known.spec.plausibility.marks() if known and known.spec.plausibility else {}
    heads = {name: plausibility.feature(name) for name in marks}
    verified = found.verified(rule)
    checks = verified.marks if verified else {}
    return {
        "title": f"{rule}: rulezoo",
        "rule": rule,
        "spec": known.spec if known else None,
        "origin": known.origin if known else "",
        "marks": [
            {
                "name": heads[n].name,
                "field": n,
                "mark": m,
                "meaning": heads[n].meaning,
                "checks": checks.get(n, ()),
            }
            for n, m in marks.items()
        ],
        "verified": verified,
        "options": _options(found.registry, "rule", rule),
        "results": list(_results(found, found.rules[rule], range(len(found.board.columns)))),
        "curves": curves,
        "angles": angles,
        "pictures": _present([curves, *angles]),
        "published": published,
        "sources": list(dict.fromkeys(one.source for one, _ in published)),
    }


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
        "tables": table.of_task(found, i),
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
    from rulezoo.claims.report import Judgement, protocol, tuning

    claims: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
    for one in found.claims:
        tables = [protocol(one.study)]
        picture, sentence = "", ""
        if isinstance(one.judgement, Judgement):
            tables += [*one.judgement.tables, *tuning(one.study, one.evidence)]
            if one.judgement.chart and isinstance(one.picture, bytes):
                picture, sentence = one.figure, one.judgement.chart.description
                pages[f"pictures/{picture}"] = one.picture
        entry = {
            "finding": one,
            "verdict": one.verdict,
            "problem": one.problem(drawn=True),
            "tables": tables,
            "picture": picture,
            "words": sentence,
        }
        claims.setdefault(one.claim.name, (one.claim, []))[1].append(entry)
    context = {
        **shared,
        "page": "claims",
        "title": "Claims: rulezoo",
        "claims": list(claims.values()),
        "pictures": (),
    }
    _page(pages, environment, "claims.html", "claims.html", context)
