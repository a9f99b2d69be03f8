"""What every written form of a board says beside its numbers: heads, footnotes and the legend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from rulezoo.leaderboard import rows as board_rows
from rulezoo.leaderboard.grid import LEAST_TIMED

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Board, Cell, Row


EMPTY = "No runs are stored yet. Run `rulezoo compare` to make some.\n"


class Head(NamedTuple):
    """What stands over a column of plausibility."""

    letter: str  # for a table that is short of room
    word: str
    meaning: str


PLAUSIBILITY = {
    "weight_transport": Head("W", "copy", "feedback uses the forward weights or their signs"),
    "backward_pass": Head("B", "back", "errors travel back layer by layer"),
    "update_locking": Head("L", "lock", "layers wait for the error of the output"),
    "past_storage": Head("T", "past", "updates need stored activity of earlier time steps"),
    "perturbation": Head("N", "noise", "activity is perturbed"),
    "signal": Head("signal", "signal", "error signal each neuron receives"),
    "phases": Head("P", "extra", "extra forward or backward passes per update"),
    "hidden_learning": Head("H", "hidden", "hidden layers learn"),
}
FIXED, FIXED_MEANING = "fixed", "hidden layers do not learn"  #: in place of a signal
SHORT = {"yes": "●", "no": "·", "neuron-specific": "neuron"}  #: marks as a terminal shows them


def head_of(field: str) -> Head:
    """The head of a field; one that a plugin made up is its own explanation."""
    words = field.replace("_", " ")
    return PLAUSIBILITY.get(field, Head(words, words, words))


def fields(board: Board) -> list[str]:
    """The fields of plausibility that are known of any row."""
    present = dict.fromkeys(field for row in board.rows for field in row.plausibility)
    return sorted(
        present, key=lambda f: list(PLAUSIBILITY).index(f) if f in PLAUSIBILITY else len(PLAUSIBILITY)
    )


def narrow_fields(board: Board) -> list[str]:
    """The same for a table that is short of room: `narrow_mark` shows whether hidden layers learn in place of the signal."""
    return [field for field in fields(board) if field != "hidden_learning"]


def narrow_mark(row: Row, field: str) -> str:
    """A mark for a table that is short of room; see `narrow_fields`."""
    fixed = field == "signal" and row.plausibility.get("hidden_learning") == "no"
    return FIXED if fixed else row.plausibility.get(field, "")


def verified_head(board: Board) -> list[str]:
    """The head of the column of verifications, where there is one."""
    return ["verified"] if board.shows_verifications else []


def verified_cell(board: Board, row: Row) -> list[str]:
    """What the column of verifications says of a row, e.g. ``75 (v1)``, where there is such a column."""
    if not board.shows_verifications:
        return []
    one = row.verification
    if one is None:
        return [""]
    if one.state != "verified":
        return [f"{one.failed} failed" if one.state == "failed" else one.state]
    return [f"{one.passed} (v{one.version}){'' if one.own_options else '*'}"]


VERIFICATION = {
    "verified": "number of checks of the conformance suite that the rule passed, and none failed (version of the rule)",
    "*": "checked with the author's default options instead of those of the row",
    "stale": "verified with other code, another version or other declared marks, or it is not known which",
    "failed": "number of checks that the rule failed",
    "not examined": "the rule skipped every network of the suite",
}


def verification(board: Board) -> dict[str, str]:
    """Word of the column of verifications → its meaning, for the words that occur."""
    shown = [row.verification for row in board.rows if row.verification]
    said = {one.state for one in shown} | {
        "*" for one in shown if one.state == "verified" and not one.own_options
    }
    return {word: meaning for word, meaning in VERIFICATION.items() if word in said}


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
    higher = board.columns[i].evaluations[j].higher_is_better
    means = {
        r: one.mean
        for r, row in enumerate(board.rows)
        if (cell := row.cells[i]) and (one := cell.evaluations[j]) and one.mean is not None
    }
    if higher is None or not means:
        return set()
    best_mean = (max if higher else min)(means.values())
    return {r for r, mean in means.items() if mean == best_mean}


def evaluated(cell: Cell | None, j: int) -> tuple[str, str]:
    """Mean and spread of evaluation ``j`` of a cell; ``–`` where it has no value, empty where it was not carried out."""
    one = cell.evaluations[j] if cell else None
    if one is None:
        return "", ""
    if one.mean is None:
        return "–", ""
    return _number(one.mean), "" if one.sd is None else _number(one.sd)


def evaluated_suffix(cell: Cell | None, j: int) -> str:
    """The number of networks of evaluation ``j``, unless it is the number of runs of the cell."""
    one = cell.evaluations[j] if cell else None
    return f"(n={one.n})" if cell and one and one.mean is not None and one.n != cell.n else ""


def _number(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 1e-2 <= abs(value) < 1e3 else f"{value:.3g}"


def footnotes(board: Board) -> dict[str, int]:
    """Sentence → number, in the order in which a reader meets them; the same sentence has one number."""
    notes = dict.fromkeys(note for row in board.rows for cell in row.cells if cell for note in cell.notes)
    return {note: k for k, note in enumerate(notes, start=1)}


def legend(board: Board, *, bold: bool, short: bool | None) -> list[str]:
    """What the numbers are, and the heads; ``short`` says which heads were used, ``None`` the fields' names."""
    lines = numbers(board, bold=bold)
    if short is None:
        heads = {f.replace("_", " "): head_of(f).meaning for f in fields(board)}
    else:
        heads = {head_of(f)[0 if short else 1]: _narrow_meaning(board, f) for f in narrow_fields(board)}
    if heads:
        lines.append("; ".join(f"{head}: {meaning}" for head, meaning in heads.items()))
    if explained := verification(board):
        lines.append("; ".join(f"{word}: {meaning}" for word, meaning in explained.items()))
    return lines


def _narrow_meaning(board: Board, field: str) -> str:
    """What a field means, and the words that stand for longer ones."""
    shown = {narrow_mark(row, field) for row in board.rows}
    long = {
        "neuron-specific": f"{SHORT['neuron-specific']} = neuron-specific",
        FIXED: f"{FIXED} = {FIXED_MEANING}",
    }
    explained = "; ".join(words for mark, words in long.items() if mark in shown)
    return f"{head_of(field).meaning} ({explained})" if explained else head_of(field).meaning


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


def score(cell: Cell | None) -> tuple[str, str]:
    """Mean and spread in %; ``–`` where a rule was run or skipped without a score."""
    if cell is None:
        return "", ""
    if cell.mean is None:
        return "–", ""
    return f"{100 * cell.mean:.1f}", "" if cell.sd is None else f"{100 * cell.sd:.1f}"


def cost(cell: Cell | None) -> str:
    """In multiples of backprop; ``mixed`` where machines differed, ``–`` where too few steps were timed."""
    if cell is not None and cell.short:
        return "–"
    if cell is None or (cell.cost is None and not cell.mixed):
        return ""
    return "mixed" if cell.mixed else f"×{cell.cost:.2f}"


def suffix(cell: Cell | None, usual: int, footnotes: dict[str, int]) -> str:
    """How many seeds, unless it is the ``usual`` number, and the numbers of the notes."""
    if cell is None:
        return ""
    parts = [f"(n={cell.n})"] if cell.mean is not None and cell.n != usual else []
    parts += [f"[{','.join(str(footnotes[note]) for note in cell.notes)}]"] if cell.notes else []
    return " ".join(parts)
