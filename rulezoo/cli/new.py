"""``rulezoo new``."""

from __future__ import annotations

from pathlib import Path

import click

from rulezoo import scaffold
from rulezoo.cli.arguments import UserPath
from rulezoo.cli.output import echo
from rulezoo.discovery.kinds import KINDS


@click.command()
@click.argument("kind", type=click.Choice([kind.name for kind in KINDS]))
@click.argument("name")
@click.option(
    "--package", is_flag=True, help="Write a whole distribution, with tests and a workflow, not one file."
)
@click.option("--to", "folder", metavar="DIR", type=UserPath(file_okay=False, path_type=Path), default=Path(),
              help="Where to write.  [default: here]")  # fmt: skip
def new(kind: scaffold.Kind, name: str, package: bool, folder: Path) -> None:
    """Write a plugin of your own to start from.

    What is written is small, complete and runs; comments say where to change it. Nothing is overwritten.
    """
    names = scaffold.named(kind, name)
    made = scaffold.distribution(names, folder) if package else scaffold.single_file(names, folder)
    made.write()
    for path in made.files:
        echo(f"wrote {path}")
    echo("\nNext:")
    for command in made.commands:
        echo(f"  {command}")
