"""``rulezoo verify``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.output import echo


def _options(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    options = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} must read OPTION=VALUE, like rank=64")
        options[name] = text
    return options


@click.command()
@click.argument("target", metavar="NAME|FILE")
@click.option("-o", "options", metavar="OPTION=VALUE", multiple=True, callback=_options,
              help="An option of the rule or task, like rank=64; may be repeated.")  # fmt: skip
@click.option("--data", "root", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets, for a task.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0),
              help="Seed of the sizes, names and data of the networks that are drawn to check a rule on.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="Text to read, or JSON.")  # fmt: skip
@click.pass_context
def verify(
    ctx: click.Context, target: str, options: dict[str, str], root: Path | None, seed: int, form: str
) -> None:
    """Check that a rule or task is what it says it is.

    Runs the conformance suite (rulezoo.testing) on a rule or task by name, or on all of a Python file: is it pure and
    reproducible, does it learn, is it backprop in disguise, does it do what it declares? Exit code 1 if a check fails.
    """
    from rulezoo.testing import verify as suite

    reports = [suite.verify(subject, options, root=root, seed=seed) for subject in suite.subjects(target)]
    if form == "json":
        echo(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        echo("\n\n".join("\n".join(suite.lines(report)) for report in reports))
    ctx.exit(0 if all(report.ok for report in reports) else 1)
