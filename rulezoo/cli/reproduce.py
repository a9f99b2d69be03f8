"""``rulezoo reproduce``."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import count, going_on_later, log, names, registry, results_of
from rulezoo.cli.compare import listeners
from rulezoo.cli.executor import ExecutorOptions, executor_options, executor_setup
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.leaderboard import read
from rulezoo.cli.output import echo
from rulezoo.cli.request import seeds_of
from rulezoo.comparison.reproduction import BROKEN_OFF, Reproduction, groups, outcome, remade, request_of
from rulezoo.errors import UserError, unknown
from rulezoo.results.groups import cell_key
from rulezoo.results.store import Store
from rulezoo.tuning.comparing import runner

if TYPE_CHECKING:
    from rulezoo.comparison.plan import Cell
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Record

_SHORTEST = 4  # digits of a key that may stand for it


@click.command(
    cls=HelpfulCommand,
    examples=(
        (
            "One rule of a published folder of results",
            "rulezoo reproduce leaderboard/tuned --rules nmnc --tasks digits-cnn",
        ),
    ),
)
@click.argument("stored", metavar="DIR|RUN")
@click.option("--rules", metavar="A,B", multiple=True, callback=names, help="Only these rules.")
@click.option("--tasks", metavar="A,B", multiple=True, callback=names, help="Only these tasks.")
@click.option("--seeds", callback=seeds_of, metavar="N|A-B|A,B",
              help="Only these seeds: 5 = seeds 0 to 4, 5-9 = seeds 5 to 9, 0,3,7 = these.")  # fmt: skip
@executor_options
@click.option("--data", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets.")  # fmt: skip
@click.option("--download", is_flag=True, help="Download missing data sets into --data.")
@click.option("--out", metavar="DIR", type=UserPath(file_okay=False, path_type=Path),
              help="Folder in which to keep the new runs; what it holds already is not run again.  [default: a temporary "
              "folder]")  # fmt: skip
def reproduce(
    stored: str,
    rules: list[str],
    tasks: list[str],
    seeds: tuple[int, ...] | None,
    data: Path | None,
    download: bool,
    out: Path | None,
    execution: ExecutorOptions,
) -> None:
    """Train stored runs again, and compare the results.

    DIR is a folder of results; RUN is the file of a run, or the beginning of its key in $RULEZOO_RESULTS or
    rulezoo-results. Everything is taken from the records: options, budget, seed, precision, device and number of
    threads. Seeds that were trained together are trained together again, also those that are not compared. Exits
    with 0 when every result is identical, and with 1 when one differs or a run cannot be trained again.
    """
    every, meant = _read(stored)
    records = _chosen(meant, rules, tasks, seeds)
    if out and Path(stored).is_dir() and out.resolve() == Path(stored).resolve():
        raise UserError(f"--out {out} holds the runs that are to be reproduced; name another folder")
    with going_on_later(), _folder(out) as folder:
        found = registry()
        cells, problems = _plan(records, every, found, data, download)
        _run([cell for made in cells.values() for cell in made], Store(folder), execution, found)
        made = [
            outcome(group, Store(folder), cells.get(key, ()), problems.get(key))
            for key, group in _by_cell(records).items()
        ]
    for one in made:
        for sentence in one.sentences():
            echo(sentence)
    _conclude(made)


def _conclude(made: Sequence[Reproduction]) -> None:
    """The last line, where there is more than one cell, and the exit code."""
    same = sum(one.identical for one in made)
    if len(made) > 1:
        echo(f"\n{same} of {count(len(made), 'cell')} identical")
    if same < len(made):
        sys.exit(1)


def _read(stored: str) -> tuple[Sequence[Record], Sequence[Record]]:
    """Every run of a folder, and those that are meant: all of them, or one."""
    path = Path(stored).expanduser()
    if path.is_dir():
        every = read(path)
        return every, every
    if path.is_file():
        return _of_file(path)
    folder = Path(os.environ.get("RULEZOO_RESULTS") or "rulezoo-results")
    if len(stored) < _SHORTEST or not folder.is_dir():
        raise UserError(
            f"{stored} is neither a folder of results nor the file of a run, and there are no results in {folder}"
        )
    every = read(folder)
    meant = [record for record in every if record.asked.key.startswith(stored)]
    if len(meant) != 1:
        raise UserError(
            f"{stored!r} is the beginning of {count(len(meant), 'key')} in {folder}, and no folder; give the key of one "
            "run, a folder of results, or the file of a run"
        )
    return every, meant


def _of_file(path: Path) -> tuple[Sequence[Record], Sequence[Record]]:
    """Every run of the folder of results that a file is in, and the one in the file."""
    root, place = results_of(path), path.resolve()
    every = read(root)
    found = [record for record in every if Store(root).path(record.asked) == place]
    if not found:
        raise UserError(
            f"{path} is not the file of a run in a folder of results (DIR/runs/TASK/RULE/seed….json)"
        )
    return every, found


def _chosen(
    records: Sequence[Record], rules: Sequence[str], tasks: Sequence[str], seeds: Sequence[int] | None
) -> list[Record]:
    """The runs that are to be trained again; those that were interrupted are named and left out."""
    for kind, asked, stored in (
        ("rule", rules, {record.asked.rule for record in records}),
        ("task", tasks, {record.asked.task for record in records}),
    ):
        for name in asked:
            if name not in stored:
                raise unknown(kind, name, sorted(stored), f"stored: {', '.join(sorted(stored)) or 'nothing'}")
    meant = [
        record
        for record in records
        if record.asked.rule in (rules or (record.asked.rule,))
        and record.asked.task in (tasks or (record.asked.task,))
        and record.asked.seed in (seeds or (record.asked.seed,))
    ]
    chosen = [record for record in meant if record.status not in BROKEN_OFF]
    for record in meant:
        if record.status in BROKEN_OFF:
            run = f"{record.asked.task} {record.asked.rule} seed {record.asked.seed}"
            log(f"left out: {run} ended with status {record.status}, without a result")
    if not chosen:
        raise UserError("nothing to reproduce: no stored run with a result is meant")
    return chosen


def _by_cell(records: Iterable[Record]) -> dict[str, list[Record]]:
    cells: dict[str, list[Record]] = {}
    for record in records:
        cells.setdefault(cell_key(record.asked), []).append(record)
    return cells


def _plan(
    records: Sequence[Record], every: Sequence[Record], found: Registry, data: Path | None, download: bool
) -> tuple[dict[str, list[Cell]], dict[str, str]]:
    """Key of a cell → what is to be trained, or why it cannot be.

    Args:
        records: the runs that are to be compared.
        every: those that are stored; some may have been trained together with them.
        found: the available rules and tasks.
        data: folder of data sets.
        download: whether missing data sets may be downloaded.
    """
    cells: dict[str, list[Cell]] = {}
    problems: dict[str, str] = {}
    wanted = {record.asked.key for record in records}
    for key, group in _by_cell(every).items():
        for part in groups(group):
            if not any(record.asked.key in wanted for record in part):
                continue
            try:
                request = request_of(part, found, data=data, download=download)
                cells.setdefault(key, []).append(remade(part, found, request))
            except UserError as error:
                problems[key] = str(error)
    return cells, problems


def _run(cells: Sequence[Cell], store: Store, execution: ExecutorOptions, found: Registry) -> None:
    """Train cells, device by device."""
    for device in dict.fromkeys(cell.request.device for cell in cells):
        here = [cell for cell in cells if cell.request.device == device]
        by = executor_setup(execution, device)
        runner(here[0].request, by.executor, listeners(found))(here, store)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out:
        yield out
    else:
        with tempfile.TemporaryDirectory(prefix="rulezoo-") as folder:
            yield Path(folder)
