"""A tuning in words. Scores are those on validation data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rulezoo.leaderboard.names import setting, tuned_label
from rulezoo.options import as_text
from rulezoo.tuning.records import Tried, Tuned

HEAD = ("trial", "validation", "after half", "ended", "options")


def summary(tuned: Tuned) -> str:
    """One line: what won, and by how much."""
    first, winner = tuned.trials[0], tuned.winner
    line = f"{tuned.asked.task}  {tuned_label(tuned)}: {setting(tuned)}"
    if winner is not first:
        line += f"  validation {_percent(winner.validation)}, the default's {_percent(first.validation) or 'none'}"
    elif len(tuned.trials) == 1:
        line += ", for there was nothing to search"
    elif winner.validation is None:
        line += ", for no trial ended well"
    else:
        line += f"  validation {_percent(winner.validation)}"
    ended = [trial.status for trial in tuned.trials]
    counts = [f"{ended.count(status)} {status}" for status in dict.fromkeys(ended) if status != "ok"]
    return f"{line}  ({len(tuned.trials)} trials{''.join(f', {count}' for count in counts)})"


def failures(tuned: Tuned) -> str | None:
    """One sentence if trials failed in a way that says nothing of their options, and so may have changed the winner."""
    if not tuned.failed:
        return None
    ended = [trial.status for trial in tuned.failed]
    counts = ", ".join(f"{ended.count(status)} {status}" for status in dict.fromkeys(ended))
    return (
        f"tuning of {tuned.asked.rule} on {tuned.asked.task}: {len(ended)} of {len(tuned.trials)} trials failed "
        f"({counts}) and could not win, so the winner may be another one; the same command with --retry failed runs "
        "them again"
    )


def rows(tuned: Tuned) -> Iterator[Sequence[str]]:
    """A row for each trial, under `HEAD`; the winner is marked."""
    for place, trial in enumerate(tuned.trials):
        mark = " *" if place == tuned.best else ""
        yield (
            f"{place}{mark}",
            _percent(trial.validation),
            _percent(trial.halfway),
            trial.status,
            _options(trial),
        )


def _options(trial: Tried) -> str:
    words = " ".join(f"{name}={as_text(value)}" for name, value in sorted(trial.set.items()))
    return words or "the default"


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.1f} %"
