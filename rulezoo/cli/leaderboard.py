"""``rulezoo leaderboard``."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.claims import known, name_problems
from rulezoo.cli.common import count, evaluated_networks, log, names, out_option, registry, verified_rules
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo, is_terminal
from rulezoo.errors import UserError, unknown
from rulezoo.evaluations import store as evaluations
from rulezoo.leaderboard.formats import Format, render
from rulezoo.leaderboard.overview import build
from rulezoo.results import verifications
from rulezoo.results.freshness import stale
from rulezoo.results.store import Store
from rulezoo.tuning import records as tunings

if TYPE_CHECKING:
    from rulezoo.report.build import Files
    from rulezoo.results.records import Record


@click.command(
    cls=HelpfulCommand,
    examples=(
        ("The table in the terminal", "rulezoo leaderboard"),
        ("As Markdown, of some rules", "rulezoo leaderboard --rules nmnc,backprop --format md"),
        ("One line for each run, for a spreadsheet", "rulezoo leaderboard --format csv --long"),
        ("The report as web pages in a browser", "rulezoo leaderboard --serve"),
    ),
)
@out_option
@click.option(
    "--task", "--tasks", "tasks", metavar="A,B", multiple=True, callback=names, help="Only these tasks."
)
@click.option(
    "--rule", "--rules", "rules", metavar="A,B", multiple=True, callback=names, help="Only these rules."
)
@click.option("--format", "form", type=click.Choice(get_args(Format)), default="table", show_default=True,
              help="Format of the output; table = for the terminal.")  # fmt: skip
@click.option("--long", is_flag=True, help="With --format csv: one line for each run.")
@click.option("--html", metavar="DIR", type=UserPath(file_okay=False, path_type=Path),
              help="Folder to write the report to: web pages that open from disk, without a network.")  # fmt: skip
@click.option("--claims", metavar="DIR", type=UserPath(exists=True, file_okay=False, path_type=Path),
              help="Folder of the results of claims, to include their pages in the report.")  # fmt: skip
@click.option(
    "--serve", is_flag=True, help="Serve the report at a local address, reachable from this machine only."
)
@click.option("--publish", metavar="DIR", type=UserPath(file_okay=False, path_type=Path),
              help="New folder to copy the records to, without logs, checkpoints and notes: it names no machine, user or "
              "path.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", default=8765, show_default=True,
              help="Port of --serve; 0 = any free port.")  # fmt: skip
def leaderboard(
    out: Path,
    tasks: list[str],
    rules: list[str],
    form: Format,
    html: Path | None,
    claims: Path | None,
    serve: bool,
    port: int,
    publish: Path | None,
    long: bool,
) -> None:
    """Show the table of stored results, or write a report."""
    if long and form != "csv":
        raise UserError(f"--long goes with --format csv, got --format {form}")
    if publish:
        _copy(out, publish)
        return
    records = read(out, curves=bool(html or serve))
    check_stored("task", tasks, {record.asked.task for record in records})
    check_stored("rule", rules, {record.asked.rule for record in records})
    conclusions = tunings.read(Store(out))
    for damage in conclusions.damaged:
        log(f"left out: {damage.path} {damage.reason}")
    zoo = registry()
    verified = verified_rules(Store(out), zoo)
    shown: dict[str, Any] = {
        "tasks": tasks or None,
        "rules": rules or None,
        "verifications": verified,
        "evaluations": evaluated_networks(Store(out), zoo),
    }
    if html or serve:
        from rulezoo.report.build import report

        findings = known(zoo, claims) if claims else ()
        files = report(records, zoo, **shown, tunings=conclusions.tunings, claims=findings)
        name_problems(findings, drawn=True)
        _publish(files, html, port if serve else None)
        return
    overview = build(
        records,
        **shown,
        specs=zoo.specs(),
        task_specs=zoo.task_specs(),
        tunings=conclusions.tunings,
        stale=lambda record: stale(record, zoo),
    )
    color = is_terminal() and not os.environ.get("NO_COLOR")
    echo(
        render(overview, form, long=long, width=shutil.get_terminal_size((100, 24)).columns, color=color),
        nl=False,
        styled=color,
    )


def _copy(out: Path, to: Path) -> None:
    """Copy the records of a store into a folder that holds nothing yet."""
    if to.exists() and any(to.iterdir()):
        raise UserError(f"{to} must be a new or an empty folder; name another one with --publish")
    read(out, curves=False)  # names what is left out
    number = tunings.publish(Store(out), Store(to))
    for one in verifications.read(Store(out)).found:
        verifications.put(Store(to), one)
    for evaluated in evaluations.read(Store(out)).found:
        evaluations.put(Store(to), evaluated, evaluations.arrays_of(Store(out), evaluated))
    echo(f"{to}: {count(number, 'record')}")


def _publish(files: Files, folder: Path | None, port: int | None) -> None:
    """Write the report into a folder, or a temporary one, and serve it if there is a port."""
    from rulezoo.report.build import write
    from rulezoo.report.serve import serve

    with (
        _ended_by_sigterm(),
        tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as where,
    ):
        write(files, Path(where))
        if port is None:
            echo(Path(where) / "index.html")
        else:
            serve(Path(where), port, lambda address: echo(f"{address}  (Ctrl-C ends it)"))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A block that SIGTERM ends like an exception, so that its folders are deleted."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read(out: Path, *, curves: bool = True) -> Sequence[Record]:
    """The records in a folder of results; the damaged ones are named on stderr. ``curves`` as in `Store.read`.

    Raises:
        UserError: if there is no such folder.
    """
    if not out.is_dir():
        raise UserError(f"no results in {out}: run `rulezoo compare`, or name their folder with --out")
    if out.resolve() == tunings.trials_of(Store(out.parent)).root.resolve() and (out / "studies").is_dir():
        raise UserError(
            f"{out} holds the trials of a tuning, which have no test score; `rulezoo leaderboard --out {out.parent}` "
            "shows what came of it"
        )
    reading = Store(out).read(curves=curves)
    for damage in reading.damaged:
        log(f"left out: {damage.path} {damage.reason}")
    return reading.records


def check_stored(kind: str, asked: Sequence[str], stored: Collection[str]) -> None:
    """Refuse names without stored results.

    Raises:
        UnknownName: if there is one; the message gives the near names.
    """
    for name in asked:
        if name not in stored:
            raise unknown(kind, name, sorted(stored), f"stored: {', '.join(sorted(stored)) or 'nothing'}")
