"""What ``rulezoo compare --dry-run`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from rulezoo.cli.common import count, print_table
from rulezoo.cli.output import echo
from rulezoo.results.provenance import hardware
from rulezoo.tuning.forecast import Forecast, forecast, forecast_cells

if TYPE_CHECKING:
    from rulezoo.cli.executor import ExecutorOptions
    from rulezoo.comparison.plan import Cell
    from rulezoo.comparison.request import Request
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Hardware
    from rulezoo.results.store import Store

HEAD = ("task", "runs", "stored", "to do", "computing time", "memory", "disk")
_UNKNOWN = "not known"


def show_forecast(request: Request, found: Registry, store: Store, execution: ExecutorOptions) -> None:
    """Print what a comparison takes; nothing is run or written."""
    _show(forecast(request, found, store, _hardware(request, execution)), request)


def show_forecast_of_claim(
    cells: Iterable[Cell], request: Request, store: Store, others: Sequence[Store], execution: ExecutorOptions
) -> None:
    """Print what the runs of a claim take, judged by its own store and by others; nothing is run or written."""
    _show(forecast_cells(cells, store, others, _hardware(request, execution)), request)


def _show(tasks: Sequence[Forecast], request: Request) -> None:
    print_table([_row(one) for one in tasks], HEAD)
    echo()
    for line in _notes(tasks, request):
        echo(line)


def _hardware(request: Request, execution: ExecutorOptions) -> Hardware | None:
    """The class of this machine as its jobs will use it; a cluster's is not known here."""
    if execution.executor != "local":
        return None
    here = hardware(request.device)  # type: ignore[arg-type]  # not "auto" any more
    return msgspec.structs.replace(here, threads=request.threads or here.threads)


def _row(one: Forecast) -> tuple[str, ...]:
    numbers = (one.task, f"{one.runs:,}", f"{one.stored:,}", f"{one.to_do:,}")
    if not one.to_do:
        return (*numbers, "none", "none", "none")
    memory = _UNKNOWN if one.peak_mb is None else f"{one.peak_mb:,.0f} MB"
    return (*numbers, _time([one]), memory, _disk([one]))


def _time(tasks: Sequence[Forecast]) -> str:
    unknown, to_do = sum(one.unknown for one in tasks), sum(one.to_do for one in tasks)
    if unknown == to_do:
        return _UNKNOWN if to_do else "none"
    known = _duration(sum(one.seconds for one in tasks))
    return known if not unknown else f"{known} for {count(to_do - unknown, 'run')}, {_UNKNOWN} for {unknown}"


def _duration(seconds: float) -> str:
    return "under 1 s" if seconds < 1 else str(timedelta(seconds=round(seconds)))


def _disk(tasks: Sequence[Forecast]) -> str:
    sizes = [size for one in tasks for size in (one.record_bytes, one.weight_bytes, one.cache_bytes)]
    known = _bytes(sum(size or 0 for size in sizes))
    if all(size is not None for size in sizes):
        return known
    return f"{known}, and more that is {_UNKNOWN}" if any(sizes) else _UNKNOWN


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _notes(tasks: Sequence[Forecast], request: Request) -> Iterator[str]:
    runs, to_do = sum(one.runs for one in tasks), sum(one.to_do for one in tasks)
    most = "at most " if request.trials else ""
    yield f"{most}{count(runs, 'run')}, {most}{to_do} to do; computing time: {_time(tasks)}; disk: {_disk(tasks)}"
    yield (
        "Computing time: training steps of runs like these that are stored, from the same class of hardware, one run "
        "after another; evaluation, reading of data and the start of processes are not included. Runs at the same time "
        "(--jobs) divide it. Memory: the highest that such runs took. Disk: records, weights where they are kept, and "
        "packed caches of images where they are missing."
    )
    yield from (f"{one.task}: {one.problem}" for one in tasks if one.problem)
    yield "Nothing was run or written."
