"""Which results belong together on a leaderboard, and by what words they are told apart.

What was asked falls into two parts, as flat dictionaries: the *variant* of the rule, which makes a row, and
the *conditions*, which make a column. The seed is in neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rulezoo.options import Value
from rulezoo.results.records import RunSpec
from rulezoo.results.records import whole as _whole
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.results.records import Hardware, Record
    from rulezoo.tuning.records import Tuned

Facts = dict[str, Value]
Identity = tuple[tuple[str, Value], ...]  #: hashable facts

EXACT = 2**53  # a larger float is a whole number, but not one that JSON's readers agree on

OWN = ("lr", "weight_decay")  # the fields of a budget that are the rule's
_QUESTION = tuple(name for name in RunSpec.__struct_fields__ if name != "seed")
SELF_EXPLAINING = ("device", "optimizer", "precision")  # "cuda" needs no word before it, "64" does


def whole(value: Value) -> Value:
    """``1`` for ``1.0``, as in a run's identity."""
    return value if isinstance(value, float) and abs(value) > EXACT else _whole(value)


def variant(asked: RunSpec) -> Facts:
    """What was asked of the rule."""
    options = {f"option {name}": whole(value) for name, value in sorted(asked.rule_options.items())}
    return {"rule": asked.rule, "version": asked.rule_version, **options}


def tuned_variant(tuned: Tuned) -> Facts:
    """What makes a row of runs that were tuned task by task: the rule, what the user gave it, and the ruleset."""
    given = {f"option {name}": whole(value) for name, value in sorted(tuned.given.items())}
    own: Facts = {"rule": tuned.asked.rule, "version": tuned.asked.rule_version}
    return {**own, **given, "ruleset": tuned.ruleset}


def answers(asked: RunSpec) -> tuple[Identity, Identity]:
    """What runs have in common that answer the same question with other seeds."""
    return identity(variant(asked)), identity(conditions(asked))


class Answers:
    """`answers` of many runs: what was asked of them is worked out once for all that share it, as stored records do."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Identity, Identity]] = {}
        self._of: dict[int, tuple[RunSpec, tuple[Identity, Identity]]] = {}

    def __call__(self, asked: RunSpec) -> tuple[Identity, Identity]:
        """The row and the column of a run."""
        if id(asked) not in self._of:
            key = tuple([id(v) if isinstance(v, dict) else v for v in map(asked.__getattribute__, _QUESTION)])
            if key not in self._known:
                self._known[key] = answers(asked)
            self._of[id(asked)] = (
                asked,
                self._known[key],
            )  # holding on to what was asked keeps the ids its own
        return self._of[id(asked)][1]


def conditions(asked: RunSpec) -> Facts:
    """Everything else that was asked but the seed."""
    return {
        "task": asked.task,
        "version": asked.task_version,
        **{name: whole(value) for name, value in sorted(asked.budget.items()) if name not in OWN},
        "device": asked.device,
        "precision": asked.precision,
        "protocol": asked.protocol,
        **{f"option {name}": whole(value) for name, value in sorted(asked.task_options.items())},
    }


def identity(facts: Facts) -> Identity:
    """The facts as a key of a dictionary."""
    # Python takes True and 1 for one key: the text tells them apart, while 1 and 1.0 are meant to be one.
    return tuple(sorted((name, str(v) if isinstance(v, bool) else v) for name, v in facts.items()))


def safe(facts: Facts) -> Facts:
    """The facts without control codes."""
    return {clean(name): clean(value) if isinstance(value, str) else value for name, value in facts.items()}


def detail(mine: Facts, all_of_task: Sequence[Facts]) -> str:
    """What tells a column from the others of its task, e.g. ``10 epochs``."""
    return clean(", ".join(_condition(name, mine[name]) for name in _differing(all_of_task) if name in mine))


def machine(hardware: Hardware) -> str:
    """A class of machine in words."""

    def count(n: int, thing: str) -> str:
        return f"{n} {thing}{'s' * (n != 1)}"

    of_cpu = f"{hardware.cpu} ({count(hardware.cores, 'core')}, {count(hardware.threads, 'thread')})"
    return clean(hardware.gpu or of_cpu)


def labels(rows: dict[Identity, list[Record]]) -> dict[Identity, str]:
    """The name of each row: the rule's, with the options that its runs say were changed.

    Where that does not tell two variants of a rule apart, all options follow in which they differ.
    """
    by_rule: dict[str, list[Identity]] = defaultdict(list)
    for row, runs in rows.items():
        by_rule[runs[0].asked.rule].append(row)
    return {row: label for of_rule in by_rule.values() for row, label in _labels(rows, of_rule).items()}


def tuned_label(tuned: Tuned) -> str:
    """The name of a row that was tuned, e.g. ``nmnc rank=32 tuned-8``."""
    facts = tuned_variant(tuned)
    return f"{_label(facts, set(facts) - {'version'})} {tuned.ruleset}"


def setting(tuned: Tuned) -> str:
    """What the tuner chose, e.g. ``lr=0.0032 rank=64``."""
    chosen = (f"{name}={_word(value)}" for name, value in sorted(tuned.winner.set.items()))
    return clean(" ".join(chosen)) or "the default"


def _labels(rows: dict[Identity, list[Record]], of_rule: list[Identity]) -> dict[Identity, str]:
    facts = {row: variant(rows[row][0].asked) for row in of_rule}
    differing = set(_differing(list(facts.values())))
    changed = {row: {f"option {name}" for run in rows[row] for name in run.changed} for row in of_rule}
    short = {row: _label(facts[row], changed[row] | (differing & {"version"})) for row in of_rule}
    if len(set(short.values())) == len(of_rule):
        return short
    return {row: _label(facts[row], changed[row] | differing) for row in of_rule}


def _label(facts: Facts, shown: set[str]) -> str:
    version = [f"v{facts['version']}"] if "version" in shown else []
    options = [
        f"{name.removeprefix('option ')}={_word(value)}"
        for name, value in facts.items()
        if name in shown and name.startswith("option ")
    ]
    return clean(" ".join([str(facts["rule"]), *version, *options]))


def _differing(all_facts: Sequence[Facts]) -> list[str]:
    """The names, in order, whose values are not the same in all."""
    names = dict.fromkeys(name for facts in all_facts for name in facts)
    return [name for name in names if len({repr(facts.get(name, ...)) for facts in all_facts}) > 1]


def _condition(name: str, value: Value) -> str:
    if name in SELF_EXPLAINING:
        return _word(value)
    if name == "epochs":
        return f"{_word(value)} epochs"
    # What was set for all rules, see `rulezoo.comparison.budgets.BASE`, is named as it was set.
    return f"{name.removeprefix('base_').removeprefix('option ')} {_word(value)}"


def _word(value: Value) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
