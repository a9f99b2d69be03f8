"""``rulezoo leaderboard``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from rulezoo.board import Format, build, render
from rulezoo.cli.common import names, out_option, registry, say
from rulezoo.errors import UserError, unknown
from rulezoo.store import Store
from rulezoo.tuning import records as tunings

if TYPE_CHECKING:
    from rulezoo.records import Record


@click.command()
@out_option
@click.option(
    "--task", "--tasks", "tasks", metavar="A,B", multiple=True, callback=names, help="Only these tasks."
)
@click.option(
    "--rule", "--rules", "rules", metavar="A,B", multiple=True, callback=names, help="Only these rules."
)
@click.option("--format", "form", type=click.Choice(get_args(Format)), default="table", show_default=True)
def leaderboard(out: Path, tasks: list[str], rules: list[str], form: Format) -> None:
    """Show the table of stored results."""
    records = read(out)
    _check("task", tasks, {record.asked.task for record in records})
    _check("rule", rules, {record.asked.rule for record in records})
    plausibility = {name: found.spec.plausibility for name, found in registry().rules.items()}
    conclusions = tunings.read(Store(out))
    for damage in conclusions.damaged:
        say(f"left out: {damage.path} {damage.reason}")
    board = build(
        records,
        tasks=tasks or None,
        rules=rules or None,
        plausibility=plausibility,
        tunings=conclusions.tunings,
    )
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo(render(board, form, width=shutil.get_terminal_size((100, 24)).columns, color=color), nl=False)


def read(out: Path) -> Sequence[Record]:
    """The records in a folder of results; the damaged ones are named on stderr.

    Raises:
        UserError: if there is no such folder.
    """
    if not out.is_dir():
        raise UserError(f"no results in {out}: run `rulezoo compare`, or name their folder with --out")
    reading = Store(out).read()
    for damage in reading.damaged:
        say(f"left out: {damage.path} {damage.reason}")
    return reading.records


def _check(kind: str, asked: Sequence[str], stored: Collection[str]) -> None:
    for name in asked:
        if name not in stored:
            raise unknown(kind, name, sorted(stored), f"stored: {', '.join(sorted(stored)) or 'nothing'}")
