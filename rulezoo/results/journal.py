"""Notes in the store that tell other processes what is planned and what is under way; `rulezoo.results.status` reads them.

They contain nothing that matters to a result, so one that cannot be written is no reason to end a training. They name no
machine and no process, as a store may be published; who is at work on a run is known from its lock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from msgspec import Meta

from rulezoo.results import groups, leases, reading
from rulezoo.results.files import write_whole
from rulezoo.results.records import Count, RunSpec

if TYPE_CHECKING:
    from rulezoo.results.store import Store

FOLDER = ".progress"

LONGEST = 3e9  # seconds, a century
Seconds = Annotated[float, Meta(ge=0, le=LONGEST)]

_EVERY = 1.0  # seconds between two notes of the same training


N = TypeVar("N", "Training", "Comparison")


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training under way.

    Attributes:
        asked: the run of each of its seeds.
        began: UTC, ISO 8601, of this process's part of it.
        first: the step that this process began at.
        step: steps done.
        total: steps in all.
        seconds: from the beginning until ``step``.
    """

    asked: Annotated[list[RunSpec], Meta(min_length=1)]
    began: str
    first: Count = 0
    step: Count = 0
    total: Count = 0
    seconds: Seconds = 0.0

    @property
    def left(self) -> float | None:
        """Seconds that it will take from here, going by what it took so far; ``None`` when that is not known."""
        done = self.step - self.first
        return min(self.seconds * max(0, self.total - self.step) / done, LONGEST) if done > 0 else None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What one command set out to do.

    Attributes:
        began: UTC, ISO 8601.
        token: tells it from another that began in the same moment.
        asked: every run, those that were stored already included.
    """

    began: str
    token: str
    asked: list[RunSpec]


class Teller:
    """Keeps the note of one training up to date, once a second at most."""

    def __init__(self, path: Path, asked: Sequence[RunSpec]) -> None:
        self.path, self.begin, self.last = path, time.monotonic(), 0.0
        self.note = Training(asked=list(asked), began=_now())
        _write(path, self.note)

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps are done."""
        now = time.monotonic()
        if not self.note.total:  # the first steps set much up, and are not typical
            self.begin = now
            self.note = msgspec.structs.replace(self.note, first=done)
        seconds = now - self.begin
        self.note = msgspec.structs.replace(self.note, step=done, total=total, seconds=seconds)
        if now - self.last >= _EVERY:
            self.last = now
            _write(self.path, self.note)


@contextmanager
def training(store: Store, name: str, asked: Sequence[RunSpec]) -> Iterator[Teller]:
    """A note of a training for as long as the block lasts."""
    path = store.root / FOLDER / f"{name}.json"
    teller = Teller(path, asked)
    try:
        yield teller
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def comparison(store: Store, asked: Sequence[RunSpec]) -> Iterator[None]:
    """A note of a comparison; the last one stays, and older ones of what is over are swept up."""
    note = Comparison(began=_now(), token=secrets.token_hex(4), asked=list(asked))
    name = _name(note)
    with leases.leases(store, [name]):
        for path, _ in _notes(store, Comparison):
            if not leases.is_held(store, path.stem):
                leases.forget(store, [path.stem])
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        _write(store.root / FOLDER / f"{name}.json", note)
        yield
        leases.forget(store, [name])


def sweep(store: Store, asked: Iterable[RunSpec]) -> None:
    """Delete the notes that a process left of these runs when it died."""
    keys = {one.key for one in asked}
    for path, note in _notes(store, Training):
        if any(one.key in keys for one in note.asked) and not _is_alive(store, note):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def trainings(store: Store) -> list[Training]:
    """The groups of seeds under way; a note whose process is gone is none."""
    found = [note for _, note in _notes(store, Training)]
    return [note for note in found if _is_alive(store, note)]


def _is_alive(store: Store, note: Training) -> bool:
    return any(leases.is_held(store, asked.key) for asked in note.asked)


def comparisons(store: Store) -> tuple[list[Comparison], bool]:
    """The comparisons under way and ``True``; or the last one, if any, and ``False``."""
    found = sorted(_notes(store, Comparison), key=lambda one: one[1].began)
    alive = [note for path, note in found if leases.is_held(store, path.stem)]
    return (alive, True) if alive else ([note for _, note in found[-1:]], False)


def _notes(store: Store, kind: type[N]) -> Iterator[tuple[Path, N]]:
    for path in sorted((store.root / FOLDER).glob("[!.]*.json")):
        if path.name.startswith("comparison-") == (kind is Comparison):
            with suppress(OSError, reading.Unreadable):  # gone meanwhile, or not ours
                note = reading.decode(path.read_bytes(), kind)
                if path.stem == _name(note):
                    yield path, note


def _name(note: Training | Comparison) -> str:
    """The name of the file that holds a note; a file under another name is not ours, such as a copy."""
    if isinstance(note, Comparison):
        return f"comparison-{note.began}-{note.token}".replace(":", "")
    return groups.name(note.asked[0], [one.seed for one in note.asked])


def _write(path: Path, note: Training | Comparison) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(note), durable=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
