"""What a comparison will take, from what is stored: runs, computing time, memory and disk. Nothing is run or written.

The time of a run is known where runs of the same rule on the same task are stored that the same class of hardware made
with the same precision and batch; where options of the task change its data only, and its network has as many parameters,
their time per step is taken. It is the time of the training steps: evaluation, probes, the start of processes and the reading
of data are not part of it.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from rulezoo.comparison.execution import outstanding
from rulezoo.comparison.plan import Cell, plan
from rulezoo.datasets.cache import estimating
from rulezoo.discovery.plugins import reason
from rulezoo.task import DataMissing
from rulezoo.tuning import records, study
from rulezoo.tuning.space import space

if TYPE_CHECKING:
    from rulezoo.comparison.request import Request
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Hardware, Record
    from rulezoo.results.store import Store

PARAMETER_BYTES = 4  #: weights are stored in float32


@dataclass(frozen=True)
class Forecast:
    """What the runs on a task take.

    Attributes:
        task: its name.
        runs: number of runs; with a tuning, the largest number that its trials and winners can take.
        stored: how many of them are stored and are not run again.
        seconds: computing time of the training steps, summed over the runs to do whose time is known.
        unknown: number of runs to do whose time is not known.
        peak_mb: highest memory that stored runs of the same rules on the task took; ``None`` = not known.
        record_bytes: disk space of the new records; ``None`` = not known.
        weight_bytes: disk space of the weights to keep; ``None`` = not known.
        cache_bytes: disk space of the packed caches of images that are still to be written; ``None`` = not known.
        problem: why the task's data cannot be used as they are; empty where they can.
    """

    task: str
    runs: int
    stored: int
    seconds: float
    unknown: int
    peak_mb: float | None
    record_bytes: int | None
    weight_bytes: int | None
    cache_bytes: int | None
    problem: str = ""

    @property
    def to_do(self) -> int:
        """Number of runs to do."""
        return self.runs - self.stored


@dataclass(frozen=True)
class _Part:
    """Some runs of a cell."""

    cell: Cell
    runs: int
    stored: int

    @property
    def to_do(self) -> int:
        return self.runs - self.stored


def forecast(request: Request, registry: Registry, store: Store, hardware: Hardware | None) -> list[Forecast]:
    """One forecast for each task, in the order of the plan.

    Args:
        request: what is asked.
        registry: the available rules and tasks.
        store: of results.
        hardware: class of the machine that will compute; ``None`` = not known, as on a cluster.
    """
    known = _Known([store, records.trials_of(store)], hardware)
    by_task: dict[str, list[_Part]] = defaultdict(list)
    for cell in plan(registry, request):
        by_task[cell.task_name] += _parts(cell, registry, store)
    return [_of_task(task, parts, known) for task, parts in by_task.items()]


def forecast_cells(
    cells: Iterable[Cell], store: Store, others: Sequence[Store], hardware: Hardware | None
) -> list[Forecast]:
    """One forecast for each task of these cells, without tuning.

    Args:
        cells: what is run.
        store: where the results are stored.
        others: stores whose runs tell what such runs take.
        hardware: class of the machine that will compute; ``None`` = not known, as on a cluster.
    """
    known = _Known([store, *others], hardware)
    by_task: dict[str, list[_Part]] = defaultdict(list)
    for cell in cells:
        part = _Part(cell, len(cell.asked), len(cell.asked) - len(outstanding(cell, store)))
        by_task[cell.task_name].append(part)
    return [_of_task(task, parts, known) for task, parts in by_task.items()]


def _parts(cell: Cell, registry: Registry, store: Store) -> list[_Part]:
    own = _Part(cell, len(cell.asked), len(cell.asked) - len(outstanding(cell, store)))
    if not (n := cell.request.trials):
        return [own]
    so_far, stored = _tuned_so_far(cell, n, registry, records.trials_of(store))
    trial = replace(cell, request=cell.request.of_trial(study.SEEDS))
    most = len(study.SEEDS) * (n if space(cell) else 1)
    return [own, _Part(trial, most, stored), _winner(cell, so_far, n, most == stored, registry, store)]


def _tuned_so_far(cell: Cell, n: int, registry: Registry, trials: Store) -> tuple[study.Study, int]:
    """The trials that are stored, and their number of runs, as far as the next round does not depend on missing ones."""
    so_far, stored = study.Study(cell), 0
    while len(so_far.done) < n and (proposed := so_far.next_round(registry, n)):
        missing = [outstanding(one, trials) for one in proposed]
        stored += sum(len(one.asked) for one in proposed) - sum(map(len, missing))
        if any(missing):
            break
        done = tuple((one, study.tried(one, cell, trials)) for one in proposed)
        so_far = replace(so_far, done=(*so_far.done, *done))
    return so_far, stored


def _winner(
    cell: Cell, so_far: study.Study, n: int, is_complete: bool, registry: Registry, store: Store
) -> _Part:
    """The runs of the winner, which are those of the default where that wins."""
    if not is_complete:
        return _Part(cell, len(cell.asked), 0)
    (won,) = study.winners([cell], [so_far.conclusion(n)], registry)
    if won.asked == cell.asked:
        return _Part(cell, 0, 0)
    return _Part(won, len(won.asked), len(won.asked) - len(outstanding(won, store)))


def _of_task(task: str, parts: Sequence[_Part], known: _Known) -> Forecast:
    to_do = [part for part in parts if part.to_do]
    seconds = [known.seconds(part.cell) for part in to_do]
    caches, problem = _caches([part.cell for part in to_do])
    peaks = [peak for part in to_do if (peak := known.peak_mb(part.cell)) is not None]
    return Forecast(
        task=task,
        runs=sum(part.runs for part in parts),
        stored=sum(part.stored for part in parts),
        seconds=sum(part.to_do * one for part, one in zip(to_do, seconds, strict=True) if one is not None),
        unknown=sum(part.to_do for part, one in zip(to_do, seconds, strict=True) if one is None),
        peak_mb=max(peaks, default=None),
        record_bytes=_total(to_do, known.record_bytes),
        weight_bytes=_total([part for part in to_do if part.cell.request.keep_weights], known.weight_bytes),
        cache_bytes=caches,
        problem=problem,
    )


def _caches(cells: Sequence[Cell]) -> tuple[int | None, str]:
    """Size of the packed caches that these cells lack, and why it is not known if it is not."""
    tasks = {repr(cell.task): cell for cell in cells}
    total = 0
    for cell in tasks.values():
        try:
            with estimating() as sizes:
                cell.task.data(cell.request.data)
        except DataMissing as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001  the code of a plugin may fail in any way
            return None, f"data() of task {cell.task_name!r} failed: {reason(error)}"
        total += sum(sizes)
    return total, ""


class _Known:
    """What the runs in some stores tell of others like them."""

    def __init__(self, stores: Iterable[Store], hardware: Hardware | None) -> None:
        self.hardware = hardware
        self.records: dict[tuple[str, str], list[Record]] = defaultdict(list)
        self.sizes: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.networks: dict[str, _Network | None] = {}
        for one in stores:
            for record in one.read(curves=False).records if one.root.is_dir() else ():
                place = record.asked.rule, record.asked.task
                self.records[place].append(record)
                with suppress(OSError):  # one that was set aside is elsewhere
                    self.sizes[place].append(one.path(record.asked).stat().st_size)

    def seconds(self, cell: Cell) -> float | None:
        """Median time of a run's training steps; of runs with the same options where there are any."""
        alike = [record for record in self._of(cell) if self._is_timed_alike(record, cell)]
        same = [record for record in alike if record.asked.rule_options == cell.asked[0].rule_options]
        if times := [_seconds_per_epoch(record) for record in same or _same_options(alike, cell) or alike]:
            return statistics.median(times) * cell.budget.epochs
        return self._seconds_by_step(cell)

    def _seconds_by_step(self, cell: Cell) -> float | None:
        """By runs of the same network and options of the rule, on other data of the task."""
        found = self.records[cell.rule_name, cell.task_name]
        alike = [one for one in found if _is_alike(one, cell) and self._is_timed_alike(one, cell)]
        same = _same_options(alike, cell)
        if not same:
            return None
        key = repr(cell.task)
        if key not in self.networks:
            self.networks[key] = _network(cell)
        if (network := self.networks[key]) is None:
            return None
        times = [_seconds_per_step(record) for record in same if record.parameters == network.parameters]
        return statistics.median(times) * network.steps * cell.budget.epochs if times else None

    def peak_mb(self, cell: Cell) -> float | None:
        """Highest memory of a process that trained such runs."""
        costs = [record.cost for record in self._of(cell) if record.cost]
        return max((cost.peak_memory_mb for cost in costs if cost.peak_memory_mb), default=None)

    def record_bytes(self, cell: Cell) -> float | None:
        """Mean size of a record."""
        sizes = self.sizes[cell.rule_name, cell.task_name] or [
            one for some in self.sizes.values() for one in some
        ]
        return statistics.fmean(sizes) if sizes else None

    def weight_bytes(self, cell: Cell) -> float | None:
        """Size of the weights of a run."""
        of_task = [
            record.parameters
            for (_, task), some in self.records.items()
            for record in some
            if task == cell.task_name
            and record.parameters
            and record.asked.task_options == cell.asked[0].task_options
        ]
        return PARAMETER_BYTES * max(of_task) if of_task else None

    def _of(self, cell: Cell) -> list[Record]:
        return [
            record
            for record in self.records[cell.rule_name, cell.task_name]
            if _is_alike(record, cell) and record.asked.task_options == cell.asked[0].task_options
        ]

    def _is_timed_alike(self, record: Record, cell: Cell) -> bool:
        return (
            record.cost is not None
            and bool(record.curve)
            and record.answered.compiled == cell.request.compiled
            and self.hardware is not None
            and _is_same_class(record.answered.hardware, self.hardware)
        )


def _is_same_class(one: Hardware, other: Hardware) -> bool:
    """Whether times can be compared: on a GPU it does not matter how many threads feed it."""
    if one.gpu or other.gpu:
        return one.gpu == other.gpu
    return (one.cpu, one.threads) == (other.cpu, other.threads)


def _seconds_per_epoch(record: Record) -> float:
    last = record.curve[-1]
    return _seconds_per_step(record) * last.step / last.epoch


def _seconds_per_step(record: Record) -> float:
    """Of one run; seeds that are trained together share the time of a step."""
    assert record.cost is not None
    return record.cost.step_ms / 1e3 / record.answered.seeds_together


def _is_alike(record: Record, cell: Cell) -> bool:
    asked = cell.asked[0]
    return (
        record.status == "ok"
        and record.asked.device == asked.device
        and record.asked.precision == asked.precision
        and record.asked.budget.get("batch") == asked.budget.get("batch")
    )


def _same_options(found: Sequence[Record], cell: Cell) -> list[Record]:
    """Those with the same options of the rule, apart from those on which the time of a step does not depend.

    An option that the rule did not have yet when a run was made counts as its default.
    """
    wanted, changed = cell.asked[0].rule_options, set(cell.changed)

    def same(options: Mapping[str, object]) -> bool:
        known = all(wanted.get(name) == value for name, value in options.items() if name not in _UNTIMED)
        return known and not (changed - set(options) - set(_UNTIMED))

    return [one for one in found if same(one.asked.rule_options)]


_UNTIMED = ("lr", "weight_decay")


class _Network(NamedTuple):
    """A cell's network: number of parameters, and steps of an epoch."""

    parameters: int
    steps: int


def _network(cell: Cell) -> _Network | None:
    """``None`` where the task's network or data cannot be had."""
    try:
        parameters = sum(one.numel() for one in cell.task.network().parameters())
        examples = len(cell.task.data(cell.request.data).train.y)
    except Exception:  # noqa: BLE001  the code of a plugin may fail in any way; then the time is not known
        return None
    return _Network(parameters, max(1, examples // cell.budget.batch))


def _total(parts: Sequence[_Part], size: Callable[[Cell], float | None]) -> int | None:
    sizes = [(part.to_do, size(part.cell)) for part in parts]
    if any(one is None for _, one in sizes):
        return None
    return round(sum(runs * one for runs, one in sizes if one is not None))
