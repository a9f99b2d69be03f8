"""The command line. Each command is a module of its own, imported when it is called.

So that ``rulezoo --help`` needs none of them, the table below repeats the first line of each command's help.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from rulezoo import __version__
from rulezoo.cli.arguments import UserPath
from rulezoo.cli.lazy import GIVEN, Command, LazyGroup
from rulezoo.cli.output import echo, prepare
from rulezoo.discovery.plugins import FILES

COMMANDS = {
    "compare": Command("rulezoo.cli.compare:compare", "Train rules on tasks and compare them."),
    "tune": Command(
        "rulezoo.cli.tune:tune", "Search the options of rules, with equally many trials for each."
    ),
    "evaluate": Command(
        "rulezoo.cli.evaluate:evaluate", "Evaluate trained networks whose weights were kept."
    ),
    "reproduce": Command(
        "rulezoo.cli.reproduce:reproduce", "Train stored runs again, and compare the results."
    ),
    "status": Command("rulezoo.cli.status:status", "Show the progress of a comparison, from any shell."),
    "logs": Command("rulezoo.cli.logs:logs", "Show the learning curve, error and printed output of a run."),
    "leaderboard": Command(
        "rulezoo.cli.leaderboard:leaderboard", "Show the table of stored results, or write a report."
    ),
    "results": Command("rulezoo.cli.results:results", "Merge, compare and export folders of results."),
    "export": Command("rulezoo.cli.export:export", "Export a trained network for programs without rulezoo."),
    "claims": Command("rulezoo.cli.claims:claims", "Test claims: studies with a verdict rule."),
    "theory": Command("rulezoo.cli.theory:theory", "Predict the number of perturbations for an angle."),
    "list": Command("rulezoo.cli.listing:listing", "List rules, tasks, evaluations and claims."),
    "show": Command("rulezoo.cli.show:show", "Show a rule, task, evaluation or claim, and its options."),
    "new": Command("rulezoo.cli.new:new", "Write a plugin to start from."),
    "verify": Command("rulezoo.cli.verify:verify", "Check that a plugin is what it declares to be."),
    "plugins": Command("rulezoo.cli.plugins:plugins", "List the plugins and their problems."),
}
SECTIONS = {
    "Comparisons": ("compare", "tune", "evaluate", "reproduce", "status", "logs"),
    "Results": ("leaderboard", "results", "export"),
    "Claims and theory": ("claims", "theory"),
    "Plugins": ("list", "show", "new", "verify", "plugins"),
}  #: heading of the help → commands
EXAMPLES = (
    ("Six rules on two small tasks with three seeds each, a minute or two", "rulezoo compare"),
    ("The table again", "rulezoo leaderboard"),
    ("A rule, its paper and its options", "rulezoo show nmnc"),
)


def _hand_on(ctx: click.Context, param: click.Parameter, files: tuple[Path, ...]) -> None:
    """Put plugin files into the environment: the processes that train read it, too."""
    for file in map(str, files):
        if os.pathsep in file:
            raise click.BadParameter(f"{file!r} must not hold {os.pathsep!r}; move or rename it")
    ctx.meta[GIVEN] = [*ctx.meta.get(GIVEN, ()), *map(str, files)]
    if files:
        os.environ[FILES] = os.pathsep.join(filter(None, [os.environ.get(FILES), *map(str, files)]))


PLUGIN = click.Option(
    ["--plugin"],
    metavar="FILE",
    multiple=True,
    type=UserPath(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    callback=_hand_on,
    expose_value=False,
    help=f"Python file to load plugins from; may be repeated.  [also: ${FILES}]",
)


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    sections=SECTIONS,
    examples=EXAMPLES,
    everywhere=[PLUGIN],
    params=[PLUGIN],
    invoke_without_command=True,
)
@click.option("--debug", is_flag=True, envvar="RULEZOO_DEBUG", help="Show the traceback of an error.")
@click.version_option(__version__, message="rulezoo %(version)s")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """A zoo of biologically plausible learning rules for PyTorch, compared fairly."""
    if ctx.invoked_subcommand is None:
        echo(ctx.get_help())


def main() -> None:
    """Run the command line; this is the console script ``rulezoo``."""
    prepare()
    cli(prog_name="rulezoo")
