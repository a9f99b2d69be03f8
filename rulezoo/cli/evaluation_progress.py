"""How ``rulezoo evaluate`` reports progress: a bar on a terminal, a line for each result elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rulezoo.cli.common import count, log
from rulezoo.text import brief, clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from rulezoo.evaluations.records import Evaluated
    from rulezoo.evaluations.request import Requested
    from rulezoo.evaluations.running import Listener, Measuring
    from rulezoo.results.records import Record
    from rulezoo.results.store import Store


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
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as live:
        yield _Live(live)


def summary(one: Measuring, evaluated: Evaluated | None, reason: str) -> str:
    """One line for a finished measurement."""
    if evaluated is None:
        return f"{_name(one)}  not evaluated: {brief(reason)}"
    if evaluated.status != "ok":
        return f"{_name(one)}  {evaluated.status}: {brief(evaluated.reason or '')}"
    value = evaluated.values.get(evaluated.headline)
    shown = "–" if value is None else f"{value:.4g}"
    return f"{_name(one)}  {clean(evaluated.headline)} {shown}"


def _name(one: Measuring) -> str:
    asked = one.record.asked
    options = " ".join(f"{name}={clean(text)}" for name, text in one.asked.words.items())
    return (
        f"{asked.task}  {asked.rule}  seed {asked.seed}  {' '.join(filter(None, [one.asked.name, options]))}"
    )


def _greeting(total: int, stored: int) -> str:
    if stored == total:
        return (
            f"all {total} evaluations are stored already" if total > 1 else "the evaluation is stored already"
        )
    already = f", {stored} stored already" if stored else ""
    return f"{total - stored} of {total} evaluation{'s' * (total > 1)} to do{already}"


class _Plain:
    """One line for each event, no control characters."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    def planned(self, total: int, stored: int) -> None:
        self._say(_greeting(total, stored))

    def started(self, one: Measuring) -> None:
        pass

    def finished(self, one: Measuring, evaluated: Evaluated | None, reason: str) -> None:
        self._say(summary(one, evaluated, reason))


class _Live:
    """A bar that names the network that is evaluated; failures scroll past above it."""

    def __init__(self, live: Progress) -> None:
        self.live = live
        self.bar: TaskID

    def planned(self, total: int, stored: int) -> None:
        self.live.console.print(_greeting(total, stored), markup=False, highlight=False)
        self.bar = self.live.add_task("evaluations", total=total, completed=stored, visible=stored < total)

    def started(self, one: Measuring) -> None:
        self.live.update(self.bar, description=_name(one))

    def finished(self, one: Measuring, evaluated: Evaluated | None, reason: str) -> None:
        if evaluated is None or evaluated.status not in ("ok", "skipped"):
            self.live.console.print(summary(one, evaluated, reason), markup=False, highlight=False)
        self.live.advance(self.bar)


def name_failed_of(
    store: Store, records: Sequence[Record], asked: Sequence[Requested], *, retried: bool
) -> bool:
    """One line on stderr for each evaluation that failed, with the number of networks; whether there were any."""
    from rulezoo.evaluations.records import FAILED
    from rulezoo.evaluations.store import get

    failed = False
    for one in asked:
        found = [result for record in records if (result := get(store, one.question(record)))]
        reasons = [result.reason or result.status for result in found if result.status in FAILED]
        if reasons:
            failed = True
            example = "; the first: " if len(set(reasons)) > 1 else ": "
            log(
                brief(
                    f"evaluation {found[0].label} failed on {count(len(reasons), 'network')}{example}{reasons[0]}"
                )
            )
    if failed and not retried:
        log("what failed is stored, too; the same command with --retry failed evaluates it again")
    return failed
