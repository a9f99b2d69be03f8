"""Numbers, footnotes and the legend, as every written form of a leaderboard has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rulezoo.leaderboard import plausibility
from rulezoo.leaderboard.grid import LEAST_TIMED
from rulezoo.leaderboard.rows import DEFAULT
from rulezoo.leaderboard.rows import legend as rulesets
from rulezoo.text import number

if TYPE_CHECKING:
    from rulezoo.leaderboard import board
    from rulezoo.leaderboard.evaluated import Head
    from rulezoo.leaderboard.overview import Line, Overview
    from rulezoo.leaderboard.ranking import Ranking, Setting
    from rulezoo.leaderboard.stats import Estimate
    from rulezoo.leaderboard.verified import Verified

EMPTY = "No runs are stored yet. Run `rulezoo compare` to make some.\n"
SIGNS = {"better": "▲", "equal": "≈", "worse": "▼", "unknown": ""}

VERIFICATION = {
    "verified": "number of checks of the conformance suite that the rule passed, and none failed (version of the rule)",
    "*": "checked with the author's default options instead of those of the row",
    "stale": "verified with other code, another version or other declared marks, or it is not known which",
    "failed": "number of checks that the rule failed",
    "not examined": "the rule skipped every network of the suite",
}


def estimate(one: Estimate | None, *, signed: bool = False) -> tuple[str, str]:
    """Value and interval: ``("97.9", "[96.5, 99.1]")``; ``–`` where there is no value."""
    if one is None:
        return "–", ""
    interval = "" if one.method == "none" else f"[{number(one.low)}, {number(one.high)}]"
    return number(one.value, signed=signed), interval


def p_value(value: float) -> str:
    """``0.045``; ``< 0.001`` where it is smaller."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p(one: Setting | None) -> str:
    """The p of a setting; empty where it was not tested."""
    return p_value(one.difference.p) if one and one.difference else ""


def p_head(ranking: Ranking) -> str:
    """Head of a column of p, with the smallest value that it can have."""
    return f"p (≥ {p_value(ranking.smallest_p)})"


def cost(one: Setting | None) -> str:
    """In multiples of backprop; ``mixed`` where machines differed, ``–`` where too few steps were timed."""
    if one is None:
        return ""
    if one.cost is not None:
        return f"×{one.cost:.2f}"
    shown = [cell for cell in one.cells if cell]
    return "mixed" if any(cell.mixed for cell in shown) else "–" if any(cell.short for cell in shown) else ""


def score(cell: board.Cell | None) -> tuple[str, str]:
    """Mean and spread in %; ``–`` where a rule was run or skipped without a score."""
    if cell is None:
        return "", ""
    if cell.mean is None:
        return "–", ""
    return number(100 * cell.mean), "" if cell.sd is None else number(100 * cell.sd)


def suffix(cell: board.Cell | None, usual: int, footnotes: Mapping[str, int]) -> str:
    """The number of seeds, unless it is the ``usual`` one, and the numbers of the notes."""
    if cell is None:
        return ""
    parts = [f"(n={cell.n})"] if cell.mean is not None and cell.n != usual else []
    parts += [f"[{','.join(str(footnotes[note]) for note in cell.notes)}]"] if cell.notes else []
    return " ".join(parts)


def evaluated(cell: board.Cell | None, j: int) -> tuple[str, str]:
    """Mean and spread of evaluation ``j`` of a cell; ``–`` where it has no value, empty where it was not carried out."""
    one = cell.evaluations[j] if cell else None
    if one is None:
        return "", ""
    if one.mean is None:
        return "–", ""
    return _small(one.mean), "" if one.sd is None else _small(one.sd)


def evaluated_suffix(cell: board.Cell | None, j: int) -> str:
    """The number of networks of evaluation ``j``, unless it is the number of runs of the cell."""
    one = cell.evaluations[j] if cell else None
    return f"(n={one.n})" if cell and one and one.mean is not None and one.n != cell.n else ""


def _small(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 1e-2 <= abs(value) < 1e3 else f"{value:.3g}"


def best_evaluated(settings: Sequence[Setting | board.Row | None], head: Head, i: int, j: int) -> set[int]:
    """The positions of the best mean of evaluation ``j`` of column ``i``; none where neither direction is better."""
    means = {
        r: one.mean
        for r, setting in enumerate(settings)
        if setting and (cell := setting.cells[i]) and (one := cell.evaluations[j]) and one.mean is not None
    }
    if head.higher_is_better is None or not means:
        return set()
    best_mean = (max if head.higher_is_better else min)(means.values())
    return {r for r, mean in means.items() if mean == best_mean}


def verified_text(one: Verified | None) -> str:
    """A verification, e.g. ``75 (v1)``; empty without one."""
    if one is None:
        return ""
    if one.state != "verified":
        return f"{one.failed} failed" if one.state == "failed" else one.state
    return f"{one.passed} (v{one.version}){'' if one.own_options else '*'}"


def verified(line: Line) -> str:
    """The verification of a line."""
    return verified_text(line.verification)


def verified_marks(line: Line) -> Collection[str]:
    """The fields of plausibility of a line that were verified."""
    return line.verification.marks if line.verification else ()


def verification(shown: Sequence[Verified]) -> dict[str, str]:
    """Word of the column of verifications → its meaning, for the words that occur."""
    said = {one.state for one in shown} | {
        "*" for one in shown if one.state == "verified" and not one.own_options
    }
    return {word: meaning for word, meaning in VERIFICATION.items() if word in said}


def not_ranked(one: Setting) -> str:
    """The note on a setting that is not ranked."""
    return f"not ranked: {one.gap}"


def gap_note(one: Setting | None, footnotes: Mapping[str, int]) -> str:
    """The number of the note that says why a setting is not ranked."""
    return f"[{footnotes[not_ranked(one)]}]" if one and one.gap else ""


def footnotes(overview: Overview) -> dict[str, int]:
    """Sentence → number, in the order in which a reader meets them; the same sentence has one number."""
    notes: dict[str, None] = {}
    for line in overview.lines:
        notes |= dict.fromkeys(not_ranked(one) for one in line.settings if one.gap)
    for line in overview.lines:
        for one in line.settings:
            notes |= dict.fromkeys(note for cell in one.cells if cell for note in cell.notes)
    return {note: k for k, note in enumerate(notes, start=1)}


def legend(overview: Overview, *, bold: bool, letters: bool) -> list[str]:
    """What the numbers and heads are; ``letters`` says whether short heads were used."""
    settings = [one for line in overview.lines for one in line.settings]
    cells = [cell for one in settings for cell in one.cells if cell]
    lines = [*_aggregates(overview), _score(overview, bold=bold)]
    if any(cell.mixed or cell.cost is not None for cell in cells):
        machines = "; ".join(sorted({one for column in overview.columns for one in column.hardware}))
        lines.append(
            f"cost: time of a training step relative to backprop's in the same run, median over seeds and tasks; on {machines}"
        )
    if any(cell.short for cell in cells):
        lines.append(f"cost –: fewer than {LEAST_TIMED} steps were timed")
    if overview.shows_evaluations:
        lines.append(
            "evaluations of the trained networks: mean ± standard deviation over the seeds (↑: higher is better, "
            "↓: lower is better); `rulezoo show NAME` describes an evaluation"
        )
    lines += rulesets(ranking.name for ranking in overview.rankings)
    if any(line.kept and line.tuned is None for line in overview.lines):
        lines.append("= default: tuning kept the default on every task")
    return lines + list(_plausibility(overview, letters=letters))


def _aggregates(overview: Overview) -> Iterator[str]:
    if not any(ranking.by == "iqm" for ranking in overview.rankings):
        yield (
            "order: by the mean rank over the tasks, as there is no backprop above chance to compare with, with its 95 % "
            "bootstrap interval"
        )
        return
    relative = "; tuned settings are relative to tuned backprop" if _has_tuned_reference(overview) else ""
    yield (
        "% of backprop: interquartile mean of the runs of all tasks, chance = 0 % and backprop = 100 %, with its 95 % "
        f"bootstrap interval over seeds{relative}; lines are in this order"
    )
    yield (
        "Δ points: difference to backprop in the same unit, mean over pairs of task and seed, with its 95 % interval: ▲ better, "
        "▼ worse, ≈ the interval contains 0"
    )
    first = overview.rankings[0]
    if first.tests:
        corrected = f", corrected for {first.tests} rules (Holm)" if first.tests > 1 else ""
        yield (
            f"p: two-sided paired sign-flip test against backprop{corrected}; {_count(first.pairs, 'pair')} of task and seed "
            f"cannot give less than {p_value(first.smallest_p)}"
        )
    for column, why in {k: v for one in overview.rankings for k, v in one.left_out.items()}.items():
        yield f"{column} is left out of % of backprop, Δ and p: {why}"


def _has_tuned_reference(overview: Overview) -> bool:
    return any(ranking.tuned_reference for ranking in overview.rankings)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _score(overview: Overview, *, bold: bool) -> str:
    spread = f"mean ± standard deviation over {overview.seeds} seeds" if overview.seeds > 1 else "of one seed"
    levels = sorted({f"{100 * c.chance:.1f}" for c in overview.columns})
    each = ", ".join(f"{c.label} {100 * c.chance:.1f}" for c in overview.columns)
    at = each if len(levels) > 1 else levels[0]
    tied = (
        "; bold: the best, and all whose paired difference to it has a 95 % interval that contains 0"
        if bold
        else ""
    )
    has_both = len(overview.rankings) > 1 and overview.rankings[0].name == DEFAULT
    both = ", default → tuned" if has_both else ""
    return f"scores: on test data, {spread}{both}; a failed run counts at chance ({at}){tied}"


def _plausibility(overview: Overview, *, letters: bool) -> Iterator[str]:
    marks = [line.plausibility for line in overview.lines]
    if fields := plausibility.columns(marks):
        shown = {plausibility.mark(one, field) for one in marks for field in fields}
        ticks = any(verified_marks(line) for line in overview.lines)
        yield plausibility.legend(fields, shown, letters=letters, ticks=ticks)
    known = [line.verification for line in overview.lines if line.verification]
    if explained := verification(known):
        yield "; ".join(f"{word}: {meaning}" for word, meaning in explained.items())
