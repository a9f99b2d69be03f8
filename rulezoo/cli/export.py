"""``rulezoo export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import out_option, results_of
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo

if TYPE_CHECKING:
    from rulezoo.api.run import Run


def _where(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, text in pairs:
        if not (name and equals):
            raise click.BadParameter(
                f"{name + equals + text!r} must have the form COLUMN=VALUE, such as rule.rank=16"
            )
    return {name: text for name, _, text in pairs}


@click.command(
    cls=HelpfulCommand,
    examples=(("The network of seed 0", "rulezoo export nmnc digits-cnn 0 --to nmnc-network"),),
)
@click.argument("run", metavar="RUN|RULE TASK SEED", nargs=-1, required=True)
@click.option("--where", metavar="COLUMN=VALUE", multiple=True, callback=_where,
              help="Column and value that select one of several variants, such as rule.rank=16 or budget.epochs=5.")  # fmt: skip
@click.option("--to", metavar="DIR", required=True, type=UserPath(file_okay=False, path_type=Path),
              help="Folder to write to; new or empty.")  # fmt: skip
@out_option
def export(run: Sequence[str], where: dict[str, str], to: Path, out: Path) -> None:
    """Export a trained network for programs without rulezoo.

    RUN is the key of a run, as in the name of its record, or the beginning of one. The run's weights must have been kept
    (`rulezoo compare --keep-weights`). The folder holds the weights, a loader that needs torch and safetensors only, the
    record, and a README.
    """
    from rulezoo.api.export import export as write

    found = _found(run, where, out)
    write(found, to)
    asked = found.record.asked
    echo(f"{to}: {asked.rule} on {asked.task}, seed {asked.seed}; `python {to / 'load.py'}` checks it")


def _found(run: Sequence[str], where: dict[str, str], out: Path) -> Run:
    from rulezoo.api.calls import load

    if len(run) == 1 and (file := Path(run[0])).is_file():
        out = results_of(file)
    results = load(out)
    if len(run) == 3 and run[2].isdecimal():
        return results.run(run[0], run[1], int(run[2]), where)
    if len(run) == 1 and not where:
        return results.with_key(Path(run[0]).name.removesuffix(".json").rpartition("-")[2])
    raise click.UsageError("name one run: its key, or RULE TASK SEED, like nmnc digits-cnn 0")
