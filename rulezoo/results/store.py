"""The results: one folder of small JSON files, one file per run.

``runs/<task>/<rule>/seed<k>-<key>.json`` holds a `rulezoo.results.records.Record` and the digest of its content; where
they were kept, ``….safetensors`` and ``….memory.safetensors`` hold the trained weights and the rule's memory. A
file appears whole or not at all (temporary file, fsync, rename), so any number of processes may write at
once, and a run that is killed leaves every finished record readable.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rulezoo.errors import UserError
from rulezoo.results import files, reading
from rulezoo.results.migrations import UnknownSchema, migrate
from rulezoo.results.provenance import anonymous
from rulezoo.results.reading import Unreadable
from rulezoo.results.records import LARGEST, SCHEMA, Record, RecordError, RunSpec
from rulezoo.specs import file_name
from rulezoo.text import SENTENCE, TRACEBACK, bounded

T = TypeVar("T")

STALE = 3600.0  # seconds after which a temporary file cannot belong to a living writer
KEPT = {
    "weights": ".safetensors",
    "memory": ".memory.safetensors",
}  #: field of a record → what its file ends with
_AGAIN = ".again"  # folder of the records whose runs were asked for again, until there are others
_REPLACED = ".replaced"  # folder of those that others have replaced
PROBE = bytes(1 << 16)  # more than a record usually takes, so that a full disk is seen before training
_MEASURED = ("scores", "curve", "logs", "probes")  # fields whose numbers a rule or a task makes
_OWN_DIGEST = re.compile(rb'"digest":"([0-9a-f]{64})",')


class StoreError(UserError):
    """The folder of results cannot be written; the message names it, what happened and what to do."""


@dataclass(frozen=True)
class Damage:
    """A file that is not a readable record: its path in the store, and why with what to do."""

    path: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """Everything in a store, in the order of the paths."""

    records: list[Record]
    damaged: list[Damage]


@dataclass(frozen=True)
class Store:
    """The folder of results.

    Attributes:
        root: the folder; made when it is first written to.
    """

    root: Path

    def path(self, asked: RunSpec) -> Path:
        """Where the record of a run is, or would be."""
        return self.root / _place(asked)

    def kept_path(self, asked: RunSpec, kind: str) -> Path:
        """Where the weights or the memory of a run are, or would be; ``kind`` is a key of `KEPT`."""
        path = self.path(asked)
        aside = _kept_path(self.root / _AGAIN / path.name, kind)
        return aside if aside.exists() and not path.exists() else _kept_path(path, kind)

    def folder(self, name: str) -> Path:
        """A folder of the store for other things than records, made if need be.

        Raises:
            StoreError: if it cannot be made.
        """
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(_words(self.root, error)) from error
        return folder

    def set_aside(self, asked: RunSpec) -> None:
        """Put the record of a run aside that is to be run again.

        `get` finds none then, so it will be run; `read` finds it until there is another, which `put` stores.

        Raises:
            StoreError: if it cannot be moved.
        """
        path = self.path(asked)
        try:
            _move_kept(path, self.folder(_AGAIN) / path.name)
            path.replace(self.root / _AGAIN / path.name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(_words(self.root, error)) from error

    def put_back(self, asked: RunSpec) -> Record | None:
        """Undo `set_aside` for a run that was not run again after all; the record, if there is one."""
        path = self.path(asked)
        with suppress(OSError):
            if not path.exists() and (aside := self.root / _AGAIN / path.name).is_file():
                _move_kept(aside, path)
                aside.replace(path)
        return self.get(asked)

    def put(self, record: Record, kept: Mapping[str, bytes] | None = None) -> Path:
        """Write a record in the place of an older one of the same run. Paths and names of machine and user leave its messages.

        An older one that was set aside goes to ``.replaced``.

        Args:
            record: the record; the digests of what is kept are filled in.
            kept: key of `KEPT` → content of the file alongside the record. It is written first, so a record never names
                what does not exist; files of an older record that this one does not have are deleted.

        Raises:
            RecordError: if the record would not be readable.
            StoreError: if it cannot be written; what was stored before is whole.
        """
        path, kept = self.path(record.asked), kept or {}
        digests = {kind: hashlib.sha256(kept[kind]).hexdigest() if kind in kept else None for kind in KEPT}
        content = _encode(msgspec.structs.replace(record, **digests))
        for kind, tensors in kept.items():
            write_whole(self.root, _kept_path(path, kind), tensors)
        write_whole(self.root, path, content)
        _delete_kept(path, KEPT.keys() - kept.keys())
        if (old := self.root / _AGAIN / path.name).exists():
            with suppress(OSError, StoreError):  # the new record is there: that is what matters
                replaced = self.folder(_REPLACED) / path.name
                _delete_kept(replaced)
                _move_kept(old, replaced)
                old.replace(replaced)
        return path

    def get(self, asked: RunSpec, *, curves: bool = True) -> Record | None:
        """The record of a run; ``None`` when it has to be run: there is none, or it is damaged. ``curves`` as in `read`."""
        try:
            record = self._load(_place(asked))
        except Unreadable:
            return None
        return record if curves or record is None else _without_curves(record)

    def has(self, asked: RunSpec) -> bool:
        """Whether there is a readable record of the run."""
        return self.get(asked) is not None

    def read(self, *, curves: bool = True) -> Reading:
        """Every record. A damaged file is named and left out; it never raises and never gives a wrong row.

        Args:
            curves: whether the records hold what was measured during training, too: curve, logs and probes. Without it,
                of the curve only the last point is there; they are a fraction of the size, and a table needs no more.
        """
        records: list[Record] = []
        damaged: list[Damage] = []
        share = reading.Shared()
        with _paused_collector():
            for place in _places(self.root):
                try:
                    record = self._load(place)
                except Unreadable as error:
                    damaged.append(Damage(place, str(error)))
                else:
                    if record:  # another process may have deleted it
                        records.append(share(record if curves else _without_curves(record)))
        left = self._without_successor({record.asked.key for record in records})
        records += left if curves else map(_without_curves, left)
        return Reading(records, damaged)

    def _without_successor(self, keys: set[str]) -> list[Record]:
        """What was set aside to be run again and was not, for the comparison was interrupted."""
        found = []
        for path in sorted((self.root / _AGAIN).glob("[!.]*.json")):
            with suppress(Unreadable, OSError):
                record, _ = _decode(path.read_bytes())
                if record.asked.key not in keys and path.name == self.path(record.asked).name:
                    found.append(record)
        return found

    def check_writable(self) -> None:
        """Make sure, before the first run, that results can be stored; sweep up what killed writers left.

        Raises:
            StoreError: if the folder cannot be made or written.
        """
        runs = self.root / "runs"
        try:
            runs.mkdir(parents=True, exist_ok=True)
            probe = files.temporary(runs / "probe")
            files.write_whole(probe, PROBE)
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(_words(self.root, error)) from error
        for path in [*runs.glob(".*.tmp"), *runs.glob("*/*/.*.tmp"), *self.root.glob(".*/.*.tmp")]:
            with suppress(OSError):  # another process may be sweeping too
                if files.TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > STALE:
                    path.unlink()

    def _load(self, place: str) -> Record | None:
        try:
            record, moved = _decode((self.root / place).read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(
                f"cannot be read: {error.strerror}; mend its permissions or delete it"
            ) from error
        if place != (expected := _place(record.asked)) and not moved:
            raise Unreadable(f"holds the run that belongs to {expected}; move it there or delete it")
        return record


def _place(asked: RunSpec) -> str:
    """The path of a record within its store."""
    return f"runs/{file_name(asked.task)}/{asked.rule}/seed{asked.seed}-{asked.key}.json"


def _kept_path(path: Path, kind: str) -> Path:
    return path.with_name(path.name.removesuffix(".json") + KEPT[kind])


def _move_kept(path: Path, to: Path) -> None:
    """Move what is kept alongside the record of a path to where the record goes next."""
    for kind in KEPT:
        with suppress(FileNotFoundError):
            _kept_path(path, kind).replace(_kept_path(to, kind))


def _delete_kept(path: Path, kinds: Iterable[str] = KEPT) -> None:
    for kind in kinds:
        with suppress(OSError):
            _kept_path(path, kind).unlink(missing_ok=True)


def _places(root: Path) -> Iterator[str]:
    """The paths of all records within a store, in order; not what file systems and editors leave behind."""
    for task in _names(root / "runs"):
        for rule in _names(root / "runs" / task):
            for name in _names(root / "runs" / task / rule):
                if name.endswith(".json") and not name.startswith("."):
                    yield f"runs/{task}/{rule}/{name}"


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  a hundred thousand of Path's objects take seconds
    except OSError:  # not a folder, or gone meanwhile
        return []


@contextmanager
def _paused_collector() -> Iterator[None]:
    """A block without garbage collection: what is read holds no cycles, and is looked through again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _without_curves(record: Record) -> Record:
    return msgspec.structs.replace(record, curve=record.curve[-1:], logs={}, probes=[], traceback=None)


def _encode(record: Record) -> bytes:
    texts = {"reason": (record.reason, SENTENCE), "traceback": (record.traceback, TRACEBACK)}
    safe = {name: anonymous(bounded(text, most)) for name, (text, most) in texts.items() if text}
    try:
        body = msgspec.json.decode(msgspec.json.encode(msgspec.structs.replace(record, **safe)))
        for probe in body["probes"]:
            probe["reason"] = probe["reason"] and anonymous(probe["reason"])
        for name in _MEASURED:
            body[name] = _bounded(body[name])
        msgspec.convert(body, Record)
    except (msgspec.MsgspecError, TypeError, OverflowError) as error:
        asked = record.asked
        raise RecordError(
            f"{asked.rule} on {asked.task}, seed {asked.seed}: cannot be stored: {error}"
        ) from error
    return msgspec.json.encode(body | {"digest": digest(body)}, order="sorted") + b"\n"


def _bounded(content: Any) -> Any:  # noqa: ANN401  plain JSON content
    """The same with ``None`` for numbers that are larger than a record may hold."""
    if isinstance(content, dict):
        return {name: _bounded(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_bounded(value) for value in content]
    return None if isinstance(content, float) and abs(content) > LARGEST else content


def _decode(content: bytes) -> tuple[Record, bool]:
    """The record, and whether bringing it up to date changed what was asked, so that it has another key now."""
    if record := _as_written(content):
        return record, False
    again = "run it again to replace it, or delete it"
    try:
        body = reading.decode(content, Any)
    except Unreadable as error:
        raise Unreadable(f"{error}; {again}") from error
    if not isinstance(body, dict) or "digest" not in body or "schema" not in body:
        raise Unreadable(f"is not a record of rulezoo: it has no schema and digest; {again}")
    if body.pop("digest") != digest(body):
        raise Unreadable(f"was changed after it was written; restore it from a copy, or {again}")
    try:
        before = msgspec.json.encode(body.get("asked"), order="sorted")
        migrated = migrate(body, SCHEMA)
        moved = before != msgspec.json.encode(migrated.get("asked"), order="sorted")
        return reading.convert(migrated, Record), moved
    except UnknownSchema as error:
        raise Unreadable(f"{error}, or {again}") from error
    except Unreadable as error:
        raise Unreadable(f"does not follow schema {SCHEMA}: it {error}; {again}") from error


def _as_written(content: bytes) -> Record | None:
    """The record, if the file is byte for byte what this schema's `_encode` writes: most are, and it takes half the time."""
    found = _OWN_DIGEST.search(content)
    if found is None:
        return None
    body = (content[: found.start()] + content[found.end() :]).removesuffix(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != found[1]:
        return None
    with suppress(Unreadable):
        record = reading.decode(body, Record)
        return record if record.schema == SCHEMA else None
    return None


def digest(body: dict[str, Any]) -> str:
    """Of the plain content, not of the classes: a field added later leaves the old digests valid."""
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def read_intact(content: bytes, kind: type[T]) -> T:
    """The value that a file with the digest of its own content holds.

    Raises:
        Unreadable: if it is not JSON of that class, or was changed after it was written.
    """
    body = reading.decode(content, Any)
    try:
        intact = isinstance(body, dict) and body.pop("digest", None) == digest(body)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        intact = False
    if not intact:
        raise Unreadable("it was changed after it was written")
    return reading.convert(body, kind)


def write_whole(root: Path, path: Path, content: bytes) -> None:
    """Write a file of the store ``root``, in folders that are made if they are not there; whole or not at all.

    Raises:
        StoreError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, content)
    except OSError as error:
        raise StoreError(
            f"{_words(root, error)} The records stored before are whole: the same command resumes from them."
        ) from error


def _words(root: Path, error: OSError) -> str:
    elsewhere = "choose another folder with --out"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            said = f"the disk or your quota is full; free some space, or {elsewhere}"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            said = f"writing is not allowed there; change its permissions, or {elsewhere}"
        case errno.EEXIST | errno.ENOTDIR if link := files.dangling(root):
            said = f"{link} is a link to {link.readlink()}, which does not exist; make that folder, or {elsewhere}"
        case errno.EEXIST | errno.ENOTDIR:
            said = f"a file stands where a folder is needed; move it away, or {elsewhere}"
        case _:
            said = f"{error.strerror or error}; {elsewhere}"
    return f"Results cannot be stored in {root}: {said}."
