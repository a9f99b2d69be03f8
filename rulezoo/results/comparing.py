"""Whether two runs gave the same numbers, and by how much they differ; the same for two folders of results.

Compared is what a run computed: its status, scores, learning curve and logs. Times, costs and provenance never count.
Numbers are compared exactly: a run is either reproduced bit for bit, or the difference is reported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.discovery.fingerprint import PREFIX
from rulezoo.discovery.former_fingerprints import as_today

if TYPE_CHECKING:
    from rulezoo.results.records import Provenance, Record

_FINE = 1e-4  # below it a difference does not show in four decimals


@dataclass(frozen=True)
class Change:
    """A number that two runs do not share; ``None`` where a run does not have it.

    Attributes:
        name: what it is, e.g. ``test accuracy``.
        first: the number of the first run.
        second: the number of the second run.
        step: the training step of a point of the curve; ``None`` for a score.
    """

    name: str
    first: float | None
    second: float | None
    step: int | None = None

    @property
    def size(self) -> float | None:
        """The absolute difference; ``None`` where one of the numbers is missing."""
        return None if self.first is None or self.second is None else abs(self.second - self.first)

    def __str__(self) -> str:
        where = "" if self.step is None else f" at step {self.step}"
        if self.size is None:
            return f"{self.name}{where}: {_number(self.first)} and {_number(self.second)}"
        digits = 4 if self.size >= _FINE else 9
        one, other = f"{self.first:.{digits}f}", f"{self.second:.{digits}f}"
        return f"{self.name}{where}: {one} and {other} (difference {self.size:.2g})"


@dataclass(frozen=True)
class Difference:
    """In what two runs of the same key differ.

    Attributes:
        status: how each ended, where that differs.
        scores: the scores that differ.
        curve: the first value of the learning curve or of the logs that differs.
    """

    status: tuple[str, str] | None
    scores: tuple[Change, ...]
    curve: Change | None

    @property
    def score(self) -> float | None:
        """The largest absolute difference of a score; ``None`` where a run has no score, 0 where all are equal."""
        if self.status:
            return None
        sizes = [change.size for change in self.scores]
        return None if None in sizes else max((size for size in sizes if size is not None), default=0.0)

    @property
    def step(self) -> int | None:
        """The first training step at which the curves differ."""
        return self.curve.step if self.curve else None

    def __str__(self) -> str:
        parts = [f"status: {self.status[0]} and {self.status[1]}"] if self.status else []
        parts += map(str, self.scores)
        parts += [f"curves differ first in {self.curve}"] if self.curve else []
        return "; ".join(parts)


def difference(first: Record, second: Record) -> Difference | None:
    """In what two runs differ; ``None`` where status, scores, curve and logs are identical."""
    status = (first.status, second.status) if first.status != second.status else None
    names = dict.fromkeys([*first.scores, *second.scores])
    pairs = [(name, first.scores.get(name), second.scores.get(name)) for name in names]
    scores = tuple(Change(f"{name} {first.metric}", one, other) for name, one, other in pairs if one != other)
    curve = next(_changes(first, second), None)
    return Difference(status, scores, curve) if status or scores or curve else None


def _changes(first: Record, second: Record) -> Iterator[Change]:
    """The values of curve and logs that differ, in the order of the steps."""
    one, other = _values(first), _values(second)
    for step, name in sorted(dict.fromkeys([*one, *other]), key=lambda at: at[0]):
        values = one.get((step, name)), other.get((step, name))
        if values[0] != values[1]:
            yield Change(name, *values, step)


def _values(record: Record) -> dict[tuple[int, str], float | None]:
    found: dict[tuple[int, str], float | None] = {}
    for place, point in enumerate(record.curve):
        found[point.step, "training loss"] = point.train_loss
        found[point.step, f"validation {record.metric}"] = point.validation
        for name, values in record.logs.items():
            found[point.step, name] = values[place] if place < len(values) else None
    return found


@dataclass(frozen=True)
class Pair:
    """A run that both folders hold; ``difference`` is ``None`` where the results are identical."""

    first: Record
    second: Record
    difference: Difference | None


@dataclass(frozen=True)
class Row:
    """What two folders hold of one rule on one task, as numbers of runs.

    Attributes:
        task: name of the task.
        rule: name of the rule.
        first_only: runs that only the first folder holds.
        second_only: runs that only the second folder holds.
        identical: runs of both with identical results.
        different: runs of both with different results.
        score: largest absolute difference of a score among the different ones, where both runs have one.
        step: first training step at which curves differ.
    """

    task: str
    rule: str
    first_only: int
    second_only: int
    identical: int
    different: int
    score: float | None
    step: int | None


@dataclass(frozen=True)
class Comparison:
    """The runs of two folders: in the first only, in the second only, and in both."""

    first_only: list[Record]
    second_only: list[Record]
    pairs: list[Pair]

    @property
    def different(self) -> list[Pair]:
        """The runs of both folders whose results differ."""
        return [pair for pair in self.pairs if pair.difference]

    def rows(self) -> list[Row]:
        """One row for each rule on each task, in the order of the names."""
        cells: dict[tuple[str, str], tuple[list[Record], list[Record], list[Pair]]]
        cells = defaultdict(lambda: ([], [], []))
        for record in self.first_only:
            cells[_cell(record)][0].append(record)
        for record in self.second_only:
            cells[_cell(record)][1].append(record)
        for pair in self.pairs:
            cells[_cell(pair.first)][2].append(pair)
        return [_row(cell, *cells[cell]) for cell in sorted(cells)]


def compare(first: Iterable[Record], second: Iterable[Record]) -> Comparison:
    """Compare the runs of two folders; runs are the same where their keys are."""
    one = {record.asked.key: record for record in first}
    other = {record.asked.key: record for record in second}
    return Comparison(
        [record for key, record in one.items() if key not in other],
        [record for key, record in other.items() if key not in one],
        [
            Pair(record, other[key], difference(record, other[key]))
            for key, record in one.items()
            if key in other
        ],
    )


def _cell(record: Record) -> tuple[str, str]:
    return record.asked.task, record.asked.rule


def _row(cell: tuple[str, str], first: list[Record], second: list[Record], pairs: list[Pair]) -> Row:
    found = [pair.difference for pair in pairs if pair.difference]
    return Row(
        *cell,
        len(first),
        len(second),
        len(pairs) - len(found),
        len(found),
        max((one.score for one in found if one.score is not None), default=None),
        min((one.step for one in found if one.step is not None), default=None),
    )


def provenance(before: Provenance, after: Provenance) -> list[str]:
    """What may explain a difference: everything in the provenance of two runs that is not the same, one phrase each."""
    found = [
        _phrase(name, before.packages.get(name), after.packages.get(name))
        for name in sorted({*before.packages, *after.packages})
    ]
    hardware = before.hardware, after.hardware
    named = {"cpu": "processor", "cores": "processor cores", "threads": "threads of torch", "gpu": "GPU"}
    found += [_phrase(word, *(getattr(one, name) for one in hardware)) for name, word in named.items()]
    for name, word in _NAMES.items():
        phrase = _code_phrase if name in _CODES else _phrase
        found.append(phrase(word, getattr(before, name), getattr(after, name)))
    plugins = {
        "rule": (before.rule_plugin, after.rule_plugin),
        "task": (before.task_plugin, after.task_plugin),
    }
    for kind, (one, other) in plugins.items():
        found.append(_phrase(f"origin of the {kind}", *(" ".join(_plain(p).values()) for p in (one, other))))
    return [phrase for phrase in found if phrase]


_NAMES: Mapping[str, str] = {
    "commit": "commit of rulezoo",
    "dirty": "uncommitted changes of rulezoo",
    "rule_code": "code of the rule",
    "task_code": "code of the task",
    "data": "digest of the data",
    "seeds_together": "seeds trained together",
    "compiled": "torch.compile",
}
_CODES = ("rule_code", "task_code")  # fingerprints


def _plain(plugin: object) -> dict[str, str]:
    return {name: str(value) for name in ("distribution", "version") if (value := getattr(plugin, name))}


def _phrase(name: str, before: object, after: object) -> str:
    """``torch 2.11.0, now 2.12.0``; nothing where they are equal."""
    return "" if before == after else f"{name} {_word(before)}, now {_word(after)}"


def _code_phrase(name: str, before: str | None, after: str | None) -> str:
    """The same for fingerprints, of which one may be by an earlier definition."""
    codes = [None if code is None else as_today(code) for code in (before, after)]
    phrase = _phrase(name, *codes)
    if phrase and len({code.startswith(PREFIX) for code in codes if code is not None}) == 2:
        phrase += " (one by an earlier definition of the fingerprint, so the code may be the same)"
    return phrase


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
