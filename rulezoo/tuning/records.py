"""What is kept of a tuning, in the folder ``tuning`` of a store.

Its trials are ordinary records, in a store of their own (``tuning/runs``), where no table of test scores can meet
them. Its conclusion, a `Tuned`, says which of them won, and makes the *ruleset* of every run of the winner: a run
knows nothing of why it was asked for.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from rulezoo.options import Value
from rulezoo.results import reading
from rulezoo.results.merging import Contents, Item
from rulezoo.results.provenance import without_paths
from rulezoo.results.records import Count, Number, RecordError, RunSpec, Status
from rulezoo.results.store import Damage, Store, write_whole
from rulezoo.specs import file_name

SCHEMA = 1  #: raise it when a stored conclusion can no longer be read
_OF_THEIR_OPTIONS = frozenset(
    {"ok", "skipped", "diverged", "pruned"}
)  # statuses that say something of a trial's options
_NAME = re.compile(r"tuned-\d+-[0-9a-f]{16}\.json")


class Tried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One trial.

    Attributes:
        set: the options that the tuner chose; the rest are as in the first trial, for which it is empty.
        runs: keys of its records, one for each seed.
        status: how it ended, ``ok`` if every run did.
        validation: mean score on validation data at the end; ``None`` unless it ended well.
        halfway: the same after half of the epochs, where there is one.
    """

    set: dict[str, Value]
    runs: list[str]
    status: Status
    validation: Number | None = None
    halfway: Number | None = None


class Tuned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The conclusion of a tuning: of one rule on one task.

    Attributes:
        schema: `SCHEMA`.
        asked: what the first run of the winner asked.
        given: the rule's options that the user had chosen, and that were not searched.
        n: how many trials every rule had.
        trials: in order; the first is the author's default. Fewer than ``n`` when nothing could be searched.
        best: place of the winner among the trials: the highest validation score, the first of equals.
        seeds: of every trial.
        sampler: what proposed the trials.

    Raises:
        RecordError: if there is no such trial as ``best``.
    """

    schema: int = SCHEMA
    asked: RunSpec
    given: dict[str, Value]
    n: Count
    trials: Annotated[list[Tried], Meta(min_length=1)]
    best: Count
    seeds: list[int]
    sampler: str

    def __post_init__(self) -> None:
        if self.best >= len(self.trials):
            raise RecordError(
                f"best must be a place among {len(self.trials)} trials, from 0 on, got {self.best}"
            )

    @property
    def ruleset(self) -> str:
        """The word for runs of the winner, e.g. ``tuned-8``."""
        return f"tuned-{self.n}"

    @property
    def failed(self) -> list[Tried]:
        """The trials that did not end for a reason of their options: whose process was killed or raised an error, say.

        One that diverged or was given up is not among them. A trial that failed cannot win, and so may change which
        one does.
        """
        return [trial for trial in self.trials if trial.status not in _OF_THEIR_OPTIONS]

    @property
    def winner(self) -> Tried:
        """The trial that won."""
        return self.trials[self.best]


@dataclass(frozen=True)
class Conclusions:
    """Every tuning of a store, and the files that could not be read."""

    tunings: list[Tuned]
    damaged: list[Damage]


def trials_of(store: Store) -> Store:
    """The store of the trials that belong to a store of results."""
    return Store(store.root / "tuning")


def put(store: Store, name: str, tuned: Tuned) -> None:
    """Keep a conclusion, in the place of an older one.

    Args:
        store: of results.
        name: of the study.
        tuned: the conclusion.

    Raises:
        StoreError: if it cannot be written.
    """
    folder = _folder(store) / file_name(tuned.asked.task) / tuned.asked.rule
    content = msgspec.json.format(msgspec.json.encode(tuned, order="sorted"), indent=1) + b"\n"
    write_whole(store.root, folder / f"{tuned.ruleset}-{name}.json", content)


def read(store: Store) -> Conclusions:
    """Every conclusion, in the order of the paths."""
    tunings: list[Tuned] = []
    damaged: list[Damage] = []
    for path in _files(store):
        try:
            tunings.append(reading.decode(path.read_bytes(), Tuned))
        except (OSError, reading.Unreadable) as error:
            why = f"is no conclusion of a tuning that this rulezoo reads ({error}); tune again to replace it"
            damaged.append(Damage(path.relative_to(store.root).as_posix(), why))
    return Conclusions(tunings, damaged)


def contents(store: Store) -> Contents:
    """Every conclusion, to be merged with those of other folders; the newest is the one with the newest trial."""
    finished = {one.asked.key: one.answered.finished for one in trials_of(store).read(curves=False).records}
    items, damaged = [], []
    for path in _files(store):
        place = path.relative_to(store.root).as_posix()
        try:
            tuned = reading.decode(path.read_bytes(), Tuned)
        except (OSError, reading.Unreadable) as error:
            damaged.append(Damage(place, f"is no conclusion of a tuning that this rulezoo reads ({error})"))
            continue
        name = f"{tuned.ruleset} of {tuned.asked.rule} on {tuned.asked.task}"
        keys = [key for trial in tuned.trials for key in trial.runs]
        newest = max((finished.get(key, "") for key in keys), default="")
        items.append(Item("tuning", place, name, path, msgspec.json.encode(tuned, order="sorted"), newest))
    return Contents(items, damaged)


def publish(store: Store, to: Store) -> int:
    """Copy the records of a store, those of its tunings included, and nothing else; how many there were.

    What is copied is read and written again, so that it is whole, and holds no path and no name of this machine or user.

    Raises:
        StoreError: if they cannot be written.
    """
    copied, keys = 0, dict[str, str]()
    for source, target in ((store, to), (trials_of(store), trials_of(to))):
        for record in source.read().records:
            shown = msgspec.structs.replace(record, asked=_without_paths(record.asked))
            keys[record.asked.key] = shown.asked.key
            target.put(shown)
            copied += 1
    for path in _files(store):
        with suppress(OSError, reading.Unreadable):
            tuned = reading.decode(path.read_bytes(), Tuned)
            trials = [
                msgspec.structs.replace(t, runs=[keys.get(key, key) for key in t.runs]) for t in tuned.trials
            ]
            published = msgspec.structs.replace(tuned, asked=_without_paths(tuned.asked), trials=trials)
            put(to, path.stem.removeprefix(f"{tuned.ruleset}-"), published)
    return copied


def _without_paths(asked: RunSpec) -> RunSpec:
    """The same with no folder of this machine among its options, such as that of a folder of images."""

    def shown(options: dict[str, Value]) -> dict[str, Value]:
        return {
            name: without_paths(value) if isinstance(value, str) else value for name, value in options.items()
        }

    return msgspec.structs.replace(
        asked, rule_options=shown(asked.rule_options), task_options=shown(asked.task_options)
    )


def _files(store: Store) -> list[Path]:
    """The files of conclusions; others, such as copies, are not ours."""
    return sorted(path for path in _folder(store).glob("*/*/[!.]*.json") if _NAME.fullmatch(path.name))


def _folder(store: Store) -> Path:
    return store.root / "tuning" / "studies"
