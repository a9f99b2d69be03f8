"""Carries out a comparison, from the request to the records: plan, tuning, runs.

The command ``rulezoo compare`` and the Python call `rulezoo.compare` are both made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from rulezoo.comparison.execution import execute
from rulezoo.comparison.inspection import Inspector
from rulezoo.comparison.plan import Cell, choose_device, number_of_cells, plan, resolved
from rulezoo.errors import UserError
from rulezoo.evaluations import running
from rulezoo.evaluations.request import Requested, requested
from rulezoo.tuning import study

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Executor, Listener
    from rulezoo.comparison.jobs import Job
    from rulezoo.comparison.request import Request
    from rulezoo.discovery.registry import Registry
    from rulezoo.evaluations.records import Evaluated
    from rulezoo.results.records import Record
    from rulezoo.results.store import Store
    from rulezoo.tuning.records import Tuned


class Silent:
    """A listener that reports nothing."""

    def planned(self, runs: int, stored: int) -> None:
        """Ignored."""

    def started(self, job: Job) -> None:
        """Ignored."""

    def progressed(self, job: Job, done: int, total: int) -> None:
        """Ignored."""

    def finished(self, job: Job, records: Sequence[Record]) -> None:
        """Ignored."""


@contextmanager
def _silent() -> Iterator[Listener]:
    yield Silent()


class SilentEvaluations:
    """A listener of evaluations that reports nothing."""

    def planned(self, total: int, stored: int) -> None:
        """Ignored."""

    def started(self, one: running.Measuring) -> None:
        """Ignored."""

    def finished(self, one: running.Measuring, evaluated: Evaluated | None, reason: str) -> None:
        """Ignored."""


@contextmanager
def _silent_evaluations() -> Iterator[running.Listener]:
    yield SilentEvaluations()


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Listeners:
    """What is called while a comparison is carried out; by default nothing is reported.

    Attributes:
        progress: makes the listener of the runs, for each round of a tuning and for the comparison.
        log: called with a sentence for the user.
        examining: called before tasks are examined.
        deep_blocks: called with a task, the rules to be trained on it, and the depth of its deepest block, where that
            is more than one layer.
        evaluating: makes the listener of the evaluations.
    """

    progress: Callable[[], AbstractContextManager[Listener]] = _silent
    log: Callable[[str], None] = _ignore
    examining: Callable[[], None] = _ignore
    deep_blocks: Callable[[str, Sequence[str], int], None] = _ignore
    evaluating: Callable[[], AbstractContextManager[running.Listener]] = _silent_evaluations


@dataclass(frozen=True)
class Comparison:
    """What a comparison gave.

    Attributes:
        cells: what was compared, winners of a tuning included.
        records: those of its runs that could be read back.
        tuned: the conclusion of each tuning; empty without one.
        evaluations: what was asked of the trained networks; the results are in the store.
        not_evaluated: why evaluations could not be made, if some could not.
    """

    cells: list[Cell]
    records: list[Record]
    tuned: list[Tuned] = field(default_factory=list)
    evaluations: list[Requested] = field(default_factory=list)
    not_evaluated: running.NotMade = field(default_factory=running.NotMade)


def compare(
    request: Request,
    registry: Registry,
    store: Store,
    executor: Executor,
    listeners: Listeners | None = None,
) -> Comparison:
    """Run what the store does not hold yet of a comparison, and return all of it.

    With trials, every rule is tuned on every task first, and the defaults are compared with the winners.

    Args:
        request: what is asked.
        registry: the available rules and tasks.
        store: where results are read and written.
        executor: does the jobs.
        listeners: what is called on the way.

    Raises:
        UserError: before the first run, if what is asked cannot be done.
        StoreError: if the store cannot be written.
        DataMissing: if a task's data are missing.
    """
    listeners = listeners or Listeners()
    request = resolved(registry, request)
    evaluations = _evaluations(registry, request)
    run, cells = runner(request, executor, listeners), plan(registry, request)
    tuned = _tune(cells, request, registry, store, run, listeners) if request.trials else []
    if tuned:
        listeners.log("comparison: the defaults and the winners")
        cells = study.distinct([*cells, *study.winners(cells, tuned, registry)])
    run(cells, store)
    records = [record for cell in cells for asked in cell.asked if (record := store.get(asked))]
    if not evaluations:
        return Comparison(cells, records, tuned)
    not_made = _evaluate(request, registry, store, records, evaluations, listeners)
    return Comparison(cells, records, tuned, evaluations, not_made)


def _evaluations(registry: Registry, request: Request) -> list[Requested]:
    """What is asked of the trained networks, checked before the first run."""
    own = {name: words for name, words in request.options.items() if name in request.evaluations}
    return requested(registry, request.evaluations, own)


def _evaluate(
    request: Request,
    registry: Registry,
    store: Store,
    records: Sequence[Record],
    evaluations: Sequence[Requested],
    listeners: Listeners,
) -> running.NotMade:
    try:
        device = choose_device(request.device)
    except UserError:  # the runs were made elsewhere, on a device that this machine does not have
        device = choose_device("auto")
    with listeners.evaluating() as listener:
        return running.evaluate(
            store,
            [record for record in records if record.weights],
            evaluations,
            listener,
            data=request.data,
            device=device,
            again=running.wanted_again(request.retry, registry),
        )


def tune(
    request: Request,
    registry: Registry,
    store: Store,
    executor: Executor,
    listeners: Listeners | None = None,
) -> list[Tuned]:
    """Tune every rule on every task, without the comparison; like `compare`."""
    listeners = listeners or Listeners()
    run, cells = runner(request, executor, listeners), plan(registry, request)
    return _tune(cells, request, registry, store, run, listeners)


def number_of_runs(request: Request, registry: Registry) -> int:
    """The largest number of runs that a comparison can take, trials and winners of a tuning included."""
    each = len(request.seeds)
    if request.trials:
        each = 2 * each + request.trials * len(study.SEEDS)
    return number_of_cells(registry, request) * each


def _tune(
    cells: Sequence[Cell],
    request: Request,
    registry: Registry,
    store: Store,
    run: study.Run,
    listeners: Listeners,
) -> list[Tuned]:
    trials = request.trials
    if trials is None:
        raise UserError(
            "trials must be a number, 2 or more, got None: it is the number of trials of a tuning"
        )

    def begin(first: int, last: int) -> None:
        listeners.log(
            f"tuning: trials {first} to {last} of {trials} of each rule on each task, with {len(study.SEEDS)} seeds"
        )

    return study.tune(cells, trials, registry, store, run, begin)


def runner(request: Request, executor: Executor, listeners: Listeners) -> study.Run:
    """What carries out cells; each task is examined once, however often it is called."""
    inspector = Inspector(
        request.data,
        download=request.download,
        report=listeners.examining,
        progress=listeners.log,
        note=listeners.deep_blocks,
    )
    return partial(_run, executor=executor, listeners=listeners, inspector=inspector)


def _run(
    cells: Sequence[Cell], store: Store, *, executor: Executor, listeners: Listeners, inspector: Inspector
) -> None:
    with listeners.progress() as listener:
        execute(cells, store, executor, listener, inspector)
