"""Copies the runs that another claim has made already, so that no claim repeats them.

Claims of one profile often have runs in common: backprop at its best learning rate, say, or NMNC with 8 perturbed
examples. What identifies a run (`RunSpec.key`) is all that its numbers depend on, so that the record is the one that this
study would get. Every claim's store still holds all of its own runs, and can be read alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.comparison.execution import outstanding
from rulezoo.comparison.jobs import is_done
from rulezoo.results.freshness import changed_code
from rulezoo.results.store import KEPT, Store

if TYPE_CHECKING:
    from rulezoo.comparison.plan import Cell
    from rulezoo.results.records import Record, RunSpec

_RESULTS = ("ok", "diverged", "skipped")  # how a run ends that would end so again; not one that broke off


@dataclass(frozen=True)
class Shared:
    """A run that a study lacks and another one has.

    Attributes:
        record: the run.
        holder: the store that has it.
        kept: key of `KEPT` → file of what is asked for and was kept with it.
    """

    record: Record
    holder: Store
    kept: dict[str, Path]

    def copy(self, to: Store) -> None:
        """Copy the run to another store, and with it what is asked for.

        Raises:
            StoreError: if it cannot be written.
        """
        to.put(self.record, {kind: path.read_bytes() for kind, path in self.kept.items()})


def others(store: Store) -> list[Store]:
    """The stores of other claims with the same profile; `store` is that of a claim, ``<root>/<claim>/<profile>``."""
    root, profile = store.root.parent.parent, store.root.name
    return [Store(folder) for folder in sorted(root.glob(f"*/{profile}/")) if folder != store.root]


def shared(cells: Sequence[Cell], store: Store, holders: Sequence[Store]) -> Iterator[Shared]:
    """The runs of these cells that a store lacks and another one has, made by the code that is installed.

    Args:
        cells: what is asked for.
        store: where it is to be.
        holders: in which to look, in this order.
    """
    for cell in cells:
        missing = outstanding(cell, store)
        for asked in cell.asked:
            if asked.seed in missing and (found := _first(cell, asked, holders)):
                yield found


def _first(cell: Cell, asked: RunSpec, holders: Sequence[Store]) -> Shared | None:
    for holder in holders:
        record = holder.get(asked)
        if record is None or record.status not in _RESULTS or not is_done(record, cell.request):
            continue
        if changed_code(record, cell.rule_module, cell.task_module):
            continue
        wanted = {"weights": cell.request.keep_weights, "memory": cell.request.keep_memory}
        kept = {
            kind: holder.kept_path(asked, kind)
            for kind in KEPT
            if wanted[kind] and getattr(record, kind) is not None
        }
        if all(_is_sound(path, getattr(record, kind)) for kind, path in kept.items()):
            return Shared(record, holder, kept)
    return None


def _is_sound(path: Path, digest: str) -> bool:
    """Whether a file is there and what its record names; weights may have stayed behind on another machine."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False
