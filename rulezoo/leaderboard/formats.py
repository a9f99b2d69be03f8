"""A `rulezoo.leaderboard.board.Board` written down: for readers, and as CSV and JSON for machines.

The words of a board are already on one line and free of control codes; each writer adds what its own format needs so
that a plugin's words stay words.
"""

from __future__ import annotations

import csv as csv_
import io
from typing import TYPE_CHECKING, Literal

import msgspec

from rulezoo.leaderboard import documents, terminal, words

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Board, Cell, Column, Row
    from rulezoo.leaderboard.evaluated import Head

Format = Literal["table", "md", "latex", "csv", "json"]
CSV = (
    *("rule", "rule_version", "label", "options", "ruleset", "setting"),
    *("task", "detail", "conditions", "metric", "chance"),
    *("n", "failed", "skipped", "mean", "sd", "cost", "mixed_hardware", "notes"),
)
VERIFICATION = (
    *("verification", "verification_reason", "checks_passed", "checks_failed", "checks_skipped"),
    *("verified_version", "verified_own_options", "verified_marks"),
)  #: columns of a board with verifications


def render(
    board: Board,
    format: Format = "table",  # noqa: A002  the name of the command line's option
    *,
    width: int = 100,
    color: bool = False,
) -> str:
    """Write the table; the same board gives the same bytes.

    Args:
        board: from `rulezoo.leaderboard.board.build`.
        format: ``table``, ``md`` and ``latex`` for reading, scores in %; ``csv`` (one line per cell) and ``json`` for
            machines, scores as fractions of 1.
        width: characters in a line of ``table``; columns that do not fit go into a second table below. Curves over
            options follow.
        color: whether ``table`` may use bold and colours; without it there is no control character.

    Raises:
        ValueError: if the format is not known.
    """
    match format:
        case "table":
            return terminal.table(board, width, color) + terminal.curves(board)
        case "md":
            return documents.markdown(board)
        case "latex":
            return documents.latex(board)
        case "csv":
            return csv(board)
        case "json":
            return json(board)
    raise ValueError(f"format must be table, md, latex, csv or json, got {format!r}")


def csv(board: Board) -> str:
    """One line for each cell; scores are fractions of 1."""
    fields = words.fields(board)
    out = io.StringIO()
    writer = csv_.writer(out, lineterminator="\n")
    evaluations = _evaluations(board)
    measured = [f"{label} {part}" for label in evaluations for part in ("mean", "sd", "n")]
    writer.writerow([*CSV, *fields, *(VERIFICATION if board.shows_verifications else ()), *measured])
    for row in board.rows:
        for column, cell in zip(board.columns, row.cells, strict=True):
            if cell is None:
                continue
            variant = (row.rule, row.version, row.label, _json(row.options), row.rulesets, cell.setting)
            asked = (column.task, column.detail, _json(column.conditions), column.metric, column.chance)
            came = (cell.n, cell.failed, cell.skipped, cell.mean, cell.sd, cell.cost, cell.mixed)
            marks: list[object] = [row.plausibility.get(field, "") for field in fields]
            marks += _verification(row) if board.shows_verifications else []
            for label in evaluations:
                marks += _evaluated(column, cell, label)
            writer.writerow(map(_no_formula, (*variant, *asked, *came, "; ".join(cell.notes), *marks)))
    return out.getvalue()


def _evaluations(board: Board) -> list[str]:
    """The evaluations of any column, each with the name of its value: ``calibration error``."""
    return list(dict.fromkeys(_name(one) for column in board.columns for one in column.evaluations))


def _name(head: Head) -> str:
    return f"{head.label} {head.headline}"


def _evaluated(column: Column, cell: Cell, name: str) -> list[object]:
    for head, one in zip(column.evaluations, cell.evaluations, strict=True):
        if _name(head) == name and one is not None:
            return [one.mean, one.sd, one.n]
    return ["", "", ""]


def _verification(row: Row) -> list[object]:
    one = row.verification
    if one is None:
        return [""] * len(VERIFICATION)
    numbers = (one.passed, one.failed, one.skipped, one.version, one.own_options)
    return [one.state, one.reason, *numbers, " ".join(one.marks)]


def json(board: Board) -> str:
    """Everything; scores are fractions of 1."""
    content = msgspec.to_builtins(board)
    for row in content["rows"] if not board.shows_verifications else ():
        del row["verification"]
    if not board.shows_evaluations:
        cells = (cell for row in content["rows"] for cell in row["cells"] if cell)
        for place in (*content["columns"], *cells):
            del place["evaluations"]
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"


def _json(values: object) -> str:
    return msgspec.json.encode(values).decode()


def _no_formula(value: object) -> object:
    """Spreadsheets run text that begins like a formula; an apostrophe keeps it text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
