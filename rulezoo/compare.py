"""Carries out a plan: does what the store does not hold yet, and stores every result the moment it exists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rulezoo.provenance import answered
from rulezoo.records import Cost, Point, Record

if TYPE_CHECKING:
    from rulezoo.plan import Cell
    from rulezoo.records import Asked
    from rulezoo.runner import Outcome
    from rulezoo.store import Store
    from rulezoo.task import Data


class Listener(Protocol):
    """Who wants to know how far it is."""

    def planned(self, runs: int, stored: int) -> None:
        """So many runs were asked for, so many of them are stored already."""

    def started(self, cell: Cell, seeds: Sequence[int]) -> None:
        """These seeds of a cell begin to train."""

    def progressed(self, done: int, total: int) -> None:
        """The training that was started has done so many of its steps."""

    def finished(self, cell: Cell, records: Sequence[Record]) -> None:
        """These runs ended, and are stored."""


@dataclass(frozen=True)
class Todo:
    """A cell and those of its runs that the store does not hold."""

    cell: Cell
    missing: tuple[Asked, ...]


def outstanding(cells: Sequence[Cell], store: Store) -> list[Todo]:
    """What has to be run; an interrupted run counts as not run."""

    def stored(asked: Asked) -> bool:
        record = store.get(asked)
        return record is not None and record.status != "interrupted"

    todo = [Todo(cell, tuple(a for a in cell.asked if not stored(a))) for cell in cells]
    return [t for t in todo if t.missing]


def execute(
    cells: Sequence[Cell], store: Store, data_root: Path | None, *, download: bool, listener: Listener
) -> None:
    """Run what is missing, cell by cell.

    Args:
        cells: the plan.
        store: where results are, and go.
        data_root: folder of data sets.
        download: whether data sets may be downloaded.
        listener: told how far it is.

    Raises:
        StoreError: if the store cannot be written; before the first training where that can be known.
        DataMissing: if a task's data are not there; before the first training.
    """
    todo = outstanding(cells, store)
    runs = sum(len(cell.asked) for cell in cells)
    listener.planned(runs, runs - sum(len(t.missing) for t in todo))
    if not todo:
        return
    store.check_writable()
    needed = {t.cell.task: t.cell.task.data for t in todo}
    data = {task: read(data_root, download=download) for task, read in needed.items()}
    for job in todo:
        listener.started(job.cell, [a.seed for a in job.missing])
        records = _run(job, data[job.cell.task], listener)
        for record in records:
            store.put(record)
        listener.finished(job.cell, records)


def _run(job: Todo, data: Data, listener: Listener) -> list[Record]:
    import torch

    from rulezoo import runner

    cell, device = job.cell, torch.device(job.missing[0].device)
    started = datetime.now(UTC)
    seeds = [asked.seed for asked in job.missing]
    outcomes = runner.run(cell.rule, cell.task, seeds, cell.budget, data, device, listener.progressed)
    return [_record(cell, asked, one, started) for asked, one in zip(job.missing, outcomes, strict=True)]


def _record(cell: Cell, asked: Asked, outcome: Outcome, started: datetime) -> Record:
    return Record(
        asked=asked,
        answered=answered(
            device=asked.device,
            rule_plugin=cell.rule_plugin,
            task_plugin=cell.task_plugin,
            started=started,
            finished=datetime.now(UTC),
            seeds_together=outcome.seeds_together,
            mode="vmap" if outcome.seeds_together > 1 else "single",
        ),
        status=outcome.status,
        reason=outcome.reason,
        traceback=outcome.traceback,
        changed=cell.changed,
        scores=dict(outcome.scores or {}),
        chance=cell.task.chance,
        metric=cell.task.metric,
        curve=[
            Point(step=e.step, epoch=e.epoch, train_loss=_finite(e.train_loss), validation=_finite(e.validation))
            for e in outcome.curve
        ],
        cost=_cost(outcome),
        logs=_logs(outcome),
        parameters=outcome.parameters,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cost(outcome: Outcome) -> Cost | None:
    if outcome.step_seconds is None or outcome.backprop_seconds is None:
        return None
    return Cost(
        step_ms=1e3 * outcome.step_seconds,
        backprop_step_ms=1e3 * outcome.backprop_seconds,
        ratio=outcome.step_seconds / outcome.backprop_seconds,
        peak_memory_mb=None if outcome.peak_bytes is None else outcome.peak_bytes / 2**20,
    )


def _logs(outcome: Outcome) -> dict[str, list[float | None]]:
    names = outcome.curve[0].logs if outcome.curve else {}
    return {name: [_finite(point.logs[name]) for point in outcome.curve] for name in names}
