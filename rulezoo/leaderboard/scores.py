"""Test scores as one frozen value, and their view under a failure policy: plan, ranked rules and scale.

The letters: R rules, T tasks, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Status = Literal["finished", "failed", "missing", "skipped"]
Failures = Literal["chance", "exclude"]
Floats = NDArray[np.float64]

HUGE = 1e100  # sums and squares of scores below it cannot overflow


class Run(NamedTuple):
    """One run as the leaderboard sees it; ``score`` is read only when the status is ``"finished"``."""

    rule: str
    task: str
    seed: int
    status: Status
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """Test scores of every rule on every task with every seed.

    Attributes:
        rules: names.
        tasks: names.
        seeds: seeds, common to all rules and tasks.
        values: test scores, higher is better, of shape ``(rules, tasks, seeds)``; read only where finished.
        status: ``"finished"``, ``"failed"``, ``"missing"`` or ``"skipped"``, of the same shape.
        chance: for each task, the score of guessing.
        reference: the rule that others are measured against, or ``None``; it may be absent from ``rules``.

    Raises:
        ValueError: if names repeat, shapes differ, a status is unknown, or a score or chance level is not a
            number.
    """

    rules: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Floats
    status: NDArray[np.str_]
    chance: Mapping[str, float]
    reference: str | None = "backprop"

    def __post_init__(self) -> None:
        shape = (len(self.rules), len(self.tasks), len(self.seeds))
        for what, names in (("rules", self.rules), ("tasks", self.tasks), ("seeds", self.seeds)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} must differ from one another, got {names}")
        for what, array in (("values", self.values), ("status", self.status)):
            if array.shape != shape:
                raise ValueError(f"{what} must have shape (rules, tasks, seeds) = {shape}, got {array.shape}")
        if unknown := set(np.unique(self.status)) - set(get_args(Status)):
            raise ValueError(f"status must be one of {get_args(Status)}, got {sorted(map(str, unknown))}")
        for task in self.tasks:
            if not abs(self.chance.get(task, math.nan)) < HUGE:
                raise ValueError(f"task {task} needs a chance level, a number, got {self.chance.get(task)}")
        # ~(… < HUGE) instead of (… >= HUGE), so that NaN is refused too.
        bad = np.argwhere((self.status == "finished") & ~(np.abs(self.values) < HUGE))
        if bad.size:
            r, t, s = bad[0]
            raise ValueError(
                f"the score of {self.rules[r]} on {self.tasks[t]}, seed {self.seeds[s]}, must be a number "
                f"below {HUGE:g} in size, got {self.values[r, t, s]}; store such a run as failed"
            )

    @classmethod
    def of(
        cls, runs: Iterable[Run], chance: Mapping[str, float], reference: str | None = "backprop"
    ) -> Scores:
        """Scores from runs in any order; what no run tells of is missing.

        Raises:
            ValueError: if two runs have the same rule, task and seed, or a finished run has no score.
        """
        table: dict[tuple[str, str, int], Run] = {}
        for run in runs:
            if table.setdefault(run[:3], run) is not run:
                raise ValueError(
                    f"two runs of {run.rule} on {run.task} with seed {run.seed}; choose one of them"
                )
        rules = tuple(dict.fromkeys(rule for rule, _, _ in table))
        tasks = tuple(dict.fromkeys(task for _, task, _ in table))
        seeds = tuple(dict.fromkeys(seed for _, _, seed in table))
        shape = (len(rules), len(tasks), len(seeds))
        values, status = np.full(shape, np.nan), np.full(shape, "missing", dtype=object)
        places = [{name: i for i, name in enumerate(axis)} for axis in (rules, tasks, seeds)]
        for run in table.values():
            at = tuple(place[name] for place, name in zip(places, run[:3], strict=True))
            status[at] = run.status
            values[at] = np.nan if run.score is None else run.score
        return cls(rules, tasks, seeds, values, status.astype(np.str_), chance, reference)

    def only(self, rules: Collection[str], tasks: Collection[str], reference: str | None) -> Scores:
        """The scores of some rules on some tasks, against a reference of their own."""
        r = np.array([i for i, rule in enumerate(self.rules) if rule in rules], dtype=np.intp)
        t = np.array([i for i, task in enumerate(self.tasks) if task in tasks], dtype=np.intp)
        return Scores(
            tuple(self.rules[i] for i in r),
            tuple(self.tasks[i] for i in t),
            self.seeds,
            self.values[r][:, t],
            self.status[r][:, t],
            self.chance,
            reference,
        )


@dataclass(frozen=True)
class Counts:
    """How many of the planned runs ended in which way; ``str()`` is the coverage, e.g. ``"4/5"``."""

    finished: int
    failed: int
    missing: int
    skipped: int

    @property
    def planned(self) -> int:
        """All of them."""
        return self.finished + self.failed + self.missing + self.skipped

    def __str__(self) -> str:
        return f"{self.finished}/{self.planned}"


@dataclass(frozen=True, eq=False)
class View:
    """Scores in alphabetical order, so that no statistic can depend on the order of rules, tasks or seeds.

    Attributes:
        rules: names, sorted.
        tasks: names, sorted.
        seeds: sorted.
        status: ``(R, T, S)``.
        values: ``(R, T, S)``, NaN where the failure policy leaves no value.
        normalised: the same between chance and reference, NaN also on tasks that cannot be normalised.
        plan: ``(T, S)``, the runs that a ranked rule must have.
        reference: index of the reference rule, if it has runs.
        left_out: task → why it cannot be normalised.
    """

    rules: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    status: NDArray[np.str_]
    values: Floats
    normalised: Floats
    plan: NDArray[np.bool_]
    reference: int | None
    left_out: Mapping[str, str]

    @property
    def planned(self) -> list[int]:
        """The tasks of the plan."""
        return [t for t, seeds in enumerate(self.plan) if seeds.any()]

    @property
    def scaled(self) -> list[int]:
        """The tasks that can be normalised."""
        return [t for t, task in enumerate(self.tasks) if task not in self.left_out]

    @property
    def ranked(self) -> list[int]:
        """The rules that have all they need to be ranked."""
        return [r for r in range(len(self.rules)) if not self.gap(r)]

    def runs(self, r: int, t: int, *, normalised: bool = False) -> Floats:
        """The planned runs of a rule on a task that have a value, in the order of seeds."""
        x = (self.normalised if normalised else self.values)[r, t, self.plan[t]]
        return np.asarray(x[~np.isnan(x)])

    def counts(self, r: int, t: int | None = None) -> Counts:
        """What became of the planned runs of a rule; on one task, counts its runs beyond the plan too."""
        if t is None:
            return _count(self.status[r][self.plan])
        return _count(self.status[r, t][self.plan[t] | _ran(self.status[r, t])])

    def gap(self, r: int) -> str:
        """Why a rule is not ranked; empty if it is."""
        counts = self.counts(r)
        lacks = [f"{n} {word}" for n, word in ((counts.missing, "missing"), (counts.skipped, "skipped")) if n]
        if lacks:
            return f"{' and '.join(lacks)} of {counts.planned} planned runs"
        without = [self.tasks[t] for t in self.planned if not self.runs(r, t).size]
        return f"no finished run on {', '.join(without)}" if without else "" if counts.planned else "no runs"


def view(scores: Scores, failures: Failures) -> View:
    """Sort the scores, apply the failure policy, find plan and scale.

    Raises:
        ValueError: if the policy is unknown.
    """
    if failures not in get_args(Failures):
        raise ValueError(f"failures must be one of {get_args(Failures)}, got {failures!r}")
    order = [sorted(range(len(n)), key=n.__getitem__) for n in (scores.rules, scores.tasks, scores.seeds)]
    rules = tuple(scores.rules[r] for r in order[0])
    tasks = tuple(scores.tasks[t] for t in order[1])
    seeds = tuple(int(scores.seeds[s]) for s in order[2])
    status = scores.status[np.ix_(*order)]
    values = np.where(status == "finished", scores.values[np.ix_(*order)], np.nan)
    chance = np.array([scores.chance[task] for task in tasks], dtype=np.float64)[:, None]
    ran = _ran(status)
    reference = rules.index(scores.reference) if scores.reference in rules else None
    if reference is not None and not ran[reference].any():
        reference = None
    plan = np.any(ran, axis=0) if reference is None else ran[reference]
    top = np.full(values.shape[1:], np.nan) if reference is None else values[reference]
    units = [_unit(scores.reference or "a reference", *pair) for pair in zip(top, chance[:, 0], strict=True)]
    left_out = {task: unit for task, unit in zip(tasks, units, strict=True) if isinstance(unit, str)}
    scale = np.array([np.nan if isinstance(unit, str) else unit for unit in units])[:, None]
    if failures == "chance":
        values = np.where(status == "failed", chance, values)
    return View(rules, tasks, seeds, status, values, (values - chance) / scale, plan, reference, left_out)


def _unit(reference: str, scores: Floats, chance: float) -> float | str:
    """How far the reference's scores on a task, NaN if not finished, are above chance; or why it is no unit.

    Only finished runs are asked: a failure of the reference must not make everyone else look better.
    """
    finished = scores[~np.isnan(scores)]
    if not finished.size:
        return f"{reference} has no finished run"
    mean = float(finished.mean())
    if mean - chance <= 1e-9 * max(1.0, abs(chance)):  # rounding is not a unit
        return f"{reference} scores {mean:.4g}, which is not above chance ({chance:.4g})"
    return mean - chance


def _ran(status: NDArray[np.str_]) -> NDArray[np.bool_]:
    return np.isin(status, ("finished", "failed"))


def _count(status: NDArray[np.str_]) -> Counts:
    return Counts(*(int((status == word).sum()) for word in get_args(Status)))


@dataclass(frozen=True)
class Standing:
    """Where a rule stands, without an interval.

    Attributes:
        rule: its name.
        score: interquartile mean of its normalised runs, of those that it has; ``None`` if it has none.
        gap: why it is not ranked; empty if it is.
    """

    rule: str
    score: float | None
    gap: str


def standings(scores: Scores, failures: Failures = "chance") -> list[Standing]:
    """Ranked rules from the best to the worst, then the others: the order of `rulezoo.leaderboard.stats.summarise`.

    It goes by the interquartile mean, or by the mean rank if no task can be normalised; rules that are not
    ranked stand by the former, those without it by name. Nothing is resampled here, and scipy, which takes a
    second to import, is not needed.
    """
    seen = view(scores, failures)
    found = {}
    for r, rule in enumerate(seen.rules):
        pooled = np.concatenate(
            [np.empty(0), *(seen.runs(r, t, normalised=True) for t in range(len(seen.tasks)))]
        )
        found[r] = Standing(rule, float(iqm(pooled)) if pooled.size else None, seen.gap(r))
    ranked = seen.ranked
    if seen.scaled:
        by = {r: -(found[r].score or 0.0) for r in ranked}
    else:
        means = np.array([[seen.runs(r, t).mean() for t in seen.planned] for r in ranked])
        by = dict(zip(ranked, ranks(-means).mean(axis=1) if ranked else [], strict=True))
    place = {r: round(value, 12) for r, value in by.items()}  # as `ranks` does
    return [found[r] for r in sorted(found, key=lambda r: _standing_order(found[r], place.get(r)))]


def _standing_order(standing: Standing, place: float | None) -> tuple[bool, float, str]:
    last = math.inf if standing.score is None else -standing.score
    return place is None, last if place is None else place, standing.rule


def iqm(x: Floats) -> Floats:
    """Interquartile mean along the last axis: a quarter of the values is cut off at each end, rounded down."""
    cut = x.shape[-1] // 4
    return np.asarray(np.sort(x, axis=-1)[..., cut : x.shape[-1] - cut].mean(axis=-1))


def ranks(x: Floats) -> Floats:
    """Ranks along the first axis, 1 = smallest; equal values share the middle rank."""
    # The same scores in another order of seeds have means that differ in the last digit: that is a tie.
    y = np.round(x, 12)
    smaller = (y[None] < y[:, None]).sum(axis=1)
    return np.asarray(smaller + ((y[None] == y[:, None]).sum(axis=1) + 1) / 2)
