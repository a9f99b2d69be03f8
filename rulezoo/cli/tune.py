"""``rulezoo tune``: the tuning of ``rulezoo compare --tune`` without the comparison."""

from __future__ import annotations

from typing import Any

import click

from rulezoo.cli.compare import compare

EVALUATION = ("seeds", "trials", "probes")  # options of compare that are not about trials


@click.command(params=[option for option in compare.params if option.name not in EVALUATION])
@click.option("--trials", type=click.IntRange(min=2), default=8, show_default=True, metavar="N",
              help="Trials of each rule on each task; the first is the author's default.")  # fmt: skip
@click.pass_context
def tune(ctx: click.Context, /, trials: int, **given: Any) -> None:  # noqa: ANN401  compare's options, whatever they are
    """Search the options of rules, with as many trials for each.

    Every rule gets N trials on every task: the author's default first, then what optuna proposes from the options for
    which the rule declares a search, and its learning rate. The trial with the best score on validation data wins.
    The test data are not read. What is stored already is not run again, so the same command goes on where it was
    stopped, and a larger N goes on from a smaller one. `rulezoo compare --tune N` then compares the winners.
    """
    ctx.invoke(compare, **given, trials=trials, evaluate=False)
