"""The progress of a comparison, read from its store alone: from another shell or another machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.results import journal
from rulezoo.results.freshness import FAILED, stale

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.journal import Training
    from rulezoo.results.records import Record, RunSpec
    from rulezoo.results.store import Store


@dataclass(frozen=True)
class Overview:
    """The comparisons under way, or else the last one.

    Attributes:
        began: UTC, ISO 8601, of the earliest; ``None`` where none is known; then all stored runs count.
        alive: whether one is under way.
        planned: runs in all.
        finished: those that have a record and did not fail.
        failed: those that failed.
        running: groups of seeds under way, of other comparisons, too.
        waiting: runs that have neither a record nor a process.
        stale: records whose code changed since, with the reason.
    """

    began: str | None
    alive: bool
    planned: int
    finished: int
    failed: list[Record]
    running: list[Training]
    waiting: int
    stale: list[tuple[Record, str]]

    @property
    def empty(self) -> bool:
        """Whether nothing is stored, planned or under way."""
        return not (self.planned or self.running)


def overview(store: Store, registry: Registry) -> Overview:
    """Read a store; nothing is written."""
    found, alive = journal.comparisons(store)
    running = journal.trainings(store)
    if found:
        planned = {asked.key: asked for one in found for asked in one.asked}
        records = _records(store, list(planned.values()))
    else:
        records = {record.asked.key: record for record in store.read(curves=False).records}
        planned = {key: record.asked for key, record in records.items()}
    busy = {asked.key for one in running for asked in one.asked} - records.keys()
    failed = [record for record in records.values() if record.status in FAILED]
    reasons = [(record, stale(record, registry)) for record in records.values()]
    return Overview(
        began=min((one.began for one in found), default=None),
        alive=alive,
        planned=len(planned),
        finished=len(records) - len(failed),
        failed=failed,
        running=running,
        waiting=len(planned.keys() - records.keys() - busy),
        stale=[(record, reason) for record, reason in reasons if reason],
    )


def _records(store: Store, asked: list[RunSpec]) -> dict[str, Record]:
    """Key → record, of the runs that have one and were not interrupted."""
    found = [record for one in asked if (record := store.get(one, curves=False))]
    return {record.asked.key: record for record in found if record.status != "interrupted"}
