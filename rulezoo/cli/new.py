"""``rulezoo new``."""

from __future__ import annotations

from pathlib import Path

import click

from rulezoo import scaffold
from rulezoo.cli.arguments import UserPath
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.discovery.kinds import KINDS


@click.command(
    cls=HelpfulCommand,
    examples=(
        ("A rule in one file", "rulezoo new rule my-rule"),
        ("A task as a distribution with tests", "rulezoo new task my-task --package"),
    ),
)
@click.argument("kind", type=click.Choice([kind.name for kind in KINDS]))
@click.argument("name")
@click.option(
    "--package",
    is_flag=True,
    help="Write an installable distribution with tests and a workflow, not one file.",
)
@click.option("--to", "folder", metavar="DIR", type=UserPath(file_okay=False, path_type=Path), default=Path(),
              help="Folder to write to.  [default: the current folder]")  # fmt: skip
def new(kind: scaffold.Kind, name: str, package: bool, folder: Path) -> None:
    """Write a plugin to start from.

    The plugin is small and complete, and it runs; comments say what to change. No file is overwritten.
    """
    names = scaffold.named(kind, name)
    made = scaffold.distribution(names, folder) if package else scaffold.single_file(names, folder)
    made.write()
    for path in made.files:
        echo(f"wrote {path}")
    echo("\nNext:")
    for command in made.commands:
        echo(f"  {command}")
