"""``rulezoo compare``."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import (
    checking,
    count,
    going_on_later,
    name_failed,
    names,
    out_option,
    print_table,
    registry,
    say,
    tell_of_blocks,
    verified_rules,
)
from rulezoo.cli.executor import Wanted, executor_options, workers
from rulezoo.cli.output import echo, is_terminal
from rulezoo.cli.progress import progress
from rulezoo.comparison.execution import execute
from rulezoo.comparison.inspection import Inspector, load
from rulezoo.comparison.jobs import CHECKPOINT
from rulezoo.comparison.plan import Cell, check_compiler, plan
from rulezoo.discovery.registry import Registry
from rulezoo.errors import UserError
from rulezoo.leaderboard import board, formats
from rulezoo.leaderboard import tuned as report
from rulezoo.results.freshness import FAILED, RETRY, mixed_data, stale, wanted_again
from rulezoo.results.records import Precision, Record
from rulezoo.results.store import Store
from rulezoo.tuning import study
from rulezoo.tuning.records import Tuned


def _options(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for value in values:
        left, equals, text = value.partition("=")
        name, dot, option = left.rpartition(".")
        if not (equals and dot and name and option):
            raise click.BadParameter(f"{value!r} must read NAME.OPTION=VALUE, like nmnc.rank=64")
        before = options.setdefault(name, {}).setdefault(option, text)
        if before != text:
            raise click.BadParameter(f"{left} is given twice, as {before!r} and as {text!r}; give it once")
    return options


def _budget(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    budget: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (equals and name):
            raise click.BadParameter(
                f"{value!r} must read NAME=VALUE, like optimizer=SGD or optimizer.momentum=0.9"
            )
        before = budget.setdefault(name, text)
        if before != text:
            raise click.BadParameter(f"{name} is given twice, as {before!r} and as {text!r}; give it once")
    return budget


def _retry(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[str]:
    words = names(ctx, param, values)
    for word in words:
        if word not in RETRY:
            raise click.BadParameter(f"{word!r} is none of {', '.join(RETRY)}")
    return words


@click.command()
@click.option("--rules", metavar="A,B", multiple=True, callback=names,
              help="Rules to compare, or 'all'.  [default: those of the standard comparison]")  # fmt: skip
@click.option("--tasks", metavar="A,B", multiple=True, callback=names,
              help="Tasks to compare them on, or 'all'.  [default: those of the standard comparison]")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True,
              help="Runs of each rule on each task, with seeds 0, 1, …")  # fmt: skip
@click.option("--tune", "trials", type=click.IntRange(min=2), metavar="N",
              help="Tune every rule on every task with N trials, and compare its default with the best of them.")  # fmt: skip
@click.option("-o", "options", metavar="NAME.OPTION=VALUE", multiple=True, callback=_options,
              help="An option of a rule or a task, like nmnc.rank=64; `rulezoo show NAME` lists them.")  # fmt: skip
@click.option("-b", "--budget", "budget", metavar="NAME=VALUE", multiple=True, callback=_budget,
              help="Part of the budget of every task, for all rules: lr, batch, optimizer=SGD, optimizer.momentum=0.9, "
              "schedule=MultiStepLR, schedule.milestones=80,120, clip_norm, …")  # fmt: skip
@click.option(
    "--epochs", type=click.IntRange(min=1), help="Passes through the training data.  [default: the task's]"
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
              help="Where to compute; auto is the GPU when there is one.")  # fmt: skip
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True,
              help="Of the arithmetic; bfloat16 is torch's autocast, and another run than float32.")  # fmt: skip
@click.option("--compile", "compiled", is_flag=True,
              help="Let torch.compile take the training step: minutes at first, then faster steps.")  # fmt: skip
@click.option("--together", type=click.IntRange(min=1), metavar="N",
              help="Train so many seeds of a rule on a task together, at most; 1 = one by one.  "
              "[default: all that the memory holds]")  # fmt: skip
@executor_options
@click.option("--probe", "probes", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Measure angles to backprop, alignment and dimensions at N points of training; not timed.")  # fmt: skip
@click.option("--checkpoint", type=click.FloatRange(min=0), default=CHECKPOINT, show_default=True, metavar="SECONDS",
              help="Keep the state of a training so often, to go on from when it is broken off; 0 = never.")  # fmt: skip
@click.option("--retry", metavar="WHICH", multiple=True, callback=_retry,
              help="Run again what is stored: failed, stale (its code has changed), all, or statuses such as "
              "timeout,killed. Old records stay until there are new ones.")  # fmt: skip
@click.option("--data", "data_root", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets.")  # fmt: skip
@click.option(
    "--download", is_flag=True, help="Download data sets that are not there, into the folder of data sets."
)
@out_option
def compare(
    rules: list[str],
    tasks: list[str],
    seeds: int,
    trials: int | None,
    options: dict[str, dict[str, str]],
    budget: dict[str, str],
    epochs: int | None,
    device: str,
    precision: Precision,
    compiled: bool,
    together: int | None,
    probes: int,
    checkpoint: float,
    retry: list[str],
    data_root: Path | None,
    download: bool,
    out: Path,
    wanted: Wanted,
    evaluate: bool = True,
) -> None:
    """Train rules on tasks and compare them.

    Without options: the standard rules on the embedded tasks. What is stored already is not run again, so the same
    command goes on where it was stopped. Exits with 1 when a run failed or diverged, or a trial of a tuning failed.
    """
    # `evaluate` is no option: `rulezoo tune` leaves the comparison out.
    with going_on_later():
        load(rules, tasks, options)
        found, store = registry(), Store(out)
        by = workers(wanted, device)
        if compiled and wanted.executor == "local":  # elsewhere, only those machines know
            check_compiler(by.device)
        cells = plan(
            found,
            _all(rules, found.rules),
            _all(tasks, found.tasks),
            range(seeds),
            by.device,
            options,
            epochs,
            precision,
            budget,
        )

        inspector = Inspector(
            data_root,
            download=download,
            report=checking,
            progress=say,
            note=partial(tell_of_blocks, found),
        )

        def go(cells: Sequence[Cell], store: Store, probes: int = 0) -> None:
            with progress(sys.stderr) as listener:
                execute(
                    cells,
                    store,
                    by.executor,
                    listener,
                    data=data_root,
                    download=download,
                    threads=by.threads,
                    probes=probes,
                    checkpoint=checkpoint,
                    again=wanted_again(retry, found),
                    compiled=compiled,
                    together=together,
                    inspector=inspector,
                )

        def begin(first: int, last: int) -> None:
            say(
                f"tuning: trials {first} to {last} of {trials} of each rule on each task, with {len(study.SEEDS)} seeds"
            )

        tuned = study.tune(cells, trials, found, store, go, begin) if trials else []
        if not evaluate:
            _show_trials(tuned)
            if _say_failed_trials(tuned) or any(one.winner.status != "ok" for one in tuned):
                sys.exit(1)
            return
        if trials:
            say("comparison: the defaults and the winners")
        won = study.winners(cells, tuned, found) if tuned else []
        cells = study.distinct([*cells, *won])
        go(cells, store, probes)
    records = [record for cell in cells for asked in cell.asked if (record := store.get(asked))]
    _show(records, found, cells, tuned, out)
    failed = name_failed(records)
    for hint in _hints(records, found, retried=bool(retry), compiled=compiled):
        say(hint)
    if _say_failed_trials(tuned) or failed:
        sys.exit(1)


def _hints(records: Sequence[Record], found: Registry, *, retried: bool, compiled: bool) -> Iterator[str]:
    """What may be wanted beside what was asked for: runs that are stored are not run again, whatever their record."""
    if not retried and any(record.status in FAILED for record in records):
        yield "what failed is stored, too; the same command with --retry failed runs it again"
    if not retried and any(stale(record, found) for record in records):
        yield "some results are of older code; the same command with --retry stale runs them again"
    if mixed_data(records):
        yield (
            "results of one task come from different data, as the table says; if the task's data were changed, the same "
            "command with --retry all runs all of them again"
        )
    if compiled and (
        plain := sum(not record.answered.compiled for record in records if record.status == "ok")
    ):
        yield f"{plain} of {len(records)} runs were not compiled: torch.compile cannot, or they were stored before"


def _say_failed_trials(tuned: Sequence[Tuned]) -> bool:
    """One line on stderr for each tuning in which trials failed; whether there were any."""
    sentences = [sentence for one in tuned if (sentence := report.failures(one))]
    for sentence in sentences:
        say(sentence)
    return bool(sentences)


def _show_trials(tuned: Sequence[Tuned]) -> None:
    for one in tuned:
        echo(report.summary(one))
        print_table(list(report.rows(one)), report.HEAD)
        echo()
    echo("* the highest score on validation data; the test data were not read")


def _all(names: list[str], known: Iterable[str]) -> list[str]:
    return list(known) if names == ["all"] else names


def _show(
    records: Sequence[Record], found: Registry, cells: Sequence[Cell], tuned: Sequence[Tuned], out: Path
) -> None:
    if not records:
        raise UserError(f"no result could be read back from {out}")
    tasks = list(dict.fromkeys(cell.task_name for cell in cells))
    table = board.build(
        records,
        tasks=tasks,
        specs=found.specs(),
        tunings=tuned,
        stale=lambda record: stale(record, found),
        verifications=verified_rules(Store(out), found),
    )
    color = is_terminal() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((100, 24)).columns
    echo(formats.render(table, "table", width=width, color=color), nl=False, styled=color)
    if tuned:
        echo()
    for one in tuned:
        echo(report.summary(one))
    again = shlex.join(["rulezoo", "leaderboard", "--out", str(out)])
    echo(f"\nResults: {out.resolve()}  ({count(len(records), 'run')}; `{again}` shows them again)")
