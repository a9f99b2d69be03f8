"""Carries out a plan: finds what the store does not hold yet, and has an executor do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rulezoo.comparison.inspection import Inspector
from rulezoo.comparison.jobs import Job, is_done, tidy
from rulezoo.results import journal, leases, logs
from rulezoo.results.freshness import changed_code, wanted_again

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
    inspector: Inspector | None = None,
) -> None:
    """Run what is missing, as the request of each cell asks.

    Args:
        cells: the plan. Stored runs that a cell's request wants again are set aside, and run like missing ones.
        store: where results are read and written.
        executor: does the jobs.
        listener: receives the progress.
        inspector: examines the tasks; one that is kept does not examine a task again.

    Raises:
        StoreError: if the store cannot be written; before the first run where that can be known.
        TaskError: if a task cannot be trained on; before the first run.
        DataMissing: if a task's data are missing; before the first run.
    """
    missing = [(cell, group) for cell in cells for group in _groups(cell, outstanding(cell, store))]
    runs = sum(len(cell.asked) for cell in cells)
    for cell in cells:
        tidy(store, cell.asked, cell.request)
    listener.planned(runs, runs - sum(len(seeds) for _, seeds in missing))
    if not missing:
        return
    store.check_writable()
    leases.check(store)
    (inspector or Inspector.of(missing[0][0].request)).check(cell for cell, _ in missing)
    _set_aside(cells, store)
    with journal.comparison(store, [asked for cell in cells for asked in cell.asked]):
        try:
            executor.run([_job(cell, seeds, store) for cell, seeds in missing], listener)
        finally:
            logs.anonymise(store, [asked for cell, _ in missing for asked in cell.asked])


def _job(cell: Cell, seeds: tuple[int, ...], store: Store) -> Job:
    data = cell.request.data
    request = replace(cell.request, seeds=seeds, data=data and data.resolve())
    return Job(request, store.root.resolve(), cell.trial)


def _set_aside(cells: Sequence[Cell], store: Store) -> None:
    for cell in cells:
        for asked in cell.asked:
            if (record := store.get(asked)) and _is_wanted_again(cell, record):
                store.set_aside(asked)


def _is_wanted_again(cell: Cell, record: Record) -> bool:
    modules = partial(changed_code, rule_module=cell.rule_module, task_module=cell.task_module)
    return wanted_again(cell.request.retry, modules)(record)


def _groups(cell: Cell, seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """These seeds of a cell in groups; who is with whom does not depend on which others are done."""
    every = [asked.seed for asked in cell.asked]
    size = cell.request.together or len(every)
    groups = (every[begin : begin + size] for begin in range(0, len(every), size))
    chosen = (tuple(seed for seed in group if seed in seeds) for group in groups)
    return [group for group in chosen if group]


def outstanding(cell: Cell, store: Store) -> tuple[int, ...]:
    """The seeds of a cell that have to be run: those without a complete record, or whose record is wanted again."""

    def done(record: Record | None) -> bool:
        return is_done(record, cell.request) and not (record and _is_wanted_again(cell, record))

    return tuple(asked.seed for asked in cell.asked if not done(store.get(asked)))
