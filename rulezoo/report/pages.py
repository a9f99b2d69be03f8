"""The pages: what each template is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rulezoo import __version__
from rulezoo.leaderboard import plausibility
from rulezoo.leaderboard import words as board_words
from rulezoo.options import as_text
from rulezoo.report import claims_pages, figures, pairs, pictures, rule_page, table, words
from rulezoo.specs import file_name

if TYPE_CHECKING:
    from jinja2 import Environment

    from rulezoo.report.figures import Figure
    from rulezoo.report.findings import Findings

Pages = dict[str, bytes]
_CITATION = Markup(f"""@software{{rulezoo,
  author = {{{{The rulezoo contributors}}}},
  title = {{{{rulezoo}}: biologically plausible learning rules for {{PyTorch}}, compared fairly}},
  version = {{{__version__}}}
}}""")  # several lines, which `words.finalize` would join


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
            context = {**shared, "root": "../", **rule_page.context(found, rule)}
            _page(pages, environment, "rule.html", f"rules/{rule}.html", context)
        for task in found.tasks:
            context = {**shared, "root": "../", **_task(found, task)}
            _page(pages, environment, "task.html", f"tasks/{file_name(task)}.html", context)
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
        "file_name": file_name,
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
    shown = [figure for ranking in overview.rankings for figure in figures.of_ranking(found, ranking)]
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


def _task(found: Findings, task: str) -> dict[str, Any]:
    known = found.registry.tasks.get(task)
    columns = [_column(found, i) for i in found.tasks[task]]
    return {
        "title": f"{task}: rulezoo",
        "task": task,
        "spec": known.spec if known else None,
        "origin": known.origin if known else "",
        "columns": columns,
        "options": rule_page.options(found.registry, "task", task),
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


def _present(shown: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in shown if figure]


def _claims(pages: Pages, environment: Environment, found: Findings, shared: Mapping[str, Any]) -> None:
    shared = {**shared, "page": "claims", "pictures": ()}
    theory = claims_pages.theory(found.claims)
    shown, drawn = claims_pages.profiles(found.claims)
    if theory:
        context, drawn[theory[0]["picture"]] = theory
        title = "Theory and measurements: rulezoo"
        _page(pages, environment, "theory.html", "theory.html", {**shared, **context, "title": title})
    context = {
        "summary": claims_pages.summary(found.claims),
        "claims": shown,
        "has_theory": theory is not None,
    }
    _page(pages, environment, "claims.html", "claims.html", {**shared, **context, "title": "Claims: rulezoo"})
    pages |= {f"pictures/{name}": content for name, content in drawn.items()}
