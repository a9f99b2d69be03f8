"""``rulezoo results``: merge, compare and export folders of results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import count, log, print_table
from rulezoo.cli.help import HelpfulCommand, HelpfulGroup
from rulezoo.cli.leaderboard import read
from rulezoo.cli.output import echo
from rulezoo.errors import UserError
from rulezoo.evaluations import merging as evaluations
from rulezoo.results import merging
from rulezoo.results.comparing import Pair, compare, provenance
from rulezoo.results.exporting import What, export
from rulezoo.results.store import Store
from rulezoo.tuning import records as tunings

if TYPE_CHECKING:
    from rulezoo.results.comparing import Row

_FOLDER = UserPath(file_okay=False, path_type=Path)
_MANY = 20  # runs that are listed one by one


@click.group(
    cls=HelpfulGroup,
    examples=(
        ("Results of two machines in one folder", "rulezoo results merge laptop cluster --to all"),
        ("Whether two folders hold identical results", "rulezoo results diff before after"),
    ),
)
def results() -> None:
    """Merge, compare and export folders of results."""


@results.command(
    cls=HelpfulCommand,
    examples=(("Results of two machines in one folder", "rulezoo results merge laptop cluster --to all"),),
)
@click.argument("folders", metavar="DIR…", nargs=-1, required=True, type=_FOLDER)
@click.option("--to", metavar="DIR", required=True, type=_FOLDER, help="Folder to merge into.")
@click.option("--prefer", type=click.Choice(get_args(merging.Prefer)),
              help="Which of several different results of a run to keep: the newest, or that of the folder named first.  "
              "[default: refuse to merge]")  # fmt: skip
def merge(folders: Sequence[Path], to: Path, prefer: merging.Prefer | None) -> None:
    """Merge the contents of several folders of results.

    Runs, kept weights, tunings, verifications and evaluations are merged. The folders themselves are only read. What --to holds already stays, and counts as the folder named first. Exits
    with 1 when a damaged file had to be left out.
    """
    _check_folders(folders, to)
    sources, target = [Store(folder) for folder in folders], Store(to)
    plan = merging.prepare(sources, target, [tunings.contents, evaluations.contents], prefer or "newest")
    for folder, damage in plan.damaged:
        log(f"left out: {folder / damage.path} {damage.reason}")
    if plan.conflicts and prefer is None:
        for one in plan.conflicts:
            log(f"{one.item.name}: different results in {', '.join(map(str, one.folders))}")
        raise UserError(_refusal(plan.conflicts))
    for sentence in merging.sentences(plan.conflicts):
        log(sentence)
    plan.carry_out()
    held = ", ".join(count(number, kind) for kind, number in plan.held.items())
    echo(f"{to}: {held or 'nothing'}; {len(plan.write)} written by this merge")
    if plan.damaged:
        sys.exit(1)


def _check_folders(folders: Sequence[Path], to: Path) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no results in {folder}: it is no folder")
        if folder.resolve() == to.resolve():
            raise UserError(f"{folder} is merged into itself; name it with --to only, what it holds stays")


def _refusal(conflicts: Sequence[merging.Conflict]) -> str:
    first = shlex.join(["rulezoo", "results", "diff", *map(str, conflicts[0].folders[:2])])
    return (
        f"nothing was merged: several folders hold different results for {count(len(conflicts), 'item')} of the same key. "
        f"`{first}` shows the differences; --prefer newest or --prefer first chooses"
    )


@results.command(
    cls=HelpfulCommand,
    examples=(("Whether two folders hold identical results", "rulezoo results diff before after"),),
)
@click.argument("first", metavar="A", type=_FOLDER)
@click.argument("second", metavar="B", type=_FOLDER)
def diff(first: Path, second: Path) -> None:
    """Compare the runs of two folders.

    Compared are status, scores, learning curves and logs, exactly; not times. Exits with 0 when the folders hold the
    same runs with identical results, else with 1.
    """
    found = compare(read(first), read(second))
    damaged = any(Store(folder).read(curves=False).damaged for folder in (first, second))
    different = found.different
    echo(
        f"{count(len(found.pairs), 'run')} in both: {len(found.pairs) - len(different)} identical, {len(different)} "
        f"different; {len(found.first_only)} only in A ({first}), {len(found.second_only)} only in B ({second})"
    )
    if different or found.first_only or found.second_only:
        echo()
        head = (
            "task",
            "rule",
            "only in A",
            "only in B",
            "identical",
            "different",
            "largest score difference",
            "from step",
        )
        print_table([_cells(row) for row in found.rows()], head)
        _show(different)
    if damaged or different or found.first_only or found.second_only:
        sys.exit(1)


def _cells(row: Row) -> Sequence[object]:
    return (
        row.task,
        row.rule,
        row.first_only,
        row.second_only,
        row.identical,
        row.different,
        "" if row.score is None else f"{row.score:.2g}",
        "" if row.step is None else row.step,
    )


def _show(different: Sequence[Pair]) -> None:
    """The runs that differ, with what may explain it."""
    if different:
        echo()
    for pair in different[:_MANY]:
        asked = pair.first.asked
        echo(f"{asked.task} {asked.rule} seed {asked.seed} ({asked.key[:8]}): {pair.difference}")
    if len(different) > _MANY:
        echo(f"… and {len(different) - _MANY} more")
    causes = dict.fromkeys(
        phrase for pair in different for phrase in provenance(pair.first.answered, pair.second.answered)
    )
    if causes:
        echo(f"\nWhat differs in their provenance (A, now B): {'; '.join(causes)}")


@results.command(
    name="export",
    cls=HelpfulCommand,
    examples=(
        (
            "Learning curves as a table",
            "rulezoo results export rulezoo-results --what curves --to curves.csv",
        ),
    ),
)
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--to", metavar="FILE|DIR", required=True, type=UserPath(path_type=Path),
              help="A file that ends in .csv or .parquet, or a new folder for TensorBoard.")  # fmt: skip
@click.option("--what", type=click.Choice(get_args(What)), default=None,
              help="One line for each run, each point of the learning curves, or each probed quantity.  [default: runs; "
              "for TensorBoard all of them]")  # fmt: skip
def export_command(folder: Path, to: Path, what: What | None) -> None:
    """Export runs as a table or for TensorBoard."""
    number, thing = export(read(folder), to, what)
    echo(f"{to}: {count(number, thing)}")
