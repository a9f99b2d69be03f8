"""A leaderboard for machines: CSV with one line for each setting and task or for each run, and JSON. Scores are fractions of 1."""

from __future__ import annotations

import csv as csv_
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from rulezoo.leaderboard import plausibility, summary

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Column
    from rulezoo.leaderboard.evaluated import Head
    from rulezoo.leaderboard.overview import Line, Overview
    from rulezoo.leaderboard.ranking import Cell, Setting
    from rulezoo.leaderboard.stats import Estimate

LINE = ("rule", "rule_version", "label", "variant", "family", "options", "setting")
AGGREGATE = (
    *("rank", "rank_low", "rank_high", "mean_rank"),
    *("percent_of_backprop", "percent_low", "percent_high"),
    *("difference_points", "difference_low", "difference_high", "sign", "p", "smallest_p", "pairs"),
    *("median_cost", "not_ranked", "tuning_kept_the_default"),
)
TASK = ("task", "detail", "conditions", "metric", "chance")
CELL = (
    *("chosen", "n", "failed", "skipped", "mean", "sd", "ties_with_best"),
    *("cost", "mixed_hardware", "notes"),
)
RUN = ("chosen", "seed", "status", "score", "cost", "key")
VERIFICATION = (
    *("verification", "verification_reason", "checks_passed", "checks_failed", "checks_skipped"),
    *("verified_version", "verified_own_options", "verified_marks"),
)  #: columns of a leaderboard with verifications


def csv(overview: Overview) -> str:
    """One line for each setting and task: what is known of the setting, then of its runs on the task."""
    fields = plausibility.ordered(field for line in overview.lines for field in line.plausibility)
    evaluations = _evaluations(overview)
    head = [*LINE, *AGGREGATE, *TASK, *CELL, *fields, *(VERIFICATION if overview.shows_verifications else ())]
    rows = (
        [
            *_line(line, setting),
            *_aggregate(line, setting),
            *_column(column),
            *_cell(cell),
            *(line.plausibility.get(field, "") for field in fields),
            *(_verification(line) if overview.shows_verifications else ()),
            *(value for label in evaluations for value in _evaluated(column, cell, label)),
        ]
        for line, setting, column, cell in _cells(overview)
    )
    return _written(
        [*head, *(f"{label} {part}" for label in evaluations for part in ("mean", "sd", "n"))], rows
    )


def runs(overview: Overview) -> str:
    """One line for each run; the score of a run that failed is empty, and counts at chance level."""
    rows = (
        [
            *_line(line, setting),
            *_column(column),
            cell.setting,
            run.seed,
            run.status,
            run.score,
            run.cost,
            run.key,
        ]
        for line, setting, column, cell in _cells(overview)
        for run in cell.runs
    )
    return _written([*LINE, *TASK, *RUN], rows)


def _cells(overview: Overview) -> Iterator[tuple[Line, Setting, Column, Cell]]:
    for line in overview.lines:
        for setting in line.settings:
            for column, cell in zip(overview.columns, setting.cells, strict=True):
                if cell is not None:
                    yield line, setting, column, cell


def _written(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv_.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_no_formula(value) for value in row] for row in rows)
    return out.getvalue()


def _line(line: Line, setting: Setting) -> list[object]:
    own = (line.rule, line.version, line.label, line.variant, line.family)
    return [*own, _json(line.options), setting.ruleset]


def _aggregate(line: Line, one: Setting) -> list[object]:
    rank, test = one.rank, one.difference
    ranks = [rank.value, rank.low, rank.high] if rank else [""] * 3
    tests = [test.sign, test.p, test.smallest_p, test.pairs] if test else [""] * 4
    return [
        *ranks,
        one.mean_rank.value if one.mean_rank else "",
        *_estimate(one.percent),
        *_estimate(test.points if test else None),
        *tests,
        one.cost,
        one.gap,
        line.kept,
    ]


def _estimate(one: Estimate | None) -> list[object]:
    if one is None:
        return [""] * 3
    return [one.value, *(["", ""] if one.method == "none" else [one.low, one.high])]


def _column(column: Column) -> list[object]:
    return [column.task, column.detail, _json(column.conditions), column.metric, column.chance]


def _cell(cell: Cell) -> list[object]:
    numbers = (cell.n, cell.failed, cell.skipped, cell.mean, cell.sd, cell.best)
    return [cell.setting, *numbers, cell.cost, cell.mixed, "; ".join(cell.notes)]


def _verification(line: Line) -> list[object]:
    one = line.verification
    if one is None:
        return [""] * len(VERIFICATION)
    numbers = (one.passed, one.failed, one.skipped, one.version, one.own_options)
    return [one.state, one.reason, *numbers, " ".join(one.marks)]


def _evaluations(overview: Overview) -> list[str]:
    """The evaluations of any column, each with the name of its value: ``calibration error``."""
    return list(dict.fromkeys(_name(one) for column in overview.columns for one in column.evaluations))


def _name(head: Head) -> str:
    return f"{head.label} {head.headline}"


def _evaluated(column: Column, cell: Cell, name: str) -> list[object]:
    for head, one in zip(column.evaluations, cell.evaluations, strict=True):
        if _name(head) == name and one is not None:
            return [one.mean, one.sd, one.n]
    return ["", "", ""]


def json(overview: Overview) -> str:
    """Everything; a ranking names its lines in order, and their settings stand in the lines."""
    content = msgspec.to_builtins(overview)
    content = {"sentence": summary.sentence(overview), **content}
    for ranking in content["rankings"]:
        settings = ranking.pop("settings")
        ranking["ranks"] = {label: one["rank"] for label, one in settings.items()}
    if not overview.shows_verifications:
        for line in content["lines"]:
            del line["verification"]
    if not overview.shows_evaluations:
        settings = (line[name] for line in content["lines"] for name in ("default", "tuned") if line[name])
        cells = (cell for one in settings for cell in one["cells"] if cell)
        for place in (*content["columns"], *cells):
            del place["evaluations"]
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def _json(values: object) -> str:
    return msgspec.json.encode(values).decode()


def _no_formula(value: object) -> object:
    """Spreadsheets run text that begins like a formula; an apostrophe keeps it text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
