"""Carries out one evaluation of one network and stores it; what a guarded process calls.

An exception in an evaluation's code is a stored result with its reason and traceback, as it is for a run. So is a network
that the evaluation changed, for the next evaluation would meet another one.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rulezoo.discovery.plugins import reason
from rulezoo.errors import UserError
from rulezoo.evaluation import Evaluation, Measurement, MeasurementError
from rulezoo.evaluations.records import Evaluated, Status
from rulezoo.evaluations.request import Requested, requested
from rulezoo.evaluations.store import put
from rulezoo.results import provenance
from rulezoo.results.freshness import code_of
from rulezoo.results.records import Device, Record, RecordError, RunSpec
from rulezoo.results.store import Store, StoreError
from rulezoo.task import DataMissing

if TYPE_CHECKING:
    from torch import Tensor

    from rulezoo.comparison.guard import Report
    from rulezoo.trained import TrainedNetwork

BEGINS = "evaluation"  #: how the report begins that a measurement has begun
_WORDS = 3  # of the shortest sentence


class EvaluationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of the network of one run, as it is sent to a process.

    Attributes:
        store: the folder of results.
        run: specification of the run.
        evaluation: name of the evaluation.
        options: its options as the user wrote them.
        data: the folder of data sets.
        device: class of the device to compute on.
    """

    store: str
    run: RunSpec
    evaluation: str
    options: dict[str, str]
    data: str | None
    device: Device


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an `EvaluationRequest`.

    Attributes:
        unusable: why there is no result to store, in a sentence: the weights cannot be read.
        missing: which data are missing, in a sentence.
        full: why the result could not be stored, in a sentence.
    """

    unusable: str | None = None
    missing: str | None = None
    full: str | None = None


@dataclass(frozen=True)
class Found:
    """What came of an evaluation: its status, and a measurement or the reason why there is none."""

    status: Status
    measurement: Measurement | None = None
    reason: str | None = None
    traceback: str | None = None


def answer(encoded: bytes, report: Report) -> bytes:
    """Carry out an encoded `EvaluationRequest`; returns an encoded `Reply`."""
    request = msgspec.json.decode(encoded, type=EvaluationRequest)
    run = request.run
    report(f"{BEGINS} {request.evaluation!r} of {run.rule} on {run.task}, seed {run.seed},")
    try:
        reply = _carried_out(request)
    except DataMissing as error:
        reply = Reply(missing=str(error))
    except StoreError as error:
        reply = Reply(full=str(error))
    except UserError as error:  # weights that cannot be read, a rule that is not installed
        reply = Reply(unusable=str(error))
    return msgspec.json.encode(reply)


def _carried_out(request: EvaluationRequest) -> Reply:
    registry = _registry()
    (asked,) = requested(registry, [request.evaluation], {request.evaluation: request.options})
    store = Store(Path(request.store))
    record = store.get(request.run)
    if record is None:
        return Reply(unusable="the record of the run was deleted")
    network = _network(request.store, msgspec.json.encode(request.run), request.device)
    begin = time.perf_counter()
    found = measured(asked.made, network, None if request.data is None else Path(request.data))
    seconds = time.perf_counter() - begin
    if found.status == "error":
        _network.cache_clear()  # it may have been changed
    evaluated = of(asked, record, found, seconds, request.device)
    put(store, evaluated, found.measurement.arrays if found.measurement else None)
    return Reply()


def measured(evaluation: Evaluation, network: TrainedNetwork, root: Path | None) -> Found:
    """Carry out an evaluation; whatever its code raises becomes a reason, but for missing data.

    Raises:
        DataMissing: if data that it needs are missing.
    """
    before = _copy(network)
    try:
        why = evaluation.skip(network)
        if why is not None:
            _check_sentence(why)
            return Found("skipped", reason=why)
        measurement = evaluation.measure(network, root)
        check_measurement(evaluation, measurement)
        check_unchanged(before, network)
    except DataMissing:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  foreign code may raise anything; it is reported
        return Found("error", None, reason(error), "".join(traceback.format_exception(error)))
    return Found("ok", measurement)


def check_measurement(evaluation: Evaluation, measurement: object) -> None:
    """See that what an evaluation returned is a measurement with the headline.

    Raises:
        MeasurementError: if it is not.
    """
    if not isinstance(measurement, Measurement):
        raise MeasurementError(
            f"measure() must return a rulezoo.Measurement, got a {type(measurement).__name__}"
        )
    if evaluation.headline not in measurement.values:
        known = ", ".join(measurement.values) or "none"
        raise MeasurementError(
            f"the measurement has no value {evaluation.headline!r}, which is the headline; its values are: {known}"
        )


def _copy(network: TrainedNetwork) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def check_unchanged(before: Mapping[str, Tensor], network: TrainedNetwork) -> None:
    """See that a network still has its weights.

    Args:
        before: copies of its ``state_dict``.
        network: the network.

    Raises:
        MeasurementError: if one has changed.
    """
    import torch

    for name, value in network.state_dict().items():
        if not torch.equal(before[name], value):
            raise MeasurementError(
                f"the evaluation changed {name!r} of the network; work on network.model(), which is a copy"
            )


def _check_sentence(why: object) -> None:
    if not isinstance(why, str) or len(why.split()) < _WORDS:
        raise MeasurementError(
            f"skip() must return None or the reason why it does not apply, in a sentence, got {why!r}"
        )


def of(
    asked: Requested, record: Record, found: Found, seconds: float, device: Device | None = None
) -> Evaluated:
    """The record of an evaluation.

    Args:
        asked: the evaluation.
        record: of the run.
        found: what came of it.
        seconds: wall time.
        device: where it was computed; ``None`` = its process could not report that.
    """
    measurement = found.measurement
    commit, dirty = provenance.checkout()
    return Evaluated(
        asked=asked.question(record),
        status=found.status,
        reason=found.reason,
        traceback=found.traceback,
        changed=asked.changed,
        headline=asked.made.headline,
        higher_is_better=asked.made.higher_is_better,
        values=_stored(measurement.values) if measurement else {},
        notes=dict(measurement.notes) if measurement else {},
        weights=record.weights or "",
        plugin=asked.plugin,
        code=code_of(asked.found.spec.module),
        data=(measurement.data or None) if measurement else None,
        packages=provenance.packages(device or "cpu"),
        hardware=provenance.hardware(device) if device else None,
        commit=commit,
        dirty=dirty,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
    )


def _stored(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


@lru_cache(maxsize=1)
def _registry() -> Any:  # noqa: ANN401  a Registry
    from rulezoo.discovery.registry import discover

    return discover()


@lru_cache(maxsize=1)
def _network(root: str, run: bytes, device: Device) -> TrainedNetwork:
    """The network of a run; several evaluations of one run, one after the other, share it."""
    from rulezoo.evaluations.network import network_of

    store = Store(Path(root))
    record = store.get(msgspec.json.decode(run, type=RunSpec))
    if record is None:
        raise RecordError("the record of the run was deleted")
    return network_of(store, record, _registry(), device)
