"""A job: one cell of a plan, told in words, so that any process on any machine can do it.

Whoever does it finds the rule and the task by their names, trains, and writes the records into the store itself, so
that a result exists the moment it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.plan import Cell, Trial, plan
from rulezoo.provenance import answered
from rulezoo.records import Answered, Asked, Cost, Device, Point, Record, Status
from rulezoo.store import Store

if TYPE_CHECKING:
    from rulezoo.runner import Outcome

Tell = Callable[[int, int], None]
"""``tell(steps done, steps in all)``."""


@dataclass(frozen=True)
class Job:
    """What to do, in words and numbers only.

    Attributes:
        rule: name of the rule.
        rule_options: its options as the user wrote them.
        task: name of the task.
        task_options: its options as the user wrote them.
        seeds: the seeds to train together.
        epochs: in place of the task's own.
        device: class of the device.
        store: folder of results.
        data: folder of data sets.
        threads: torch's threads; ``None`` = torch decides.
        probes: at how many points of training to probe.
        trial: set where the runs are trials of a tuning.
    """

    rule: str
    task: str
    seeds: tuple[int, ...]
    device: Device
    store: Path
    rule_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    task_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    epochs: int | None = None
    data: Path | None = None
    threads: int | None = None
    probes: int = 0
    trial: Trial | None = None

    def cell(self) -> Cell:
        """The cell that the words stand for."""
        from rulezoo.registry import discover

        options = {self.rule: self.rule_options, self.task: self.task_options}
        (cell,) = plan(discover(), [self.rule], [self.task], self.seeds, self.device, options, self.epochs)
        return cell


def work(job: Job, tell: Tell = lambda done, total: None) -> list[Record]:
    """Do a job in this process, and store each record as soon as there is one.

    Raises:
        StoreError: if they cannot be stored.
        DataMissing: if the task's data are not there.
    """
    import torch

    from rulezoo import runner

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    cell, store, started = job.cell(), Store(job.store), datetime.now(UTC)
    data = cell.task.data(job.data)
    device = torch.device(job.device)
    outcomes = runner.run(
        cell.rule, cell.task, job.seeds, cell.budget, data, device, tell, job.probes, job.trial
    )
    records = []
    for asked, outcome in zip(cell.asked, outcomes, strict=True):
        records.append(_record(cell, asked, outcome, started))
        store.put(records[-1])
    return records


def failures(job: Job, status: Status, reason: str, started: datetime) -> list[Record]:
    """Store, for every seed of a job whose process cannot speak any more, how it ended; what it stored stays.

    Args:
        job: the job.
        status: how it ended.
        reason: a sentence.
        started: when it began.
    """
    cell, store = job.cell(), Store(job.store)
    together = len(job.seeds) if cell.rule.vmappable else 1
    records = []
    for asked in cell.asked:
        record = store.get(asked)
        if record is None or record.status == "interrupted":
            record = Record(
                asked=asked,
                answered=_answered(cell, asked.device, started, together),
                status=status,
                reason=reason,
                changed=cell.changed,
                chance=cell.task.chance,
                metric=cell.task.metric,
            )
            store.put(record)
        records.append(record)
    return records


def _record(cell: Cell, asked: Asked, outcome: Outcome, started: datetime) -> Record:
    return Record(
        asked=asked,
        answered=_answered(cell, asked.device, started, outcome.seeds_together),
        status=outcome.status,
        reason=outcome.reason,
        traceback=outcome.traceback,
        changed=cell.changed,
        scores=dict(outcome.scores or {}),
        chance=cell.task.chance,
        metric=cell.task.metric,
        curve=[
            Point(
                step=e.step, epoch=e.epoch, train_loss=_finite(e.train_loss), validation=_finite(e.validation)
            )
            for e in outcome.curve
        ],
        cost=_cost(outcome),
        logs=_logs(outcome),
        parameters=outcome.parameters,
        probes=list(outcome.probes),
    )


def _answered(cell: Cell, device: Device, started: datetime, seeds_together: int) -> Answered:
    return answered(
        device=device,
        rule_plugin=cell.rule_plugin,
        task_plugin=cell.task_plugin,
        started=started,
        finished=datetime.now(UTC),
        seeds_together=seeds_together,
        mode="vmap" if seeds_together > 1 else "single",
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
    names = dict.fromkeys(name for point in outcome.curve for name in point.logs)
    return {name: [_finite(point.logs.get(name, math.nan)) for point in outcome.curve] for name in names}
