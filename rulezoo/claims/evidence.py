"""The runs behind a claim: found among stored records by what was asked, and read in the units that criteria need.

A record belongs to an arm if rule, task, seed and epochs are those of the arm, its options have the values that the arm
gives them, no other option of the rule was changed, and it was probed as often as the arm asks for. Where several
records do (another machine or an older version answered the same question), the one of the newest protocol and versions
counts, then the last one.

A run that failed or diverged counts at chance level and has no angles. One that a rule refused (``skipped``) has no
score at all. One that was interrupted is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rulezoo.claims.design import Arm, Study, Tuning
from rulezoo.claims.verdicts import Interval, t_interval
from rulezoo.evaluations.records import Evaluated
from rulezoo.evaluations.store import arrays_of
from rulezoo.evaluations.store import read as read_evaluations
from rulezoo.options import Value
from rulezoo.results.records import Device, Probe, Record, whole
from rulezoo.results.store import Store

if TYPE_CHECKING:
    import numpy as np

EVERY_PARAMETER = "*"  # `rulezoo.measures.probes.ALL`, whose module imports torch

T = TypeVar("T")
Measure = Callable[[Record], float]
"""A number of a run; nan where it has none."""


@dataclass(frozen=True)
class Evidence:
    """What is stored of a study.

    Attributes:
        runs: arm, its tuned option in place → seed → record; arms without any run are there, too.
        done: how many of the study's runs are stored, those of the tuning included.
        planned: how many there are in all.
        chosen: name of a tuning → the value that won.
        tried: name of a tuning → value → mean validation score; of complete tunings only.
        evaluated: name of an evaluation of the study → key of a run → what was measured on its network.
        store: where the runs are stored; ``None`` = nowhere.
    """

    runs: Mapping[Arm, Mapping[int, Record]]
    done: int
    planned: int
    chosen: Mapping[str, str]
    tried: Mapping[str, Mapping[str, float]]
    evaluated: Mapping[str, Mapping[str, Evaluated]] = field(default_factory=dict)
    store: Store | None = None
    _computed: dict[Hashable, object] = field(default_factory=dict, init=False, compare=False, repr=False)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` gives, computed once: a criterion's verdict, tables and chart may need the same slow number.

        Args:
            key: what it is.
            compute: computes it from this evidence.
        """
        if key not in self._computed:
            self._computed[key] = compute()
        return cast("T", self._computed[key])

    def value(self, evaluation: str, record: Record, quantity: str) -> float:
        """A number that an evaluation measured on the network of a run; nan where it has none."""
        found = self.evaluated.get(evaluation, {}).get(record.asked.key)
        number = found.values.get(quantity) if found else None
        return math.nan if number is None else number

    def arrays(self, evaluation: str, record: Record) -> Mapping[str, np.ndarray[Any, Any]]:
        """The arrays that an evaluation stored for the network of a run; empty where it has none.

        Raises:
            Unreadable: if they are missing or were changed.
        """
        found = self.evaluated.get(evaluation, {}).get(record.asked.key)
        return arrays_of(self.store, found) if found and self.store else {}

    @property
    def complete(self) -> bool:
        """Whether every run is stored."""
        return self.done == self.planned

    @property
    def records(self) -> list[Record]:
        """Every run of the arms."""
        return [record for runs in self.runs.values() for record in runs.values()]

    def of(
        self, label: str | None = None, at: float | None = None, task: str | None = None
    ) -> dict[int, Record]:
        """Seed → record, of the arm with this label, position and task; of the first, where they leave a choice."""
        for arm, runs in self.runs.items():
            if label in (None, arm.label) and at in (None, arm.at) and task in (None, arm.task):
                return dict(runs)
        return {}

    def labels(self) -> list[str]:
        """The series, in order."""
        return list(dict.fromkeys(arm.label for arm in self.runs))

    def tasks(self) -> list[str]:
        """The tasks, in order."""
        return list(dict.fromkeys(arm.task for arm in self.runs))

    def positions(self, label: str | None = None, task: str | None = None) -> list[float]:
        """The positions of a series' arms on the study's axis, in increasing order."""
        return sorted(
            {arm.at for arm in self.runs if label in (None, arm.label) and task in (None, arm.task)}
        )


def gather(
    study: Study, records: Sequence[Record], device: Device | None = None, store: Store | None = None
) -> Evidence:
    """Find a study's runs, and what was measured on their networks.

    Args:
        study: the study.
        records: of its store.
        device: only those that were computed there.
        store: where evaluations are stored.
    """
    usable = [
        r for r in records if r.status != "interrupted" and (device is None or r.asked.device == device)
    ]
    tried = {t.name: scores for t in study.tunings if (scores := _tried(t, usable))}
    chosen = {name: max(scores, key=lambda value: scores[value]) for name, scores in tried.items()}
    runs = {arm: _runs(arm, usable) for arm in study.resolved(chosen)}
    tuning = sum(len(_runs(arm, usable)) for t in study.tunings for arm in t.candidates)
    done = tuning + sum(map(len, runs.values()))
    if not study.evaluations or store is None:
        return Evidence(runs, done, study.runs, chosen, tried)
    evaluated = _evaluated(study, runs, store)
    done += _count_evaluated(study, runs, evaluated)
    return Evidence(runs, done, study.runs + study.measurements, chosen, tried, evaluated, store)


def _evaluated(
    study: Study, runs: Mapping[Arm, Mapping[int, Record]], store: Store
) -> dict[str, dict[str, Evaluated]]:
    """Name of an evaluation of the study → key of a run → the newest version of what was measured."""
    stored = sorted(read_evaluations(store).found, key=lambda one: (one.asked.version, one.finished))
    networks = {record.asked.key: record.weights for some in runs.values() for record in some.values()}
    return {
        one.name: {
            found.asked.run: found
            for found in stored
            if found.asked.evaluation == one.evaluation
            and set(found.changed) <= set(one.options)
            and _same(found.asked.options, one.options)
            and networks.get(found.asked.run) == found.weights
            and found.status in ("ok", "skipped")
        }
        for one in study.evaluations
    }


def _count_evaluated(
    study: Study, runs: Mapping[Arm, Mapping[int, Record]], evaluated: Mapping[str, Mapping[str, Evaluated]]
) -> int:
    """How many networks of the stored runs were evaluated; a run without a network counts as done."""
    return sum(
        record.status != "ok" or record.asked.key in evaluated[one.name]
        for one in study.evaluations
        for arm, some in runs.items()
        if one.of(arm)
        for record in some.values()
    )


def _tried(tuning: Tuning, records: Sequence[Record]) -> dict[str, float]:
    """Value → mean validation score; nothing unless every run of the grid is there."""
    found = {value: _runs(arm, records) for value, arm in zip(tuning.values, tuning.candidates, strict=True)}
    if any(len(runs) < len(tuning.arm.seeds) for runs in found.values()):
        return {}
    return {
        value: math.fsum(_validation(r) for r in runs.values()) / len(runs) for value, runs in found.items()
    }


def _runs(arm: Arm, records: Sequence[Record]) -> dict[int, Record]:
    found: dict[int, Record] = {}
    for record in sorted((r for r in records if belongs(record=r, arm=arm)), key=_age):
        found[record.asked.seed] = record
    return {seed: found[seed] for seed in arm.seeds if seed in found}


def _age(record: Record) -> tuple[int, int, int, str]:
    asked = record.asked
    return asked.protocol, asked.rule_version, asked.task_version, record.answered.finished


def belongs(*, record: Record, arm: Arm) -> bool:
    """Whether a record is a run of an arm."""
    asked = record.asked
    return (
        (asked.rule, asked.task) == (arm.rule, arm.task)
        and asked.seed in arm.seeds
        and (arm.epochs is None or asked.budget.get("epochs") == arm.epochs)
        and set(record.changed) <= set(arm.options)
        and _same(asked.rule_options, arm.options)
        and _same(asked.task_options, arm.task_options)
        and _same(asked.budget, arm.budget)
        and (record.status != "ok" or len(record.probes) >= arm.probes)
    )


def _same(values: Mapping[str, Any], words: Mapping[str, str]) -> bool:
    """Whether options have these values; a text may look like a number, such as the name of a recording."""
    return all(
        name in values and (values[name] == text or whole(values[name]) == _read(text))
        for name, text in words.items()
    )


def _read(text: str) -> Value:
    """The value that a word stands for, whatever the option's type: numbers first, then none, true, false, then text."""
    try:
        return whole(float(text))
    except ValueError:
        return {"none": None, "true": True, "false": False}.get(text.lower(), text)


# --------------------------------------------------------------------------------------------------------------------
# Numbers of a run


def score(record: Record) -> float:
    """Score on test data; chance of a run that failed, nan of one that was refused."""
    return _scored(record, "test")


def _validation(record: Record) -> float:
    return record.chance if record.status == "skipped" else _scored(record, "validation")


def _scored(record: Record, part: str) -> float:
    if record.status == "skipped":
        return math.nan
    value = record.scores.get(part) if record.status == "ok" else None
    return record.chance if value is None else value


def last_probe(record: Record) -> Probe | None:
    """The probe after training; ``None`` of a run that did not end well or was not probed."""
    return record.probes[-1] if record.status == "ok" and record.probes else None


def number(probe: Probe | None, site: str, quantity: str) -> float:
    """A number of a probe at a site; nan where there is none."""
    value = probe.sites.get(site, {}).get(quantity) if probe else None
    return math.nan if value is None else value


def at_end(site: str, quantity: str) -> Measure:
    """A number at a site after training; the quantities are those of `rulezoo.measures.probes.QUANTITIES`."""
    return lambda record: number(last_probe(record), site, quantity)


def at_start(site: str, quantity: str) -> Measure:
    """A number at a site before training, of runs that are probed at least twice."""
    return lambda record: number(record.probes[0] if len(record.probes) > 1 else None, site, quantity)


def sites(records: Iterable[Record]) -> list[str]:
    """The sites that were probed, widest first; equal ones in the order of the network."""
    widths: dict[str, float] = {}
    for record in records:
        for probe in record.probes:
            for site in probe.sites:
                width = number(probe, site, "units")
                widths[site] = max(widths.get(site, 0.0), 0.0 if math.isnan(width) else width)
    return sorted(widths, key=lambda site: -widths[site])


# --------------------------------------------------------------------------------------------------------------------
# Numbers over seeds


def over_seeds(runs: Mapping[int, Record], measure: Measure) -> Interval:
    """A number of every run, with its interval."""
    return t_interval(measure(record) for record in runs.values())


def size(found: Interval) -> str:
    """The mean of a ratio of sizes in words, such as ``×0.56`` or ``×3.1e-09``; a dash where there is none."""
    return f"×{found.mean:.2g}" if found.n else "—"


def mean_of(runs: Mapping[int, Record]) -> float:
    """Mean test score over seeds; nan without any."""
    return over_seeds(runs, score).mean


def paired(ours: Mapping[int, Record], theirs: Mapping[int, Record], measure: Measure) -> Interval:
    """The difference ours − theirs between runs of the same seed, with its interval."""
    return t_interval(measure(ours[seed]) - measure(theirs[seed]) for seed in ours if seed in theirs)
