"""The rows of a leaderboard: which runs stand together, and under what name.

A row is a variant of a rule: its version and options. What a tuning chose may differ from task to task, so the runs
of its winners stand in a row of their own, named by the ruleset. They leave the row of their options, unless the
winner is what the tuning started from: then one run stands for both, and where that is so on every task, one row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulezoo.leaderboard import names
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.names import Answers, Facts, Identity
    from rulezoo.results.records import Record
    from rulezoo.tuning.records import Tuned

DEFAULT = "default"  #: ruleset of runs with the author's defaults
SET = "set"  #: ruleset of runs with options that the user set


@dataclass(frozen=True)
class Group:
    """A row before its scores are counted.

    Attributes:
        label: its name on the leaderboard.
        ruleset: ``default``, ``set`` or, e.g., ``tuned-8``.
        options: of the rule; of a tuned row, those that the user gave.
        runs: oldest first.
        settings: conditions, which make a column → what a tuner chose under them; empty unless the row was tuned.
        kept: rulesets, e.g. ``tuned-8``, for which these options won on every task: they have no row of their own.
    """

    label: str
    ruleset: str
    options: Facts
    runs: list[Record]
    settings: dict[Identity, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def groups(
    records: Sequence[Record], tunings: Iterable[Tuned] = (), answers: Answers | None = None
) -> dict[Identity, Group]:
    """The rows of some records, oldest first, by what identifies them; ``answers`` may know them already."""
    answers = answers or names.Answers()
    tuned, moved = _tuned(records, tunings, answers)
    plain: dict[Identity, list[Record]] = defaultdict(list)
    for record in records:
        if record.asked.key not in moved:
            plain[answers(record.asked)[0]].append(record)
    labels = names.labels(plain)
    kept = _kept(plain, tuned)
    own = {row: group for row, group in tuned.items() if not any(row in rows for rows in kept.values())}
    return {
        row: _plain(runs, labels[row], tuple(tuned[one].ruleset for one in kept[row]))
        for row, runs in plain.items()
    } | own


def _kept(
    plain: Mapping[Identity, list[Record]], tuned: Mapping[Identity, Group]
) -> dict[Identity, list[Identity]]:
    """Row → the tuned rows that hold the very same runs."""
    rows = {frozenset(run.asked.key for run in runs): row for row, runs in plain.items()} if tuned else {}
    found: dict[Identity, list[Identity]] = {row: [] for row in plain}
    for row, group in tuned.items():
        if same := rows.get(frozenset(run.asked.key for run in group.runs)):
            found[same].append(row)
    return found


def _plain(runs: list[Record], label: str, kept: tuple[str, ...]) -> Group:
    options = names.safe(dict(sorted(runs[0].asked.rule_options.items())))
    return Group(label, SET if any(run.changed for run in runs) else DEFAULT, options, runs, kept=kept)


def _tuned(
    records: Sequence[Record], tunings: Iterable[Tuned], answers: Answers
) -> tuple[dict[Identity, Group], set[str]]:
    """The tuned rows, and the keys of the runs that stand in no other."""
    if not (tunings := list(tunings)):
        return {}, set()
    by_answer: dict[tuple[Identity, Identity], list[Record]] = defaultdict(list)
    for record in records:
        by_answer[answers(record.asked)].append(record)
    found: dict[Identity, Group] = {}
    moved: set[str] = set()
    for tuned in tunings:
        runs = by_answer.get(names.answers(tuned.asked), [])
        if not runs:
            continue
        row = names.identity(names.tuned_variant(tuned))
        new = Group(
            names.tuned_label(tuned), tuned.ruleset, names.safe(dict(sorted(tuned.given.items()))), []
        )
        group = found.setdefault(row, new)
        group.runs.extend(runs)
        group.settings[names.answers(tuned.asked)[1]] = names.setting(tuned)
        moved |= {run.asked.key for run in runs if tuned.winner.set}
    return found, moved


def legend(rulesets: Iterable[str]) -> list[str]:
    """What the words for tuned rows mean, a sentence for each."""
    return [
        f"{clean(one)}: for each rule and task the best of {one.removeprefix('tuned-')} trials on validation data, the "
        "author's default among them; trials have seeds of their own and never read the test data"
        for one in dict.fromkeys(rulesets)
        if one not in (DEFAULT, SET)
    ]
