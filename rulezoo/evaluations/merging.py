"""The stored evaluations of a folder, to be merged with those of others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from rulezoo.evaluations import store as evaluated
from rulezoo.evaluations.records import FAILED, Evaluated
from rulezoo.results.merging import Contents, Item
from rulezoo.results.reading import Unreadable
from rulezoo.results.store import Damage, Store
from rulezoo.specs import file_name


def contents(store: Store) -> Contents:
    """Every evaluation with its arrays; one whose arrays are missing or changed is named and left out."""
    found = evaluated.read(store)
    items, damaged = [], list(found.damaged)
    for one in found.found:
        file = evaluated.path(store, one.asked)
        try:
            evaluated.arrays_of(store, one)
        except Unreadable as error:
            damaged.append(Damage(_place(store, file), f"lacks its arrays: {error}"))
        else:
            items.append(_item(store, one, file))
    return Contents(items, damaged)


def _item(store: Store, one: Evaluated, file: Path) -> Item:
    asked, arrays = one.asked, file.with_suffix(".npz")
    return Item(
        "evaluation",
        _place(store, file),
        f"{one.label} of {asked.task} {asked.rule} seed {asked.seed}",
        file,
        hashlib.sha256(msgspec.json.encode([one.status, one.values], order="sorted")).digest(),
        one.finished,
        ended=one.status not in FAILED,
        attachments={_place(store, arrays): arrays} if one.arrays else {},
        weights=one.weights,
        run=f"runs/{file_name(asked.task)}/{asked.rule}/seed{asked.seed}-{asked.run}.json",
    )


def _place(store: Store, file: Path) -> str:
    return file.relative_to(store.root).as_posix()
