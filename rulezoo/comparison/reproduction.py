"""A stored run trained again, from its record alone: the request that asks for it, and what came of it.

A record holds every option and the whole budget as values. They become the words that a request is made of, and what is
planned from these words is compared with the record before anything is trained: where the rule, the task or the protocol
has changed, the run cannot be reproduced, and a sentence says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.comparison import budgets
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.errors import UserError
from rulezoo.options import Value, as_text, declared
from rulezoo.results.comparing import Difference, difference, provenance
from rulezoo.results.groups import cell_key
from rulezoo.results.records import whole
from rulezoo.task import Budget

if TYPE_CHECKING:
    from rulezoo.comparison.plan import Cell
    from rulezoo.discovery.registry import Registry
    from rulezoo.results.records import Record, RunSpec
    from rulezoo.results.store import Store

BROKEN_OFF = frozenset({"timeout", "killed", "crashed", "oom_host", "oom_gpu", "interrupted", "pruned"})
"""Statuses of runs that say nothing of what the rule computes: there is nothing to reproduce."""


class CannotReproduce(UserError):
    """A run that cannot be trained again; the message says what has changed or is missing."""


def groups(records: Iterable[Record]) -> list[list[Record]]:
    """Runs that were trained in the same way, seed by seed: of one cell, in one process, with the same settings."""
    found: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        answered = record.answered
        how = answered.seeds_together, answered.compiled, answered.hardware.threads, len(record.probes)
        found[cell_key(record.asked), answered.started, *how].append(record)
    return [sorted(group, key=lambda record: record.asked.seed) for group in found.values()]


def request_of(
    group: Sequence[Record], registry: Registry, *, data: Path | None = None, download: bool = False
) -> Request:
    """The request for the runs of a group, with the threads and the number of seeds together of the record.

    Args:
        group: of `groups`.
        registry: the available rules and tasks.
        data: folder of data sets.
        download: whether missing data sets may be downloaded into it.

    Raises:
        CannotReproduce: if the rule or the task is missing, or has another version.
        UserError: if an option does not exist any more, or its value is not allowed any more.
    """
    record = group[0]
    asked, name = record.asked, registry.current(record.asked.rule)  # the rule may have been renamed
    _check_versions(record, registry)
    options = {
        name: _chosen(asked.rule_options, registry.rule_class(name)),
        asked.task: _chosen(asked.task_options, registry.task_class(asked.task)),
    }
    rule = registry.make_rule(name, options[name])
    own = {"lr": rule.lr, "weight_decay": rule.weight_decay}
    return Request(
        rules=(name,),
        tasks=(asked.task,),
        seeds=tuple(one.asked.seed for one in group),
        options=options,
        budget=budget_words(
            asked.budget,
            registry.make_task(asked.task, options[asked.task]).budget,
            own=[name for name, value in own.items() if value is not None],
        ),
        epochs=_epochs(asked),
        device=asked.device,
        precision=asked.precision,
        compiled=record.answered.compiled,
        together=record.answered.seeds_together,
        probes=len(record.probes),
        threads=record.answered.hardware.threads,
        data=data,
        download=download,
    )


def budget_words(stored: Mapping[str, Value], now: Budget, own: Sequence[str] = ()) -> dict[str, str]:
    """What has to be set to train with a stored budget, whatever the task's own is now.

    Args:
        stored: the budget of a record.
        now: the task's own.
        own: fields that the rule has of its own.
    """
    words = dict(budgets.words(stored))
    flat = now.flat()
    for name, base in budgets.BASE.items():
        if name not in own and base not in stored and name in stored and stored[name] != flat[name]:
            words[name] = stored[name]
    for field in fields(Budget):
        # A field that is not stored had its default: it is newer than the record, or was left at it.
        if field.name in flat and field.name not in stored and flat[field.name] != field.default:
            words[field.name] = field.default  # type: ignore[assignment]  # those without a default are always stored
    return _words(words)


def remade(group: Sequence[Record], registry: Registry, request: Request) -> Cell:
    """The cell that a request of `request_of` stands for.

    Raises:
        CannotReproduce: if it is not what the records asked for.
        UserError: if nothing can be trained with it.
    """
    (cell,) = plan(registry, request)
    for record, asked in zip(group, cell.asked, strict=True):
        if problem := _mismatch(record.asked, asked):
            raise CannotReproduce(problem)
    return cell


def _check_versions(record: Record, registry: Registry) -> None:
    asked, answered = record.asked, record.answered
    for kind, name, version, plugin, known in (
        ("rule", registry.current(asked.rule), asked.rule_version, answered.rule_plugin, registry.rules),
        ("task", asked.task, asked.task_version, answered.task_plugin, registry.tasks),
    ):
        if name not in known:
            origin = " ".join(filter(None, [plugin.distribution, plugin.version]))
            how = "name that file with --plugin" if origin.endswith(".py") else "install it"
            raise CannotReproduce(f"{kind} {name} is not available; it came from {origin}: {how}")
        if (now := known[name].spec.version) != version:
            raise CannotReproduce(
                f"{kind} {name} has version {now} now, the record is of version {version}; install a release of "
                f"{plugin.distribution} that has it"
            )


def _mismatch(stored: RunSpec, now: RunSpec) -> str | None:
    """What keeps a planned run from being the stored one, in a sentence."""
    if stored.protocol != now.protocol:
        return f"the protocol of training has number {now.protocol} now, the record is of number {stored.protocol}"
    for name, before, after in (
        (stored.rule, stored.rule_options, _known(now.rule_options, stored.rule_options)),
        (stored.task, stored.task_options, _known(now.task_options, stored.task_options)),
        ("budget", _used(stored.budget), _used(now.budget)),
    ):
        for option in sorted({*before, *after}):
            if option not in before:
                return f"{name}.{option} is {as_text(after[option])!r} now, is not in the record, and cannot be left out"
            if option not in after:
                return f"{name}.{option} is {as_text(before[option])!r} in the record, and cannot be set any more"
            if _plain(before[option]) != _plain(after[option]):
                return (
                    f"{name}.{option} is {as_text(before[option])!r} in the record, and becomes "
                    f"{as_text(after[option])!r} when it is set to that"
                )
    return None


def _known(now: Mapping[str, Value], stored: Mapping[str, Value]) -> dict[str, Value]:
    """Options that were there when the record was written; of one that was added since, the default keeps the results."""
    return {name: value for name, value in now.items() if name in stored}


def _added(stored: RunSpec, now: RunSpec) -> list[str]:
    """Options that were added since the record was written."""
    return [
        f"{owner}.{name}={as_text(value)}"
        for owner, before, after in (
            (now.rule, stored.rule_options, now.rule_options),
            (now.task, stored.task_options, now.task_options),
        )
        for name, value in after.items()
        if name not in before
    ]


def _used(budget: Mapping[str, Value]) -> dict[str, Value]:
    """What a run was trained with: a stored budget without the notes of where it came from, and without defaults."""
    defaults = {field.name: field.default for field in fields(Budget)}
    notes = budgets.BASE.values()
    return {
        name: value
        for name, value in budget.items()
        if name not in notes and not (name in defaults and defaults[name] == value)
    }


def _plain(value: Value) -> tuple[type, Value]:
    value = whole(value)
    return type(value), value


def _chosen(values: Mapping[str, Value], cls: type) -> dict[str, str]:
    """The words for the options that are not the default; an option that does not exist any more is among them."""
    known = declared(cls)
    return _words(
        {
            name: value
            for name, value in values.items()
            if name not in known or _plain(known[name].canonical(known[name].default)) != _plain(value)
        }
    )


def _words(values: Mapping[str, Value]) -> dict[str, str]:
    return {name: as_text(value) for name, value in values.items()}


def _epochs(asked: RunSpec) -> int | None:
    epochs = asked.budget.get("epochs")
    return epochs if isinstance(epochs, int) else None


@dataclass(frozen=True)
class Again:
    """A run, and the same run trained again.

    Attributes:
        before: the stored record.
        after: the new one.
        difference: in what their results differ; ``None`` = identical.
    """

    before: Record
    after: Record
    difference: Difference | None


@dataclass(frozen=True)
class Reproduction:
    """What came of training a cell again.

    Attributes:
        records: the stored runs, all of one cell.
        runs: those that were trained again.
        problem: why they could not be, in a sentence; the rest of ``records``.
    """

    records: tuple[Record, ...]
    runs: tuple[Again, ...]
    problem: str | None = None

    @property
    def identical(self) -> bool:
        """Whether every run was trained again, with identical results."""
        return len(self.runs) == len(self.records) and not any(run.difference for run in self.runs)

    @property
    def name(self) -> str:
        """``nmnc (rank=64) on digits-cnn``: the options are those that are not the author's default."""
        record = self.records[0]
        options = [f"{name}={as_text(record.asked.rule_options[name])}" for name in record.changed]
        shown = f" ({', '.join(options)})" if options else ""
        return f"{record.asked.rule}{shown} on {record.asked.task}"

    def sentences(self) -> Iterator[str]:
        """The result in a line, then a line for each seed that differs, and what may explain it."""
        same = sum(run.difference is None for run in self.runs)
        if self.runs:
            count = len(self.records)
            yield f"{self.name}: {same} of {count} seed{'s' * (count != 1)} identical"
        if self.problem:
            yield f"{self.name}: cannot be trained again: {self.problem}"
        if self.runs and (added := _added(self.runs[0].before.asked, self.runs[0].after.asked)):
            yield f"  options added since, with their defaults: {', '.join(added)}"
        different = [run for run in self.runs if run.difference]
        for run in different:
            yield f"  seed {run.before.asked.seed}: {run.difference}"
        if different:
            phrases = dict.fromkeys(
                p for run in different for p in provenance(run.before.answered, run.after.answered)
            )
            yield (
                f"  not the same as in the record: {'; '.join(phrases)}"
                if phrases
                else (
                    "  nothing in the provenance of the records differs: the rule, the task or the machine does not compute "
                    "the same twice"
                )
            )


def outcome(
    records: Sequence[Record], store: Store, cells: Sequence[Cell], problem: str | None = None
) -> Reproduction:
    """Compare stored runs of a cell with what a store holds of them now.

    Args:
        records: the stored runs.
        store: where they were trained again.
        cells: what was trained; empty if nothing could be.
        problem: why not.
    """
    asked = {one.seed: one for cell in cells for one in cell.asked}
    runs = [
        Again(record, after, difference(record, after))
        for record in records
        if record.asked.seed in asked and (after := store.get(asked[record.asked.seed]))
    ]
    return Reproduction(tuple(records), tuple(runs), problem)
