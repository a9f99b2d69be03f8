"""What the pages say of a board besides its numbers: footnotes, marks of the best, and the legend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rulezoo.leaderboard import rows as board_rows
from rulezoo.leaderboard import words
from rulezoo.leaderboard.grid import LEAST_TIMED

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Board, Row


def verified_cell(board: Board, row: Row) -> str:
    """The column of verifications of a row, e.g. ``75 (v1)``, where there is such a column."""
    return words.verified_text(row.verification) if board.shows_verifications else ""


def verification(board: Board) -> dict[str, str]:
    """Word of the column of verifications → its meaning, for the words that occur."""
    return words.verification([row.verification for row in board.rows if row.verification])


def best(board: Board, i: int) -> set[int]:
    """The rows with the highest mean of column ``i``, among those with a run that did not fail."""
    means = {
        r: cell.mean
        for r, row in enumerate(board.rows)
        if (cell := row.cells[i]) and cell.mean is not None and cell.failed < cell.n
    }
    highest = max(means.values(), default=None)
    return {r for r, mean in means.items() if mean == highest}


def best_evaluated(board: Board, i: int, j: int) -> set[int]:
    """The rows with the best mean of evaluation ``j`` of column ``i``; none where no way is better."""
    return words.best_evaluated(board.rows, board.columns[i].evaluations[j], i, j)


def footnotes(board: Board) -> dict[str, int]:
    """Sentence → number, in the order in which a reader meets them; the same sentence has one number."""
    notes = dict.fromkeys(note for row in board.rows for cell in row.cells if cell for note in cell.notes)
    return {note: k for k, note in enumerate(notes, start=1)}


def numbers(board: Board, *, bold: bool) -> list[str]:
    """What the numbers of a board that has rows are."""
    spread = f"mean ± standard deviation over {board.seeds} seeds" if board.seeds > 1 else "of one seed"
    levels = sorted({f"{100 * c.chance:.1f}" for c in board.columns})
    each = ", ".join(f"{c.label} {100 * c.chance:.1f}" for c in board.columns)
    bold_is = ", the best in bold" if bold else ""
    at = each if len(levels) > 1 else levels[0]
    lines = [f"score: on test data, {spread}{bold_is}; a failed run counts at chance ({at})"]
    if any(cell and (cell.mixed or cell.cost is not None) for row in board.rows for cell in row.cells):
        machines = "; ".join(sorted({machine for column in board.columns for machine in column.hardware}))
        lines.append(f"cost: time of a step relative to backprop's in the same run, median; on {machines}")
    if any(cell and cell.short for row in board.rows for cell in row.cells):
        lines.append(f"cost –: fewer than {LEAST_TIMED} steps were timed")
    lines.append(_order(board))
    if board.shows_evaluations:
        lines.append(
            "evaluations of the trained networks: mean ± standard deviation over the seeds (↑: higher is better, "
            "↓: lower is better); `rulezoo show NAME` describes an evaluation"
        )
    lines += board_rows.legend(one for row in board.rows for one in (row.ruleset, *row.kept))
    return lines + list(_kept(board))


def _kept(board: Board) -> Iterator[str]:
    """Which rows stand for a tuning, too, a sentence for each tuning."""
    for one in dict.fromkeys(one for row in board.rows for one in row.kept):
        rows = ", ".join(row.label for row in board.rows if one in row.kept)
        yield f"{one} kept the options that it began with on every task, so one row stands for both: {rows}"


def _order(board: Board) -> str:
    by = f"interquartile mean of the runs, chance = 0 and {board.reference} = 1"
    if not any(row.score is not None for row in board.rows):
        by = "mean rank over the tasks, as there is no backprop above chance to measure by"
    last = "; a row that lacks runs or skips a task is not ranked and stands last"
    return f"order: by the {by}{last if any(row.gap for row in board.rows) else ''}"
