"""Stored runs as tables, as a leaderboard, and one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rulezoo.api.leaderboard import Leaderboard
from rulezoo.api.run import Run
from rulezoo.errors import UserError, did_you_mean, unknown
from rulezoo.options import as_text, is_written
from rulezoo.results import groups
from rulezoo.results.exporting import curve_lines, probe_lines, run_lines, table
from rulezoo.results.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from rulezoo.discovery.registry import Registry
    from rulezoo.evaluations.records import Evaluated
    from rulezoo.options import Value
    from rulezoo.results.records import Record
    from rulezoo.trained import TrainedNetwork
    from rulezoo.tuning.records import Tuned

T = TypeVar("T")
_IDENTITY = (
    "rule.",
    "task.",
    "budget.",
)  # columns that tell runs of one rule, task and seed apart, and these:
_CONDITIONS = ("device", "precision", "protocol", "rule_version", "task_version")


class NoRun(UserError, LookupError):
    """No run, or more than one, is what was asked for; the message says what is stored."""


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """Runs of a folder of results.

    Attributes:
        folder: the folder.
        records: the record of each run.
        tunings: the conclusions of tunings, for the leaderboard.
    """

    folder: Path
    records: tuple[Record, ...]
    tunings: tuple[Tuned, ...] = ()

    def __repr__(self) -> str:
        rules, tasks = _names(self.records, "rule"), _names(self.records, "task")
        return (
            f"<Results of {len(self)} runs in {self.folder}: rules {', '.join(rules) or 'none'}; "
            f"tasks {', '.join(tasks) or 'none'}>"
        )

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Run]:
        return map(self._run, self.records)

    @property
    def frame(self) -> pd.DataFrame:
        """One line for each run: scores, cost, and everything that was asked, as ``rule.OPTION``, ``budget.lr`` and so on."""
        return table(list(run_lines(self.records)))

    @property
    def curves(self) -> pd.DataFrame:
        """One line for each point of each learning curve, with what the rule logged as ``log.NAME``."""
        return table(list(curve_lines(self.records)))

    @property
    def probes(self) -> pd.DataFrame:
        """One line for each quantity that was probed at a site or of a parameter, with its step."""
        return table(list(probe_lines(self.records)))

    @property
    def evaluations(self) -> pd.DataFrame:
        """One line for each value of each evaluation of these runs, with its options as ``evaluation.OPTION``."""
        from rulezoo.evaluations.store import read

        keys = {record.asked.key for record in self.records}
        found = [one for one in read(Store(self.folder)).found if one.asked.run in keys]
        return table([line for one in found for line in _values(one)])

    def only(
        self,
        *,
        rules: str | Sequence[str] | None = None,
        tasks: str | Sequence[str] | None = None,
        seeds: int | Iterable[int] | None = None,
        status: str | Sequence[str] | None = None,
        where: Mapping[str, Value] | None = None,
    ) -> Results:
        """The runs that fit every condition.

        Args:
            rules: names of rules.
            tasks: names of tasks.
            seeds: seeds.
            status: how the run ended: ``"ok"``, ``"diverged"``, …
            where: column of `frame` → value, like ``{"rule.rank": 16}``.

        Raises:
            UserError: if a name, a seed or a column is not among these runs.
        """
        records = self.records
        for kind, asked in (("rule", rules), ("task", tasks), ("seed", seeds), ("status", status)):
            if asked is not None:
                records = _filtered(records, kind, _listed(asked))
        for name, value in (where or {}).items():
            records = _where(records, name, value)
        return replace(self, records=records)

    def run(self, rule: str, task: str, seed: int = 0, where: Mapping[str, Value] | None = None) -> Run:
        """One run.

        Args:
            rule: name of the rule.
            task: name of the task.
            seed: the seed.
            where: column of `frame` → value, to choose one of several variants, like ``{"rule.rank": 16}``.

        Raises:
            UserError: if there is no such run, or more than one; the message says how they differ.
        """
        found = self.only(rules=rule, tasks=task)
        if not found:
            stored = sorted({r.asked.task for r in self.only(rules=rule).records})
            raise NoRun(f"{rule} was not run on {task}; stored are its runs on {', '.join(stored)}")
        found = found.only(seeds=seed, where=where)
        if not found:
            raise NoRun(f"no run of {rule} on {task}, seed {seed}, has {_shown(where or {})}")
        if len(found) > 1:
            raise NoRun(_ambiguous(found.records))
        return self._run(found.records[0])

    def with_key(self, key: str) -> Run:
        """The run whose key, as in the name of its record and in column ``key``, begins so.

        Raises:
            UserError: if there is no such run, or more than one.
        """
        found = [record for record in self.records if key and record.asked.key.startswith(key)]
        if len(found) != 1:
            raise NoRun(
                f"{'no run has' if not found else f'{len(found)} runs have'} a key that begins with {key!r}; the column 'key' of "
                "Results.frame, and the names of the records, hold the keys"
            )
        return self._run(found[0])

    def leaderboard(self) -> Leaderboard:
        """The table that `rulezoo leaderboard` shows, of these runs: for a terminal (`print`) and a notebook."""
        from rulezoo.leaderboard.evaluated import evaluations_of
        from rulezoo.leaderboard.overview import build
        from rulezoo.leaderboard.verified import stored
        from rulezoo.results.freshness import stale

        store = Store(self.folder)
        overview = build(
            self.records,
            specs=self._registry.specs(),
            task_specs=self._registry.task_specs(),
            tunings=self.tunings,
            stale=lambda record: stale(record, self._registry),
            verifications=stored(store, self._registry)[0],
            evaluations=evaluations_of(store, self._registry)[0],
        )
        return Leaderboard(overview)

    @cached_property
    def _registry(self) -> Registry:
        from rulezoo.discovery.registry import discover

        return discover()

    def _run(self, record: Record) -> Run:
        return Run(record, partial(self._network, record))

    def _network(self, record: Record) -> TrainedNetwork:
        from rulezoo.evaluations.network import network_of

        return network_of(Store(self.folder), record, self._registry, others=self.records)


def _values(evaluated: Evaluated) -> Iterator[dict[str, Any]]:
    asked = evaluated.asked
    about = {
        "key": asked.run,
        "task": asked.task,
        "rule": asked.rule,
        "seed": asked.seed,
        "evaluation": asked.evaluation,
        "status": evaluated.status,
    }
    options = {f"evaluation.{name}": value for name, value in asked.options.items()}
    if not evaluated.values:
        yield {**about, "name": None, "value": None, "note": evaluated.reason, **options}
    for name, value in evaluated.values.items():
        yield {**about, "name": name, "value": value, "note": evaluated.notes.get(name), **options}


def _listed(asked: T | Iterable[T]) -> list[T]:
    return [asked] if isinstance(asked, str | int) else list(asked)  # type: ignore[arg-type]


def _value(record: Record, kind: str) -> object:
    return record.status if kind == "status" else getattr(record.asked, kind)


def _names(records: Iterable[Record], kind: str) -> list[str]:
    return sorted({str(_value(record, kind)) for record in records})


def _filtered(records: Sequence[Record], kind: str, asked: Sequence[object]) -> tuple[Record, ...]:
    stored = {_value(record, kind) for record in records}
    for one in asked:
        if one not in stored:
            if kind == "seed":
                seeds = groups.spans(sorted({r.asked.seed for r in records}))
                raise NoRun(f"seed {one!r} is not stored; stored: {seeds or 'nothing'}")
            known = _names(records, kind)
            raise unknown(kind, str(one), known, f"stored: {', '.join(known) or 'nothing'}")
    return tuple(record for record in records if _value(record, kind) in asked)


def _where(records: Sequence[Record], name: str, value: Value) -> tuple[Record, ...]:
    """The runs with that value in a column; a text stands for the value that it is read as, too."""
    lines = list(run_lines(records))
    columns = dict.fromkeys(column for line in lines for column in line)
    if name not in columns:
        own = [column for column in columns if column.endswith(f".{name}")]
        hint = f"did you mean {own[0]!r}?" if own else did_you_mean(name, columns)
        raise NoRun(f"where: {name!r} is not a column of frame{f'; {hint}' if hint else ''}")
    found = tuple(record for record, line in zip(records, lines, strict=True) if _is(line.get(name), value))
    if not found and records:
        values = dict.fromkeys(as_text(line.get(name)) for line in lines)
        raise NoRun(f"where: no run has {name}={as_text(value)}; stored: {', '.join(values)}")
    return found


def _is(stored: Value, asked: Value) -> bool:
    return stored == asked or (isinstance(asked, str) and is_written(stored, asked))


def _ambiguous(records: Sequence[Record]) -> str:
    asked = records[0].asked
    lines = list(run_lines(records))
    names = [
        n
        for n in dict.fromkeys(n for line in lines for n in line)
        if n.startswith(_IDENTITY) or n in _CONDITIONS
    ]
    values = {name: list(dict.fromkeys(line.get(name) for line in lines)) for name in names}
    differing = {name: found for name, found in values.items() if len(found) > 1}
    for name in set(differing) & {"budget.lr", "budget.weight_decay"}:  # what the rule's own options set
        if name.replace("budget", "rule") in differing:
            del differing[name]
    words = "; ".join(f"{name} is {' or '.join(map(as_text, found))}" for name, found in differing.items())
    example = ", ".join(f"{name!r}: {found[0]!r}" for name, found in differing.items())
    return (
        f"there are {len(records)} runs of {asked.rule} on {asked.task}, seed {asked.seed}: {words}. Choose one, as with "
        f"where={{{example}}}"
    )


def _shown(where: Mapping[str, Value]) -> str:
    return ", ".join(f"{name}={as_text(value)}" for name, value in where.items())
