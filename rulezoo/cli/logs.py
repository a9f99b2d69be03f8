"""``rulezoo logs``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.common import out_option, print_table
from rulezoo.cli.help import HelpfulCommand
from rulezoo.cli.output import echo
from rulezoo.errors import UserError
from rulezoo.results import journal
from rulezoo.results import logs as printed
from rulezoo.results.store import Store
from rulezoo.text import clean, clean_lines
from rulezoo.tuning.records import trials_of

if TYPE_CHECKING:
    from rulezoo.results.records import Record, RunSpec

_SHORTEST = 4  # digits of a key that may stand for it


@click.command(
    cls=HelpfulCommand,
    examples=(
        ("All runs, one a line", "rulezoo logs"),
        ("The run of one seed", "rulezoo logs digits-cnn nmnc 0"),
    ),
)
@click.argument("run", metavar="[RUN]...", nargs=-1)
@out_option
def logs(run: Sequence[str], out: Path) -> None:
    """Show the learning curve, error and printed output of a run.

    RUN is the beginning of the run's key, or words that identify it: task, rule, seed. Without RUN, all runs are listed,
    one a line.
    """
    if not out.is_dir():
        raise UserError(f"no results in {out}: run `rulezoo compare`, or name their folder with --out")
    found = [_Found(store) for store in (Store(out), trials_of(Store(out)))]  # no run is in both
    meant = _matching(run, [asked for one in found for asked in one.asked.values()], out)
    if not run or len(meant) > 1:
        _list(meant, found)
        if run:
            raise UserError(f"{' '.join(run)!r} matches {len(meant)} runs; name one of them by its key")
        return
    (asked,) = meant
    (here,) = (one for one in found if asked.key in one.asked)
    print_table([("run", f"{asked.task} {asked.rule} seed {asked.seed}"), ("key", asked.key)])
    if record := here.records.get(asked.key):
        _show(record)
    elif note := here.underway.get(asked.key):
        left = f", {timedelta(seconds=round(note.left))} left" if note.left is not None else ""
        echo(f"under way: step {note.step} of {note.total}{left}" if note.total else "under way: starting")
    for path in printed.of(here.store, asked):
        echo(f"\nprinted ({path.name}, all seeds of the group)")
        echo(clean_lines(path.read_text(encoding="utf-8", errors="replace").rstrip("\n")))


class _Found:
    """The runs of a store, and how far those are that are under way."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.records = {record.asked.key: record for record in store.read().records}
        self.underway = {asked.key: note for note in journal.trainings(store) for asked in note.asked}
        self.asked = {key: record.asked for key, record in self.records.items()}
        self.asked |= {asked.key: asked for note in self.underway.values() for asked in note.asked}


def _matching(words: Sequence[str], known: Sequence[RunSpec], out: Path) -> Sequence[RunSpec]:
    meant = [asked for asked in known if all(_is(word, asked) for word in words if word != "seed")]
    if not known:
        raise UserError(f"no runs in {out}: run `rulezoo compare`, or name another folder with --out")
    if not meant:
        raise UserError(f"no run in {out} matches {' '.join(words)!r}; `rulezoo logs` lists the runs")
    return meant


def _list(meant: Iterable[RunSpec], found: Sequence[_Found]) -> None:
    rows = []
    for asked in sorted(meant, key=lambda one: (one.task, one.rule, one.seed)):
        record = next((r for one in found if (r := one.records.get(asked.key))), None)
        state = "under way" if record is None else record.status
        score = record.scores.get("test", record.scores.get("validation")) if record else None
        rows.append((asked.key[:8], asked.task, asked.rule, asked.seed, state, _number(score)))
    print_table(rows, ("key", "task", "rule", "seed", "status", "score"))


def _is(word: str, asked: RunSpec) -> bool:
    return word in (asked.rule, asked.task, str(asked.seed)) or (
        len(word) >= _SHORTEST and asked.key.startswith(word)
    )


def _show(record: Record) -> None:
    echo(clean(f"{record.status}: {record.reason}" if record.reason else record.status))
    scores = [(name, f"{score:.4f}") for name, score in record.scores.items() if score is not None]
    if scores:
        print_table(scores)
    if record.curve:
        echo()
        rows = [(p.step, f"{p.epoch:g}", _number(p.train_loss), _number(p.validation)) for p in record.curve]
        print_table(rows, ("step", "epoch", "train loss", "validation"))
    if record.traceback:
        echo("\n" + clean_lines(record.traceback.rstrip("\n")))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
