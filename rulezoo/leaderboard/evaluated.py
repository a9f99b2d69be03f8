"""What stored evaluations say of the cells of a leaderboard: the headline of each, over the seeds.

An evaluation with its options is a column next to the score of a task. A network counts where the evaluation has a
number for it; where it failed, was skipped or could not be determined, a note says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.evaluations import running
from rulezoo.evaluations import store as stored
from rulezoo.text import brief, clean

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry
    from rulezoo.evaluations.records import Evaluated
    from rulezoo.results.records import Record
    from rulezoo.results.store import Damage, Store

_ARROWS = {True: " ↑", False: " ↓", None: ""}

Stale = Callable[["Evaluated", "Record"], str | None]


@dataclass(frozen=True)
class Head:
    """An evaluation as the head of a column.

    Attributes:
        label: its name, with the options that are not the author's default.
        headline: name of the value.
        higher_is_better: whether a larger value is better; ``None`` = neither.
    """

    label: str
    headline: str
    higher_is_better: bool | None

    @property
    def value(self) -> str:
        """The value, and which way is better: ``error ↓``."""
        return f"{self.headline}{_ARROWS[self.higher_is_better]}"


@dataclass(frozen=True)
class Summary:
    """The headline of one evaluation in a cell.

    Attributes:
        n: number of networks that have a value.
        mean: over the networks; ``None`` where none has a value.
        sd: sample standard deviation; ``None`` for one network.
        notes: sentences on what is missing or in doubt.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    notes: tuple[str, ...] = ()


class Evaluations:
    """Stored evaluations, to ask for those of a cell.

    Args:
        found: evaluations of any networks.
        stale: why an evaluation may be out of date, if it may.
    """

    def __init__(
        self, found: Iterable[Evaluated] = (), stale: Stale = lambda evaluated, record: None
    ) -> None:
        self._stale = stale
        self._of: dict[str, dict[str, Evaluated]] = {}  # key of a run → label → the latest
        for one in sorted(found, key=lambda one: (one.finished, one.asked.key)):
            self._of.setdefault(one.asked.run, {})[clean(one.label)] = one

    def heads(self, runs: Iterable[Record]) -> tuple[Head, ...]:
        """The evaluations of some runs, by name; one that found nothing on any of them is left out."""
        heads: dict[str, Head] = {}
        for run in runs:
            for label, one in self._of.get(run.asked.key, {}).items():
                if one.status != "skipped":
                    heads[label] = Head(label, clean(one.headline), one.higher_is_better)
        return tuple(heads[label] for label in sorted(heads))

    def usual_data(self, head: Head, runs: Iterable[Record]) -> str | None:
        """The hash of the data that most evaluations of a column read; ``None`` where it is not known."""
        counts = Counter(one.data for one in self._found(head, runs) if one.data is not None)
        return max(counts, key=lambda data: (counts[data], data), default=None)

    def summary(self, head: Head, runs: Sequence[Record], data: str | None) -> Summary | None:
        """One evaluation of a cell; ``None`` where it was not carried out there.

        Args:
            head: the evaluation.
            runs: of the cell.
            data: hash of the data that most evaluations of the column read.
        """
        found = self._found(head, runs)
        if not found:
            return None
        values = [
            v for one in found if one.status == "ok" and (v := one.values.get(one.headline)) is not None
        ]
        mean = math.fsum(values) / len(values) if values else None
        sd = None
        if mean is not None and len(values) > 1:
            sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
        return Summary(len(values), mean, sd, self._notes(head, runs, found, data))

    def _found(self, head: Head, runs: Iterable[Record]) -> list[Evaluated]:
        return [one for run in runs if (one := self._of.get(run.asked.key, {}).get(head.label))]

    def _notes(
        self, head: Head, runs: Sequence[Record], found: Sequence[Evaluated], data: str | None
    ) -> tuple[str, ...]:
        said = Counter(words for one in found if (words := _missing(one)))
        by_key = {run.asked.key: run for run in runs}
        said.update(
            f"stale: {clean(reason)}"
            for one in found
            if (reason := self._stale(one, by_key[one.asked.run])) is not None
        )
        said.update(
            f"{head.label}: other data than in the rest of the column (hash {one.data[:12]})"
            for one in found
            if one.data not in (data, None) and one.data is not None
        )
        return tuple(f"{words} ({k} of {len(found)})" for words, k in sorted(said.items()))


def _missing(one: Evaluated) -> str:
    """Why an evaluation has no value to show; empty where it has one."""
    if one.status != "ok":
        return brief(f"{one.label} {one.status}: {one.reason or ''}", 300)
    if one.values.get(one.headline) is None:
        return brief(f"{one.label}: no {one.headline}: {one.notes.get(one.headline, '')}", 300)
    return ""


def evaluations_of(store: Store, registry: Registry) -> tuple[Evaluations, list[Damage]]:
    """The evaluations of a store, and the files that could not be read.

    Args:
        store: the folder of results.
        registry: the evaluations that are installed, by which stale results are recognised.
    """
    reading = stored.read(store)
    return (
        Evaluations(reading.found, lambda one, record: running.stale(one, registry, record)),
        reading.damaged,
    )
