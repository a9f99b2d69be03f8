"""``rulezoo logs``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.common import out_option, print_table
from rulezoo.errors import UserError
from rulezoo.results import journal
from rulezoo.results import logs as printed
from rulezoo.results.store import Store
from rulezoo.text import clean, clean_lines

if TYPE_CHECKING:
    from rulezoo.results.records import Asked, Record

_MANY = 20  # runs that are listed when several are meant
_SHORTEST = 4  # digits of a key that may stand for it


@click.command()
@click.argument("run", nargs=-1, required=True)
@out_option
def logs(run: Sequence[str], out: Path) -> None:
    """Show how a run went: its curve, its error, what it printed.

    RUN is the beginning of its key (`rulezoo status` shows it), or words that single it out: rule, task, seed.
    """
    store = Store(out)
    records = {record.asked.key: record for record in store.read().records}
    known = {key: record.asked for key, record in records.items()}
    known |= {asked.key: asked for one in journal.trainings(store) for asked in one.asked}
    asked = _the_one(run, known.values(), out)
    print_table([("run", f"{asked.task} {asked.rule} seed {asked.seed}"), ("key", asked.key)])
    if record := records.get(asked.key):
        _show(record)
    else:
        click.echo("It is under way, or was until its process ended.")
    for path in printed.of(store, asked):
        click.echo(f"\nprinted ({path.name}, all seeds of the group)")
        click.echo(clean_lines(path.read_text(encoding="utf-8", errors="replace").rstrip("\n")))


def _the_one(words: Sequence[str], known: Iterable[Asked], out: Path) -> Asked:
    meant = [asked for asked in known if all(_is(word, asked) for word in words if word != "seed")]
    if not meant:
        raise UserError(f"no run in {out} is called {' '.join(words)!r}; `rulezoo status` lists what failed")
    if len(meant) > 1:
        lines = [f"{one.key[:8]} ({one.task} {one.rule} seed {one.seed})" for one in meant[:_MANY]]
        more = f", and {len(meant) - _MANY} more" if len(meant) > _MANY else ""
        raise UserError(f"{' '.join(words)!r} is {len(meant)} runs: {', '.join(lines)}{more}; name one")
    return meant[0]


def _is(word: str, asked: Asked) -> bool:
    return word in (asked.rule, asked.task, str(asked.seed)) or (
        len(word) >= _SHORTEST and asked.key.startswith(word)
    )


def _show(record: Record) -> None:
    click.echo(clean(f"{record.status}: {record.reason}" if record.reason else record.status))
    scores = [(name, f"{score:.4f}") for name, score in record.scores.items() if score is not None]
    if scores:
        print_table(scores)
    if record.curve:
        click.echo()
        rows = [(p.step, f"{p.epoch:g}", _number(p.train_loss), _number(p.validation)) for p in record.curve]
        print_table(rows, ("step", "epoch", "train loss", "validation"))
    if record.traceback:
        click.echo("\n" + clean_lines(record.traceback.rstrip("\n")))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
