"""``rulezoo verify``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import say
from rulezoo.cli.output import echo

if TYPE_CHECKING:
    from rulezoo.testing.verify import Report


def _options(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    options = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} must read OPTION=VALUE, like rank=64")
        options[name] = text
    return options


@click.command()
@click.argument("targets", metavar="NAME|FILE...", nargs=-1, required=True)
@click.option("-o", "options", metavar="OPTION=VALUE", multiple=True, callback=_options,
              help="An option of the rule or task, like rank=64; may be repeated.")  # fmt: skip
@click.option("--data", "root", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets, for a task.")  # fmt: skip
@click.option("--out", metavar="DIR", type=UserPath(file_okay=False, path_type=Path),
              help="Folder of results in which to store the outcome for rules; the leaderboard shows it.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0),
              help="Seed of the sizes, names and data of the networks that are drawn to check a rule on.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="Text to read, or JSON.")  # fmt: skip
@click.pass_context
def verify(
    ctx: click.Context,
    targets: Sequence[str],
    options: dict[str, str],
    root: Path | None,
    out: Path | None,
    seed: int,
    form: str,
) -> None:
    """Check that a rule or task is what it says it is.

    Runs the conformance suite (rulezoo.testing) on rules and tasks by name, on every rule ("all"), or on all of a Python
    file: is it pure and reproducible, does it learn, is it backprop in disguise, does it do what it declares? For each
    mark of plausibility the report says whether it was verified. Exit code 1 if a check fails.
    """
    from rulezoo.testing import verify as suite

    subjects = list(dict.fromkeys(one for target in targets for one in suite.subjects(target)))
    reports = []
    for place, subject in enumerate(subjects):
        report = suite.verify(subject, options, root=root, seed=seed)
        reports.append(report)
        if form == "text":
            echo("\n" * bool(place) + "\n".join(suite.lines(report)))
        if out:
            _store(report, out)
    if form == "json":
        echo(json.dumps([report.as_dict() for report in reports], indent=2))
    ctx.exit(0 if all(report.ok for report in reports) else 1)


def _store(report: Report, out: Path) -> None:
    from rulezoo.results import verifications
    from rulezoo.results.store import Store
    from rulezoo.testing.verification import verification

    if report.subject.kind != "rule":
        say(f"the outcome for task {report.subject.name} is not stored: the leaderboard shows those of rules")
        return
    say(f"stored: {verifications.put(Store(out), verification(report))}")
