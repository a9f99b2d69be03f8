"""``rulezoo status``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.common import out_option, print_table, registry
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.errors import UserError
from rulezoo.options import as_text
from rulezoo.results.status import Overview, overview
from rulezoo.results.store import Store
from rulezoo.text import brief
from rulezoo.tuning.records import trials_of

if TYPE_CHECKING:
    from rulezoo.results.journal import Training
    from rulezoo.results.records import Record


@click.command(
    cls=HelpfulCommand,
    examples=(("From another shell, while a comparison runs", "rulezoo status"),),
)
@out_option
def status(out: Path) -> None:
    """Show the progress of a comparison, from any shell."""
    if not out.is_dir():
        raise UserError(f"no results in {out}: run `rulezoo compare`, or name their folder with --out")
    found = registry()
    trials = trials_of(Store(out))
    seen = overview(Store(out), found)
    if trials.root.is_dir():
        echo("tuning: ", nl=False)
        _show(overview(trials, found))
        echo()
    elif seen.empty:
        echo(f"No runs are stored or under way in {out}; `rulezoo compare` starts some.")
        return
    _show(seen)


def _show(seen: Overview) -> None:
    echo(_head(seen))
    counts = [
        ("finished", seen.finished),
        ("failed", len(seen.failed)),
        ("running", sum(len(one.asked) for one in seen.running)),
        ("waiting" if seen.alive else "not run", seen.waiting),
    ]
    print_table([(name, number, f"of {seen.planned} runs") for name, number in counts])
    _list("running", [_training(one) for one in seen.running])
    _list("failed", [_record(record, f"{record.status}: {record.reason}") for record in seen.failed])
    _list("stale", [_record(record, reason) for record, reason in seen.stale])
    if seen.failed:
        echo("\n`rulezoo logs KEY` shows details; `rulezoo compare … --retry failed` runs them again.")
    if seen.stale:
        echo("\n`rulezoo compare … --retry stale` runs stale results again.")


def _head(seen: Overview) -> str:
    if seen.began is None:
        return "no comparison is recorded here; of the stored runs:"
    when = seen.began[:19].replace("T", " ")
    state = "under way" if seen.alive else "interrupted" if seen.waiting or seen.running else "done"
    return f"comparison started {when} UTC, {state}"


def _list(head: str, rows: list[tuple[str, ...]]) -> None:
    if rows:
        echo(f"\n{head}")
        print_table(rows)


def _training(one: Training) -> tuple[str, ...]:
    first = one.asked[0]
    seeds = ",".join(str(asked.seed) for asked in one.asked)
    step = f"step {one.step} of {one.total}" if one.total else "starting"
    left = f"{timedelta(seconds=round(one.left))} left" if one.left is not None else ""
    return first.task, first.rule, f"seeds {seeds}", step, left


def _record(record: Record, words: str) -> tuple[str, ...]:
    asked = record.asked
    rule = " ".join(
        [
            asked.rule,
            *(
                f"{name}={as_text(asked.rule_options[name])}"
                for name in record.changed
                if name in asked.rule_options
            ),
        ]
    )
    return asked.task, rule, f"seed {asked.seed}", asked.key[:8], brief(words)
