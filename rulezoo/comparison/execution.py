"""Carries out a plan: finds what the store does not hold yet, and has an executor do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.comparison.inspection import Inspector
from rulezoo.comparison.jobs import CHECKPOINT, Job, is_done, tidy
from rulezoo.results import journal, leases, logs

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Executor, Listener
    from rulezoo.comparison.plan import Cell
    from rulezoo.results.records import Record
    from rulezoo.results.store import Store


def execute(
    cells: Sequence[Cell],
    store: Store,
    executor: Executor,
    listener: Listener,
    *,
    data: Path | None = None,
    download: bool = False,
    threads: int | None = None,
    probes: int = 0,
    checkpoint: float = CHECKPOINT,
    again: Callable[[Record], bool] = lambda record: False,
    compiled: bool = False,
    together: int | None = None,
    inspector: Inspector | None = None,
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
        probes: at how many points of training to probe the rules.
        checkpoint: seconds between two checkpoints of a training; 0 = none.
        again: which records are to be replaced: they are set aside, and their runs are done like those that are missing.
        compiled: let `torch.compile` take the steps.
        together: how many seeds of a cell to train together, at most; ``None`` = all of them.
        inspector: examines the tasks; one that is kept does not examine a task again.

    Raises:
        StoreError: if the store cannot be written; before the first training where that can be known.
        TaskError: if a task cannot be trained on; before the first training.
        DataMissing: if a task's data are not there; before the first training.
    """
    missing = [
        (cell, group)
        for cell in cells
        for group in _groups(cell, outstanding(cell, store, probes, again), together)
    ]
    runs = sum(len(cell.asked) for cell in cells)
    tidy(store, [asked for cell in cells for asked in cell.asked], probes)
    listener.planned(runs, runs - sum(len(seeds) for _, seeds in missing))
    if not missing:
        return
    store.check_writable()
    leases.check(store)
    (inspector or Inspector(data, download=download)).check(cell for cell, _ in missing)
    for asked in [asked for cell in cells for asked in cell.asked]:
        if (record := store.get(asked)) and again(record):
            store.set_aside(asked)
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
            budget=dict(cell.budget_words),
            data=data and data.resolve(),
            threads=threads,
            probes=probes,
            trial=cell.trial,
            checkpoint=checkpoint,
            precision=cell.asked[0].precision,
            compiled=compiled,
        )
        for cell, seeds in missing
    ]
    with journal.comparison(store, [asked for cell in cells for asked in cell.asked]):
        try:
            executor.run(jobs, listener)
        finally:
            logs.anonymise(store, [asked for cell, _ in missing for asked in cell.asked])


def _groups(cell: Cell, seeds: Sequence[int], together: int | None) -> list[tuple[int, ...]]:
    """These seeds of a cell in groups; who is with whom does not depend on which others are done."""
    every = [asked.seed for asked in cell.asked]
    size = together or len(every)
    groups = (every[begin : begin + size] for begin in range(0, len(every), size))
    chosen = (tuple(seed for seed in group if seed in seeds) for group in groups)
    return [group for group in chosen if group]


def outstanding(
    cell: Cell, store: Store, probes: int = 0, again: Callable[[Record], bool] = lambda record: False
) -> tuple[int, ...]:
    """The seeds of a cell that have to be run: those that are not `rulezoo.comparison.jobs.is_done`, or are wanted ``again``."""

    def done(record: Record | None) -> bool:
        return is_done(record, probes) and not (record and again(record))

    return tuple(asked.seed for asked in cell.asked if not done(store.get(asked)))
