"""Records of runs, made from their specification, provenance and outcome."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rulezoo.discovery.fingerprint import fingerprint
from rulezoo.results.provenance import collect
from rulezoo.results.records import Cost, Device, Point, Provenance, Record, RunSpec, Status

if TYPE_CHECKING:
    from rulezoo.comparison.plan import Cell
    from rulezoo.training.outcome import Outcome


def of_outcome(
    cell: Cell, asked: RunSpec, outcome: Outcome, started: datetime, data: str | None = None
) -> Record:
    """The record of a run that came to an end in its process, well or not.

    Args:
        cell: what was run.
        asked: the run.
        outcome: what came of it.
        started: when it began.
        data: digest of the data.
    """
    return Record(
        asked=asked,
        answered=_provenance(
            cell, asked.device, started, outcome.seeds_together, compiled=outcome.compiled, data=data
        ),
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
        block_depth=outcome.block_depth,
        probes=list(outcome.probes),
    )


def kept_files(record: Record, outcome: Outcome) -> dict[str, bytes]:
    """The files alongside the record of a run, see `rulezoo.results.store.KEPT`."""
    from rulezoo.results import weights

    kept = outcome.kept
    if kept is None:
        return {}
    parts = {"weights": kept.weights, "memory": kept.memory}
    return {
        kind: weights.encode(tensors, kept.example, record)
        for kind, tensors in parts.items()
        if tensors is not None
    }


def of_failure(
    cell: Cell, asked: RunSpec, status: Status, reason: str, started: datetime, seeds_together: int
) -> Record:
    """The record of a run whose process cannot speak any more."""
    return Record(
        asked=asked,
        answered=_provenance(cell, asked.device, started, seeds_together, compiled=False),
        status=status,
        reason=reason,
        changed=cell.changed,
        chance=cell.task.chance,
        metric=cell.task.metric,
    )


def _provenance(
    cell: Cell,
    device: Device,
    started: datetime,
    seeds_together: int,
    *,
    compiled: bool,
    data: str | None = None,
) -> Provenance:
    return collect(
        device=device,
        rule_plugin=cell.rule_plugin,
        task_plugin=cell.task_plugin,
        started=started,
        finished=datetime.now(UTC),
        seeds_together=seeds_together,
        mode="vmap" if seeds_together > 1 else "single",
        rule_code=code_of(cell.rule_module),
        task_code=code_of(cell.task_module),
        compiled=compiled,
        data=data,
    )


def code_of(module: str) -> str | None:
    """Fingerprint of what a module stands for, if it can be had."""
    try:
        return fingerprint(module)
    except (LookupError, SyntaxError):  # without a source, or changed since it was imported
        return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


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
