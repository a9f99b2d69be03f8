"""``rulezoo tune``: the tuning of ``rulezoo compare --tune`` without the comparison."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rulezoo.cli.common import going_on_later, out_option, print_table
from rulezoo.cli.compare import listeners, prepared, say_failed_trials
from rulezoo.cli.executor import ExecutorOptions, executor_options
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.cli.request import check_size, kept_options, request_of, save, study_options, what_options
from rulezoo.leaderboard import tuned as report
from rulezoo.results.store import Store
from rulezoo.tuning import comparing
from rulezoo.tuning.records import Tuned

EVALUATION = ("seeds", "trials", "probes", "keep_weights", "keep_memory")  # options that are not about trials


@click.command(
    cls=HelpfulCommand,
    examples=(
        (
            "Sixteen trials of two rules on one task",
            "rulezoo tune --trials 16 --rules nmnc,feedback-alignment --tasks digits-cnn",
        ),
    ),
)
@click.option("--trials", type=click.IntRange(min=2), default=8, show_default=True, metavar="N",
              help="Trials of each rule on each task; the first is the author's default.")  # fmt: skip
@what_options(without=EVALUATION)
@executor_options
@kept_options(without=EVALUATION)
@out_option
@study_options
@click.pass_context
def tune(ctx: click.Context, /, out: Path, execution: ExecutorOptions, **given: Any) -> None:  # noqa: ANN401  a request's fields
    """Search the options of rules, with equally many trials for each.

    Every rule gets N trials on every task: the author's default first, then what optuna proposes from the options for
    which the rule declares a search, and its learning rate. The trial with the best score on validation data wins.
    The test data are not read. What is stored already is not run again, so the same command resumes where it was
    stopped, and a larger N continues a smaller one. `rulezoo compare --tune N` then compares the winners.
    """
    config, save_config, yes = (given.pop(name) for name in ("config", "save_config", "yes"))
    with going_on_later():
        asked = request_of(ctx, given, config)
        request, found, by = prepared(asked, execution)
        check_size(request, found, yes=yes)
        if save_config:
            save(save_config, ctx, asked, found)
        tuned = comparing.tune(request, found, Store(out), by.executor, listeners(found))
    _show(tuned)
    if say_failed_trials(tuned) or any(one.winner.status != "ok" for one in tuned):
        sys.exit(1)


def _show(tuned: Sequence[Tuned]) -> None:
    for one in tuned:
        echo(report.summary(one))
        print_table(list(report.rows(one)), report.HEAD)
        echo()
    echo("* the highest score on validation data; the test data were not read")
