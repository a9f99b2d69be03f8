"""Records of several folders brought together in one; the folders that they come from are only read.

What travels is a list of `Item`, one for each file that a folder keeps as a whole: a run with its weights, a verification,
the conclusion of a tuning, an evaluation. Where several folders hold the same item, the rule is:

1. A run that was interrupted (timeout, killed, out of memory, …) gives way to one that ended.
2. Of identical results one is kept: that with weights, then that with more probes, then that of the folder named first.
3. Different results are a conflict, which the caller settles: `newest` keeps what finished last, `first` that of the
   folder named first. Of verifications the newest is always kept, as ``rulezoo verify --out`` does.

Each file appears whole or not at all, weights before their record. What a chosen item replaces is moved to ``.replaced``.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from rulezoo.results import verifications
from rulezoo.results.records import Record
from rulezoo.results.store import KEPT, Damage, Store, write_whole

Prefer = Literal["newest", "first"]
_ASIDE = (
    ".again",
    ".replaced",
)  # folders of a store: records to be run again, and those that others replaced
_WEIGHTS = {
    "weights": ".safetensors",
    "memory": ".memory.safetensors",
}  # field of a record → end of a file's name
_BROKEN_OFF = frozenset({"timeout", "killed", "crashed", "oom_host", "oom_gpu", "interrupted"})


@dataclass(frozen=True)
class Item:
    """One file of a folder, with the files that belong to it.

    Attributes:
        kind: what it is, for a count, e.g. ``run``.
        place: its path within a folder: items of the same place are the same item.
        name: for a sentence, e.g. ``digits-cnn nmnc seed 0``.
        file: where it is.
        result: what has to be equal where two items are to count as one.
        finished: when it was computed, UTC, ISO 8601.
        rank: of items with an equal result the highest is kept.
        ended: whether there is a result at all.
        attachments: place → file of what belongs to it, such as weights.
        newest: whether the newest is kept without asking.
        weights: SHA-256 of the weights of a run that were kept, or of those that were evaluated.
        run: place of the run that was evaluated; an evaluation of other weights than those of the merged run is left out.
    """

    kind: str
    place: str
    name: str
    file: Path
    result: bytes
    finished: str = ""
    rank: tuple[int, ...] = ()
    ended: bool = True
    attachments: Mapping[str, Path] = field(default_factory=dict)
    newest: bool = False
    weights: str | None = None
    run: str | None = None


@dataclass(frozen=True)
class Contents:
    """Every item of a folder, and the files that could not be read."""

    items: list[Item]
    damaged: list[Damage]


Reader = Callable[[Store], Contents]


@dataclass(frozen=True)
class Conflict:
    """An item of which several folders hold different results.

    Attributes:
        item: what was chosen.
        folder: where that is from.
        folders: every folder that holds it.
    """

    item: Item
    folder: Path
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Merger:
    """What is to be done.

    Attributes:
        to: the folder that everything is brought into.
        write: the items that it does not hold yet.
        held: kind → number of items that it will hold.
        conflicts: those that `Prefer` settled, or has to.
        damaged: folder and file of everything that could not be read, and is left out.
    """

    to: Store
    write: list[Item]
    held: Mapping[str, int]
    conflicts: list[Conflict]
    damaged: list[tuple[Path, Damage]]

    def carry_out(self) -> None:
        """Write every item, the files that belong to it first.

        Raises:
            StoreError: if one cannot be written; those before it are whole, and the same merge continues with them.
        """
        self.to.check_writable()
        for item in self.write:
            attachments = {place: file.read_bytes() for place, file in item.attachments.items()}
            content = item.file.read_bytes()
            _keep_replaced(self.to.root, item.place)
            for place, value in {**attachments, item.place: content}.items():
                write_whole(self.to.root, self.to.root / place, value)
            for file in _beside(self.to.root / item.place):
                if file.relative_to(self.to.root).as_posix() not in attachments:  # of what was replaced
                    file.unlink(missing_ok=True)


def _keep_replaced(root: Path, place: str) -> None:
    """Copy what is at a place, and the weights next to it, to where a store keeps what was replaced."""
    path = root / place
    keep = root / (_ASIDE[1] if not place.startswith("tuning/runs/") else f"tuning/{_ASIDE[1]}")
    for file in (path, *_beside(path)):
        if file.is_file():
            write_whole(root, keep / file.name, file.read_bytes())


def _beside(path: Path) -> list[Path]:
    """Where the files that belong to an item are, if it has them."""
    return [path.with_name(path.stem + end) for end in (*KEPT.values(), ".npz")]


def prepare(
    sources: Sequence[Store], to: Store, readers: Iterable[Reader] = (), prefer: Prefer = "newest"
) -> Merger:
    """Find out what is to be written; nothing is written yet.

    Args:
        sources: folders, in the order in which they were named.
        to: where everything goes; what it holds already counts as the folder named first.
        readers: read what a folder holds in addition to runs, trials and verifications.
        prefer: which of several different results is kept.
    """
    candidates: dict[str, list[tuple[Store, Item]]] = defaultdict(list)
    damaged: list[tuple[Path, Damage]] = []
    for store in (to, *sources):
        for read in (runs, trials, verified, *readers):
            contents = read(store)
            damaged += [(store.root, damage) for damage in contents.damaged]
            for item in contents.items:
                candidates[item.place].append((store, item))
    weights = {
        place: _choose(found, prefer)[1].weights
        for place, found in candidates.items()
        if found[0][1].run is None
    }
    damaged += [(store.root, damage) for store, damage in _leave_out(candidates, weights)]
    chosen = [(_choose(found, prefer), found) for found in candidates.values() if found]
    return Merger(
        to,
        [item for (store, item), _ in chosen if store is not to],
        Counter(item.kind for (_, item), _ in chosen),
        [Conflict(item, store.root, tuple(one.root for one, _ in found))
         for (store, item), found in chosen if _conflicting(found)],
        damaged,
    )  # fmt: skip


def _leave_out(
    candidates: Mapping[str, list[tuple[Store, Item]]], weights: Mapping[str, str | None]
) -> Iterator[tuple[Store, Damage]]:
    """Take out the evaluations of weights that are not those of the merged run."""
    for place, found in candidates.items():
        for one in list(found):
            store, item = one
            kept = weights.get(item.run) if item.run else None
            if kept is not None and item.weights != kept:
                found.remove(one)
                yield (
                    store,
                    Damage(
                        place, f"evaluates other weights than those of the run that is kept ({item.name})"
                    ),
                )


def _choose(found: Sequence[tuple[Store, Item]], prefer: Prefer) -> tuple[Store, Item]:
    found = _ended(found)
    latest = prefer == "newest" or found[0][1].newest
    best = max(found, key=lambda one: one[1].finished) if latest else found[0]
    return max((one for one in found if one[1].result == best[1].result), key=lambda one: one[1].rank)


def _conflicting(found: Sequence[tuple[Store, Item]]) -> bool:
    results = {item.result for _, item in _ended(found) if not item.newest}
    return len(results) > 1


def _ended(found: Sequence[tuple[Store, Item]]) -> Sequence[tuple[Store, Item]]:
    return [one for one in found if one[1].ended] or found


def runs(store: Store) -> Contents:
    """The runs of a folder."""
    reading, items = store.read(), []
    damaged = list(reading.damaged)
    for record in reading.records:
        file, place = _file(store, record), store.path(record.asked).relative_to(store.root).as_posix()
        if file is None:
            damaged.append(Damage(place, "was moved or deleted while it was read; merge again"))
            continue
        weights, missing = _weights(file, record, place)
        damaged += missing
        items.append(_run(record, place, file, weights))
    return Contents(items, damaged)


def _file(store: Store, record: Record) -> Path | None:
    """Where a record is; one that is to be run again, and was not yet, is set aside."""
    path = store.path(record.asked)
    return next((file for file in (path, store.root / _ASIDE[0] / path.name) if file.is_file()), None)


def _weights(file: Path, record: Record, place: str) -> tuple[dict[str, Path], list[Damage]]:
    """The files of the weights that a record names, and those that are missing or not what it names."""
    found, damaged = {}, []
    for name, end in KEPT.items():
        if (digest := getattr(record, name)) is None:
            continue
        path, here = file.with_name(file.stem + end), str(Path(place).with_suffix("")) + end
        try:
            sound = hashlib.sha256(path.read_bytes()).hexdigest() == digest
        except OSError as error:
            damaged.append(Damage(here, f"cannot be read: {error.strerror}; its record is merged without it"))
            continue
        if sound:
            found[here] = path
        else:
            damaged.append(Damage(here, "is not what its record names; the record is merged without it"))
    return found, damaged


def _run(record: Record, place: str, file: Path, weights: Mapping[str, Path]) -> Item:
    asked, ended = record.asked, record.status not in _BROKEN_OFF
    return Item(
        "run",
        place,
        f"{asked.task} {asked.rule} seed {asked.seed}",
        file,
        _digest([record.status, record.scores, record.curve, record.logs] if ended else None),
        record.answered.finished,
        rank=(len(weights), len(record.probes)),
        ended=ended,
        attachments=weights,
        weights=record.weights,
    )


def trials(store: Store) -> Contents:
    """The trials of the tunings of a folder, which are a folder of runs within it."""
    found = runs(Store(store.root / "tuning"))
    return Contents(
        [
            replace(
                item,
                kind="trial",
                place=f"tuning/{item.place}",
                name=f"trial {item.name}",
                attachments={f"tuning/{place}": file for place, file in item.attachments.items()},
            )
            for item in found.items
        ],
        [Damage(f"tuning/{damage.path}", damage.reason) for damage in found.damaged],
    )


def verified(store: Store) -> Contents:
    """The verifications of a folder."""
    found = verifications.read(store)
    items = [
        Item(
            "verification",
            (place := f"{verifications.FOLDER}/{one.rule}-{one.key}.json"),
            f"verification of {one.rule}",
            store.root / place,
            _digest(msgspec.structs.replace(one, finished="")),
            one.finished,
            newest=True,
        )
        for one in found.found
    ]
    return Contents(items, found.damaged)


def _digest(result: object) -> bytes:
    return hashlib.sha256(msgspec.json.encode(result, order="sorted")).digest()


def sentences(conflicts: Sequence[Conflict]) -> Iterator[str]:
    """One for each conflict that was settled: what is kept, and from where."""
    for one in conflicts:
        others = ", ".join(str(folder) for folder in one.folders if folder != one.folder)
        yield f"{one.item.name}: kept from {one.folder} (finished {one.item.finished}); {others} has different results"
