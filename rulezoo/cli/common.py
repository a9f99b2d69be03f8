"""What the commands share: the registry with its warning, tables, and the folder of results."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.lazy import GIVEN
from rulezoo.cli.output import echo, is_terminal
from rulezoo.discovery.registry import PluginInfo, Registry, discover
from rulezoo.errors import UserError
from rulezoo.text import brief, clean

if TYPE_CHECKING:
    from rulezoo.leaderboard.evaluated import Evaluations
    from rulezoo.leaderboard.verified import Verifications
    from rulezoo.results.records import Record
    from rulezoo.results.store import Store

out_option = click.option(
    "--out",
    metavar="DIR",
    type=UserPath(file_okay=False, path_type=Path),
    default=Path("rulezoo-results"),
    show_default=True,
    envvar="RULEZOO_RESULTS",
    show_envvar=True,
    help="Folder of results.",
)


def names(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[str]:
    """Callback of an option that may be repeated and hold several names, ``A,B``: each once, in order."""
    found = list(dict.fromkeys(name.strip() for value in values for name in value.split(",") if name.strip()))
    if values and not found:  # as an unset variable of the shell comes to
        raise click.BadParameter(f"{values[0]!r} names nothing; leave it out, or name some: A,B")
    return found


def registry() -> Registry:
    """Every rule and task; one line on stderr when a plugin is not in order."""
    found = discover()
    if sentence := _not_in_order([plugin for plugin in found.plugins if not plugin.ok]):
        files = click.get_current_context().meta.get(GIVEN, ())
        options = [word for file in files for word in ("--plugin", file)]
        log(f"{sentence}: see `{shlex.join(['rulezoo', 'plugins', *options])}`")
    return found


def tell_of_blocks(zoo: Registry, task: str, rules: Sequence[str], depth: int) -> None:
    """Say before training which rules will send errors through several layers although they declare not to."""
    declared = {name: zoo.rules[name].spec.plausibility for name in rules if name in zoo.rules}
    concerned = [name for name, one in declared.items() if one is not None and not one.backward_pass]
    if concerned:
        log(
            f"note: on {task} up to {depth} layers lie in series between two sites, and errors of "
            f"{', '.join(concerned)} will travel back through their forward weights: the leaderboard will say "
            f"'within blocks of {depth}'; rulezoo.add_sites(model) puts sites between all layers"
        )


def _not_in_order(plugins: Sequence[PluginInfo]) -> str:
    failed = sum(bool(plugin.traceback) for plugin in plugins)
    clashing = len(plugins) - failed
    parts = [f"{count(failed, 'plugin')} failed to load"] if failed else []
    parts += [f"{count(clashing, 'plugin')} with a clash of names"] if clashing else []
    return ", ".join(parts)


def count(n: int, thing: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n} {thing}{'s' * (n != 1)}"


def log(sentence: str) -> None:
    """One line on stderr: a warning or a note, apart from the output."""
    echo(f"rulezoo: {clean(sentence)}", err=True)


def announce(sentence: str) -> None:
    """Say what takes seconds before it begins, at a terminal only: in a file, a mistake stays one line."""
    if sys.stderr.isatty():
        log(sentence)


def checking() -> None:
    """One line before tasks are checked."""
    announce("checking tasks…")


def verified_rules(store: Store, zoo: Registry) -> Verifications:
    """The verifications of a store, for the rules as they are installed; what cannot be read is named on stderr."""
    from rulezoo.leaderboard.verified import stored

    found, damaged = stored(store, zoo)
    for damage in damaged:
        log(f"left out: {damage.path} {damage.reason}")
    return found


def evaluated_networks(store: Store, zoo: Registry) -> Evaluations:
    """The evaluations of a store; what cannot be read is named on stderr."""
    from rulezoo.leaderboard.evaluated import evaluations_of

    found, damaged = evaluations_of(store, zoo)
    for damage in damaged:
        log(f"left out: {damage.path} {damage.reason}")
    return found


def name_failed(records: Iterable[Record]) -> bool:
    """One line on stderr for each run that did not end well; whether there were any."""
    failed = [record for record in records if record.status not in ("ok", "skipped")]
    for record in failed:
        asked = record.asked
        log(brief(f"{asked.task} {asked.rule} seed {asked.seed} {record.status}: {record.reason}"))
    return bool(failed)


@contextmanager
def going_on_later() -> Iterator[None]:
    """A block that Ctrl-C or SIGTERM ends with a sentence and the exit status of an interrupt."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        log("interrupted; finished runs are stored, and the same command resumes the rest")
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def print_table(rows: Sequence[Sequence[object]], head: Sequence[str] | None = None) -> None:
    """Print rows of cells, safe whatever the cells hold: with rich on a terminal, else as aligned text.

    Args:
        rows: cells; all rows have the same length.
        head: the head of each column, if there is one.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if is_terminal():
        _print_rich(cells, head)
    else:
        _print_aligned(cells if head is None else [list(head), *cells])


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        echo("  ".join(map(str.ljust, row, widths)).rstrip())


def _print_rich(rows: Sequence[Sequence[str]], head: Sequence[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=head is not None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in head or rows[0]:
        table.add_column(column if head else "", overflow="fold", header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))  # a Text is not read as markup, where a str would be
    console = Console()
    with console.capture() as written:
        console.print(table)
    echo(written.get(), nl=False, styled=True)


def results_of(file: Path) -> Path:
    """The folder of results that the file of a run is in.

    Raises:
        UserError: if the file is in none.
    """
    above = file.resolve().parents
    if len(above) > 3 and above[2].name == "runs":
        return above[3]
    raise UserError(f"{file} is not the file of a run in a folder of results (DIR/runs/TASK/RULE/seed….json)")
