"""Has evaluations of stored networks carried out: what is stored is not measured again, and each failure stays alone.

Every evaluation runs in a guarded process (`rulezoo.comparison.guard`), for its code may hang or crash.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from rulezoo.comparison import guard
from rulezoo.discovery.plugins import FILES
from rulezoo.evaluations import store as stored
from rulezoo.evaluations.records import FAILED, Evaluated
from rulezoo.evaluations.request import Requested
from rulezoo.processes import server
from rulezoo.results.freshness import code_changed
from rulezoo.results.store import StoreError

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry
    from rulezoo.evaluations.measuring import EvaluationRequest, Reply
    from rulezoo.results.records import Device, Record
    from rulezoo.results.store import Store

RETRY = ("failed", "stale", "all")  #: what `wanted_again` knows
LIMIT = 3600.0  #: default time limit of one evaluation of one network, in seconds


@dataclass(frozen=True)
class Measuring:
    """One evaluation of the network of one run."""

    asked: Requested
    record: Record


@dataclass(frozen=True)
class NotMade:
    """Why measurements could not be made, so that nothing is stored of them; each sentence once.

    Attributes:
        missing: data that an evaluation needs.
        unusable: weights that cannot be read, rules or tasks that are not installed.
    """

    missing: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """All sentences."""
        return (*self.missing, *self.unusable)


class Listener(Protocol):
    """What is called while measurements are made."""

    def planned(self, total: int, stored: int) -> None:
        """How many measurements were asked for, and how many of them are stored already."""

    def started(self, one: Measuring) -> None:
        """A measurement begins."""

    def finished(self, one: Measuring, evaluated: Evaluated | None, reason: str) -> None:
        """A measurement ended; ``None`` where there is no result to store, with the reason."""


def stale(evaluated: Evaluated, registry: Registry, record: Record | None = None) -> str | None:
    """Why an evaluation may not be what would be found now, in a sentence; ``None`` where nothing suggests it.

    Args:
        evaluated: the evaluation.
        registry: the evaluations there are.
        record: of the run, as it is stored now.
    """
    name = evaluated.asked.evaluation
    if record is not None and record.weights is not None and record.weights != evaluated.weights:
        return f"{evaluated.label} is of other weights than those that are stored now"
    found = registry.evaluations.get(name)
    if found is None:
        return None
    if found.spec.version != evaluated.asked.version:
        return f"{evaluated.label} is of version {evaluated.asked.version} of the evaluation, now {found.spec.version}"
    if evaluated.code is not None and code_changed(evaluated.code, found.spec.module):
        return f"the code of evaluation {name} changed since"
    return None


def wanted_again(words: Collection[str], registry: Registry) -> Callable[[Evaluated], bool]:
    """A test for the stored evaluations that are to be replaced.

    Args:
        words: of `RETRY`.
        registry: the evaluations there are.
    """

    def wanted(one: Evaluated) -> bool:
        failed = "failed" in words and one.status in FAILED
        return "all" in words or failed or ("stale" in words and stale(one, registry) is not None)

    return wanted


def outstanding(
    store: Store,
    records: Iterable[Record],
    evaluations: Sequence[Requested],
    again: Callable[[Evaluated], bool] = lambda one: False,
) -> tuple[list[Measuring], int]:
    """What has to be measured, run by run, and how many measurements are stored already.

    Args:
        store: the folder of results.
        records: of runs whose weights were kept.
        evaluations: what is asked for.
        again: which stored ones are to be replaced; those of other weights than the run's are, anyway.
    """
    todo, done = [], 0
    for record in records:
        for asked in evaluations:
            found = stored.get(store, asked.question(record))
            if found is None or found.weights != record.weights or again(found):
                todo.append(Measuring(asked, record))
            else:
                done += 1
    return todo, done


def evaluate(
    store: Store,
    records: Iterable[Record],
    evaluations: Sequence[Requested],
    listener: Listener,
    *,
    data: Path | None = None,
    device: Device = "cpu",
    again: Callable[[Evaluated], bool] = lambda one: False,
    limit: float = LIMIT,
) -> NotMade:
    """Measure what is missing, and store each result as soon as there is one.

    Args:
        store: the folder of results.
        records: of runs whose weights were kept.
        evaluations: what is asked for.
        listener: receives the progress.
        data: the folder of data sets.
        device: where to compute.
        again: which stored ones are to be replaced.
        limit: time limit of each measurement, in seconds.

    Returns:
        why measurements could not be made, if some could not.

    Raises:
        StoreError: if a result cannot be stored.
    """
    todo, done = outstanding(store, records, evaluations, again)
    listener.planned(len(todo) + done, done)
    if not todo:
        return NotMade()
    store.check_writable()
    from rulezoo.evaluations import measuring

    requests = [_request(one, store, data, device) for one in todo]
    environ = {FILES: os.environ.get(FILES, ""), server.SAFE_PATH: os.environ.get(server.SAFE_PATH)}
    waiting = iter(todo)
    outcomes = guard.run(
        measuring.answer,
        [msgspec.json.encode(request) for request in requests],
        server.context(),
        limit,
        environ,
        lambda step: listener.started(next(waiting)) if step.startswith(measuring.BEGINS) else None,
    )
    missing: dict[str, None] = {}
    unusable: dict[str, None] = {}
    for one, outcome in zip(todo, outcomes, strict=True):
        if isinstance(outcome, guard.Death):
            _store_crash(store, one, outcome.cause)
            reply = measuring.Reply()
        else:
            reply = msgspec.json.decode(outcome, type=measuring.Reply)
        if reply.full is not None:
            raise StoreError(reply.full)
        missing |= {reply.missing: None} if reply.missing is not None else {}
        unusable |= {reply.unusable: None} if reply.unusable is not None else {}
        listener.finished(one, *_result(store, one, reply))
    return NotMade(tuple(missing), tuple(unusable))


def _result(store: Store, one: Measuring, reply: Reply) -> tuple[Evaluated | None, str]:
    reason = reply.missing or reply.unusable
    if reason is not None:
        return None, reason
    return stored.get(store, one.asked.question(one.record)), "the result cannot be read back"


def _request(one: Measuring, store: Store, data: Path | None, device: Device) -> EvaluationRequest:
    from rulezoo.evaluations.measuring import EvaluationRequest

    return EvaluationRequest(
        store=str(store.root.resolve()),
        run=one.record.asked,
        evaluation=one.asked.name,
        options=dict(one.asked.words),
        data=None if data is None else str(data.expanduser().resolve()),
        device=device,
    )


def _store_crash(store: Store, one: Measuring, cause: str) -> None:
    from rulezoo.evaluations.measuring import Found, of

    stored.put(store, of(one.asked, one.record, Found("crashed", reason=cause), 0.0))
