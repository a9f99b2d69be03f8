"""Carries out a plan: finds what the store does not hold yet, and has an executor do it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.jobs import Job

if TYPE_CHECKING:
    from rulezoo.executors import Executor, Listener
    from rulezoo.plan import Cell
    from rulezoo.records import Asked
    from rulezoo.store import Store


def execute(
    cells: Sequence[Cell],
    store: Store,
    executor: Executor,
    listener: Listener,
    *,
    data: Path | None = None,
    download: bool = False,
    threads: int | None = None,
) -> None:
    """Run what is missing.

    Args:
        cells: the plan.
        store: where results are, and go.
        executor: who does it.
        listener: told how far it is.
        data: folder of data sets.
        download: whether data sets may be downloaded into it.
        threads: torch's threads in each process.

    Raises:
        StoreError: if the store cannot be written; before the first training where that can be known.
        DataMissing: if a task's data are not there; before the first training.
    """
    missing = [(cell, seeds) for cell in cells if (seeds := outstanding(cell, store))]
    runs = sum(len(cell.asked) for cell in cells)
    listener.planned(runs, runs - sum(len(seeds) for _, seeds in missing))
    if not missing:
        return
    store.check_writable()
    for task in {cell.task for cell, _ in missing}:
        task.data(
            data, download=download
        )  # thrown away: the jobs read it themselves, now that it is known to be there
    jobs = [
        Job(
            rule=cell.rule_name,
            task=cell.task_name,
            seeds=seeds,
            device=cell.asked[0].device,
            store=store.root.resolve(),
            rule_options=dict(cell.rule_words),
            task_options=dict(cell.task_words),
            epochs=cell.epochs,
            data=data,
            threads=threads,
        )
        for cell, seeds in missing
    ]
    executor.run(jobs, listener)


def outstanding(cell: Cell, store: Store) -> tuple[int, ...]:
    """The seeds of a cell that have to be run: those without a record, and those that were interrupted."""

    def stored(asked: Asked) -> bool:
        record = store.get(asked)
        return record is not None and record.status != "interrupted"

    return tuple(asked.seed for asked in cell.asked if not stored(asked))
