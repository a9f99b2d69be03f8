"""Progress of a comparison: live on a terminal, a line for each finished job elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

from rulezoo.leaderboard.grid import cost
from rulezoo.text import brief, clean, percent, times

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from rulezoo.comparison.executor import Listener
    from rulezoo.comparison.jobs import Job
    from rulezoo.results.records import Record

_HEARTBEAT = 60.0  # seconds without a line after which a plain log reports the progress
_FIRST = 30.0  # seconds into a job after which its progress is reported for the first time


@contextmanager
def progress(stream: TextIO) -> Iterator[Listener]:
    """A listener for as long as the block lasts, writing to ``stream``."""
    if not stream.isatty():
        yield _Plain(stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as live:
        yield _Live(live)


def summary(job: Job, records: Sequence[Record]) -> str:
    """One line for a finished job."""
    head = f"{_name(job)}  seeds {_seeds(job.seeds)}"
    part = "validation" if job.trial else "test"
    scores = [s for r in records if r.status == "ok" and (s := r.scores.get(part)) is not None]
    parts = [f"{part} {clean(records[0].metric)} {percent(sum(scores) / len(scores))}"] if scores else []
    costs = [ratio for r in records if (ratio := cost(r)) is not None]
    if costs and scores:
        parts.append(f"cost {times(sorted(costs)[len(costs) // 2])}")
    for reason, n in Counter(
        f"{r.status}: {brief(r.reason or '')}" for r in records if r.status != "ok"
    ).items():
        parts.append(f"{reason} ({n} of {len(records)})" if n < len(records) else reason)
    return "  ".join([head, *parts])


def _name(job: Job) -> str:
    return f"{_called(job.task, job.task_options)}  {_called(job.rule, job.rule_options)}"


def _called(name: str, options: Mapping[str, str]) -> str:
    return clean(" ".join([name, *(f"{option}={value}" for option, value in options.items())]))


def _seeds(numbers: Sequence[int]) -> str:
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))


def _greeting(runs: int, stored: int) -> str:
    if stored == runs:
        return f"all {runs} runs are stored already" if runs > 1 else "the run is stored already"
    return f"{runs - stored} of {runs} run{'s' * (runs > 1)} to do" + (
        f", {stored} stored already" if stored else ""
    )


def _left(seconds: float, done: int, missing: int) -> str:
    """The time that the missing steps will take if they are as fast as those done."""
    if done <= 0:
        return ""
    return f", {timedelta(seconds=round(seconds * missing / done))} left"


class _Plain:
    """One line for each event, without control characters; the first job is named when it starts."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.written = time.monotonic()
        self.began: dict[Job, tuple[float, int]] = {}  # when a training was first heard of, and its step then
        self.named: set[Job] = set()
        self.silent = True  # until the first job is named

    def _write(self, line: str) -> None:
        print(line, file=self.stream, flush=True)
        self.written = time.monotonic()

    def planned(self, runs: int, stored: int) -> None:
        self._write(_greeting(runs, stored))

    def started(self, job: Job) -> None:
        if self.silent:
            self._write(f"{_name(job)}  seeds {_seeds(job.seeds)}  starting")
        self.silent = False

    def progressed(self, job: Job, done: int, total: int) -> None:
        now = time.monotonic()
        if not total:  # it may have to wait before its first step
            return
        began, first = self.began.setdefault(job, (now, done))
        if now - self.written > _HEARTBEAT or (job not in self.named and now - began > _FIRST):
            self.named.add(job)
            self._write(
                f"{_name(job)}  seeds {_seeds(job.seeds)}  step {done:,} of {total:,}{_left(now - began, done - first, total - done)}"
            )

    def finished(self, job: Job, records: Sequence[Record]) -> None:
        self.began.pop(job, None)
        self.named.discard(job)
        self._write(summary(job, records))


class _Live:
    """A bar for all runs and one for each training under way; finished ones scroll past above them."""

    def __init__(self, live: Progress) -> None:
        self.live = live
        self.all: TaskID
        self.bars: dict[Job, TaskID] = {}
        self.stored = 0
        self.shares: dict[Job, float] = {}  # of its runs that each training under way has done

    def planned(self, runs: int, stored: int) -> None:
        self.live.console.print(_greeting(runs, stored), markup=False, highlight=False)
        self.stored = stored
        self.all = self.live.add_task(
            "all runs", total=runs, completed=stored, unit="runs", visible=stored < runs
        )

    def started(self, job: Job) -> None:
        self.bars[job] = self.live.add_task(
            f"{_name(job)}  seeds {_seeds(job.seeds)}", total=None, unit="steps"
        )

    def progressed(self, job: Job, done: int, total: int) -> None:
        self.live.update(self.bars[job], completed=done, total=total)
        self.shares[job] = len(job.seeds) * done / total if total else 0.0
        self._count()

    def finished(self, job: Job, records: Sequence[Record]) -> None:
        self.live.console.print(summary(job, records), markup=False, highlight=False)
        self.live.remove_task(self.bars.pop(job))
        self.shares.pop(job, None)
        self.stored += len(records)
        self._count()

    def _count(self) -> None:
        """Runs that are half done count as half, so that the time that is left is known before the first one ends."""
        self.live.update(self.all, completed=self.stored + sum(self.shares.values()))
