"""``rulezoo compare``."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from rulezoo.cli.common import (
    announce,
    checking,
    count,
    evaluated_networks,
    going_on_later,
    log,
    name_failed,
    out_option,
    registry,
    tell_of_blocks,
    verified_rules,
)
from rulezoo.cli.evaluation_progress import name_failed_of
from rulezoo.cli.evaluation_progress import progress as evaluation_progress
from rulezoo.cli.executor import ExecutorOptions, executor_options, executor_setup
from rulezoo.cli.forecast import show_forecast
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo, is_terminal
from rulezoo.cli.progress import progress
from rulezoo.cli.request import check_size, kept_options, request_of, save, study_options, what_options
from rulezoo.comparison.inspection import load
from rulezoo.comparison.plan import check_compiler
from rulezoo.comparison.request import Request
from rulezoo.discovery.registry import Registry
from rulezoo.errors import UserError
from rulezoo.executors.machine import ExecutorSetup
from rulezoo.leaderboard import formats, overview
from rulezoo.leaderboard import tuned as report
from rulezoo.results.freshness import FAILED, mixed_data, stale
from rulezoo.results.records import Record
from rulezoo.results.store import Store
from rulezoo.tuning import comparing
from rulezoo.tuning.comparing import Comparison, Listeners
from rulezoo.tuning.records import Tuned


@click.command(
    cls=HelpfulCommand,
    examples=(
        ("Six rules on two small tasks with three seeds each", "rulezoo compare"),
        (
            "Two rules with five seeds and an option",
            "rulezoo compare --rules nmnc,backprop --tasks digits-cnn --seeds 5 -o nmnc.rank=64",
        ),
        ("Each rule as its author set it, and as tuned by 8 trials", "rulezoo compare --tune 8 --seeds 5"),
        (
            "Time, memory and disk that a comparison is expected to take",
            "rulezoo compare --rules all --tasks cifar10-cnn --dry-run",
        ),
    ),
)
@what_options()
@executor_options
@kept_options()
@out_option
@study_options
@click.option("--dry-run", is_flag=True,
              help="Show the number of runs, and the time, memory and disk they are expected to take; run nothing.")  # fmt: skip
@click.pass_context
def compare(ctx: click.Context, /, out: Path, execution: ExecutorOptions, **given: Any) -> None:  # noqa: ANN401  a request's fields
    """Train rules on tasks and compare them.

    Without options, the standard rules are compared on the embedded tasks. Stored runs are not repeated, so the same
    command resumes where it was stopped. Exits with 1 when a run failed or diverged, or a trial of a tuning failed.
    """
    config, save_config, dry_run, yes = (
        given.pop(name) for name in ("config", "save_config", "dry_run", "yes")
    )
    with going_on_later():
        asked = request_of(ctx, given, config)
        request, found, by = prepared(asked, execution)
        if dry_run:
            _refuse_to_write(save_config)
            show_forecast(request, found, Store(out), execution)
            return
        check_size(request, found, yes=yes)
        if save_config:
            save(save_config, ctx, asked, found)
        made = comparing.compare(request, found, Store(out), by.executor, listeners(found))
    _show(made, found, out)
    failed = name_failed(made.records)
    for hint in _hints(made.records, found, request):
        log(hint)
    failed |= name_failed_evaluations(Store(out), made, retried=bool(request.retry))
    if say_failed_trials(made.tuned) or failed:
        sys.exit(1)


def _refuse_to_write(path: Path | None) -> None:
    if path:
        raise UserError("--dry-run writes nothing, and --save-config writes a file; give one of them")


def prepared(request: Request, execution: ExecutorOptions) -> tuple[Request, Registry, ExecutorSetup]:
    """The request for the device and threads of the executor that was chosen, the registry, and the executor.

    Raises:
        UserError: if a plugin's code does not return, or an option does not go with the executor.
    """
    announce("loading rules and tasks…")
    load(request)
    found, by = registry(), executor_setup(execution, request.device)
    if request.compiled and execution.executor == "local":  # elsewhere, only those machines know
        check_compiler(by.device)
    return replace(request, device=by.device, threads=request.threads or by.threads), found, by


def listeners(found: Registry) -> Listeners:
    """What reports a comparison on stderr."""
    return Listeners(
        progress=partial(progress, sys.stderr),
        log=log,
        examining=checking,
        deep_blocks=partial(tell_of_blocks, found),
        evaluating=partial(evaluation_progress, sys.stderr),
    )


def name_failed_evaluations(store: Store, made: Comparison, *, retried: bool) -> bool:
    """One line on stderr for each evaluation that failed or could not be made; whether there were any."""
    for reason in made.not_evaluated.reasons:
        log(f"not evaluated: {reason}")
    failed = name_failed_of(store, made.records, made.evaluations, retried=retried)
    return failed or bool(made.not_evaluated.reasons)


def _hints(records: Sequence[Record], found: Registry, request: Request) -> Iterator[str]:
    """What the user may want to do next: runs that are stored are not run again, whatever their record."""
    if not request.retry and any(record.status in FAILED for record in records):
        yield "what failed is stored, too; the same command with --retry failed runs it again"
    if not request.retry and any(stale(record, found) for record in records):
        yield "some results are of older code; the same command with --retry stale runs them again"
    if mixed_data(records):
        yield (
            "results of one task come from different data, as the table says; if the task's data were changed, the same "
            "command with --retry all runs all of them again"
        )
    if request.compiled and (
        plain := sum(not record.answered.compiled for record in records if record.status == "ok")
    ):
        yield f"{plain} of {len(records)} runs were not compiled: torch.compile cannot, or they were stored before"


def say_failed_trials(tuned: Sequence[Tuned]) -> bool:
    """One line on stderr for each tuning in which trials failed; whether there were any."""
    sentences = [sentence for one in tuned if (sentence := report.failures(one))]
    for sentence in sentences:
        log(sentence)
    return bool(sentences)


def _show(made: Comparison, found: Registry, out: Path) -> None:
    if not made.records:
        raise UserError(f"no result could be read back from {out}")
    table = overview.build(
        made.records,
        specs=found.specs(),
        task_specs=found.task_specs(),
        tunings=made.tuned,
        stale=lambda record: stale(record, found),
        verifications=verified_rules(Store(out), found),
        evaluations=evaluated_networks(Store(out), found),
    )
    color = is_terminal() and not os.environ.get("NO_COLOR")
    width = shutil.get_terminal_size((100, 24)).columns
    echo(formats.render(table, "table", width=width, color=color), nl=False, styled=color)
    if made.tuned:
        echo()
    for one in made.tuned:
        echo(report.summary(one))
    again = shlex.join(["rulezoo", "leaderboard", "--out", str(out)])
    echo(f"\nResults: {out.resolve()}  ({count(len(made.records), 'run')}; `{again}` shows them again)")
