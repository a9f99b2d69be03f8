"""The rows of a board: which runs stand together, and under what name.

A row is a variant of a rule: its version and options. What a tuning chose may differ from task to task, so the runs
of its winners stand in a row of their own, named by the ruleset. They leave the row of their options, unless the
winner is what the tuning started from: then one run stands for both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulezoo.leaderboard import names
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.names import Facts, Identity
    from rulezoo.results.records import Record
    from rulezoo.tuning.records import Tuned

DEFAULT = "default"  #: ruleset of runs with the author's defaults
SET = "set"  #: ruleset of runs with options that the user set


@dataclass(frozen=True)
class Group:
    """A row before its scores are counted.

    Attributes:
        label: its name on the board.
        ruleset: ``default``, ``set`` or, e.g., ``tuned-8``.
        options: of the rule; of a tuned row, those that the user gave.
        runs: oldest first.
        settings: conditions, which make a column → what a tuner chose under them; empty unless the row was tuned.
    """

    label: str
    ruleset: str
    options: Facts
    runs: list[Record]
    settings: dict[Identity, str] = field(default_factory=dict)


def groups(records: Sequence[Record], tunings: Iterable[Tuned] = ()) -> dict[Identity, Group]:
    """The rows of some records, oldest first, by what identifies them."""
    tuned, moved = _tuned(records, tunings)
    plain: dict[Identity, list[Record]] = defaultdict(list)
    for record in records:
        if record.asked.key not in moved:
            plain[names.identity(names.variant(record.asked))].append(record)
    labels = names.labels(plain)
    return {row: _plain(runs, labels[row]) for row, runs in plain.items()} | tuned


def _plain(runs: list[Record], label: str) -> Group:
    options = names.safe(dict(sorted(runs[0].asked.rule_options.items())))
    return Group(label, SET if any(run.changed for run in runs) else DEFAULT, options, runs)


def _tuned(records: Sequence[Record], tunings: Iterable[Tuned]) -> tuple[dict[Identity, Group], set[str]]:
    """The tuned rows, and the keys of the runs that stand in no other."""
    by_answer: dict[tuple[Identity, Identity], list[Record]] = defaultdict(list)
    for record in records:
        by_answer[names.answers(record.asked)].append(record)
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
