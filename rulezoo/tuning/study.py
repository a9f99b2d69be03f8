"""How a tuning goes: N trials of one rule on one task, and the one with the best validation score.

Trials come in rounds of `rulezoo.tuning.sampler.ROUND`, which run side by side. Each round is derived from the records
of the rounds before, so that the same command resumes where it was stopped and a larger N continues a smaller one.
The first trial is the author's default. Trials have seeds of their own and never read the test data. From the second
round on, a trial is given up that is hopeless after half of its epochs: its score is below the lower quartile of the
trials so far. It counts as one of the N, and so does one that fails; neither can win. What counts is the bar that
follows from the trials as they are now: where a trial before it was killed at the time and has been run again since, a
trial that was given up by another bar is run to its end, and one that was not, and should have been, cannot win.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from rulezoo.comparison.plan import Cell, plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.registry import Registry
from rulezoo.errors import UserError
from rulezoo.options import Value, as_text
from rulezoo.results.records import Record, Status
from rulezoo.results.store import Store
from rulezoo.seeding import number
from rulezoo.training.protocol import Trial
from rulezoo.tuning import records, sampler
from rulezoo.tuning.records import Tried, Tuned
from rulezoo.tuning.sampler import ROUND, Past
from rulezoo.tuning.space import space, values

FIRST_SEED = 1000  #: seeds from here on are those of trials
SEEDS = (FIRST_SEED, FIRST_SEED + 1)

Run = Callable[[Sequence[Cell], Store], None]
"""``run(cells, store)`` runs what the store does not hold yet."""


@dataclass(frozen=True)
class Study:
    """The tuning of one rule on one task, so far.

    Attributes:
        cell: what is tuned, with the options that the user chose.
        done: its trials with what came of them, oldest first.
    """

    cell: Cell
    done: tuple[tuple[Cell, Tried], ...] = ()

    @property
    def name(self) -> str:
        """16 hexadecimal digits that name what is tuned."""
        asked = msgspec.structs.replace(self.cell.asked[0], seed=FIRST_SEED)
        return hashlib.sha256("/".join([asked.key, *sorted(self.cell.rule_words)]).encode()).hexdigest()[:16]

    @property
    def bar(self) -> float | None:
        """The score after half of the epochs below which a trial is given up."""
        seen = [tried.halfway for _, tried in self.done if tried.halfway is not None]
        return statistics.quantiles(seen, n=4, method="inclusive")[0] if len(seen) > 1 else None

    def next_round(self, registry: Registry, n: int) -> list[Cell]:
        """The trials to run now, of ``n`` in all."""
        count = min(ROUND, n - len(self.done))
        proposed: list[dict[str, Value]] = [] if self.done else [{}]
        past = [Past(values(trial), tried) for trial, tried in self.done]
        seed = number(len(self.done), "tuning", self.name)
        proposed += sampler.propose(space(self.cell), past, count - len(proposed), seed)
        trial = Trial(after=self.cell.budget.epochs // 2, bar=self.bar)
        request = self.cell.request.of_trial(SEEDS)
        return [replace(with_options(self.cell, one, request, registry), trial=trial) for one in proposed]

    def conclusion(self, n: int) -> Tuned:
        """The winner, and what it won against."""
        tried = [one for _, one in self.done]
        best = max(range(len(tried)), key=lambda place: _rank(tried[place]))
        given = {
            name: value for name, value in self.cell.rule.resolved().items() if name in self.cell.rule_words
        }
        return Tuned(
            asked=self.done[best][0].asked[0],
            given=given,
            n=n,
            trials=tried,
            best=best,
            seeds=list(SEEDS),
            sampler=sampler.name(),
        )


def tune(
    cells: Sequence[Cell],
    n: int,
    registry: Registry,
    store: Store,
    run: Run,
    begin: Callable[[int, int], None] = lambda first, last: None,
) -> list[Tuned]:
    """Tune every rule on every task of a plan with ``n`` trials each, and keep the conclusions.

    Args:
        cells: the plan; its seeds are for the evaluation.
        n: trials of each.
        registry: the rules and tasks there are.
        store: of results.
        run: carries out the trials.
        begin: told of each round the first and the last of its trials, counted from 1.

    Raises:
        UserError: if a seed of the plan is one of the trials', or a trial has no result.
        StoreError: if a conclusion cannot be written.
    """
    _check_seeds(cells)
    studies, trials = [Study(cell) for cell in cells], records.trials_of(store)
    for done in range(0, n, ROUND):
        begin(done + 1, min(done + ROUND, n))
        rounds = [study.next_round(registry, n) for study in studies]
        _set_aside_misjudged([cell for one in rounds for cell in one], trials)
        run(distinct(cell for one in rounds for cell in one), trials)
        studies = [
            replace(study, done=(*study.done, *((cell, tried(cell, study.cell, trials)) for cell in one)))
            for study, one in zip(studies, rounds, strict=True)
        ]
    tuned = [study.conclusion(n) for study in studies]
    for study, one in zip(studies, tuned, strict=True):
        records.put(store, study.name, one)
    return tuned


def _set_aside_misjudged(cells: Sequence[Cell], store: Store) -> None:
    """Have the runs done again that were given up by a bar that is no longer theirs."""
    for cell in cells:
        for asked in cell.asked:
            record = store.get(asked)
            if record is not None and record.status == "pruned" and not _below(cell.trial, record):
                store.set_aside(asked)


def _below(trial: Trial | None, run: Record) -> bool:
    """Whether a run of a trial was hopeless after half of its epochs."""
    if trial is None or trial.bar is None:
        return False
    reached = _validation_after(run, trial.after)
    return reached is not None and reached < trial.bar


def winners(cells: Sequence[Cell], tuned: Sequence[Tuned], registry: Registry) -> list[Cell]:
    """The plan with the options that won, in the order of the plan."""
    return [
        with_options(cell, one.winner.set, cell.request, registry)
        for cell, one in zip(cells, tuned, strict=True)
    ]


def with_options(cell: Cell, chosen: Mapping[str, Value], request: Request, registry: Registry) -> Cell:
    """The same cell for another request, with more options of the rule set."""
    words = {**cell.rule_words, **{name: as_text(value) for name, value in chosen.items()}}
    (made,) = plan(registry, request.of_cell(cell.rule_name, words, cell.task_name, cell.task_words))
    return made


def distinct(cells: Iterable[Cell]) -> list[Cell]:
    """The cells with each question once."""
    made: list[Cell] = []
    known: set[str] = set()
    for cell in cells:
        asked = tuple(one for one in cell.asked if one.key not in known)
        known |= {one.key for one in asked}
        made += [replace(cell, asked=asked)] if asked else []
    return made


def tried(trial: Cell, base: Cell, store: Store) -> Tried:
    """What came of a trial of the study of ``base``, read from its records.

    Raises:
        UserError: if a run has no result.
    """
    runs = [_result(trial, store, place) for place in range(len(trial.asked))]
    statuses: list[Status] = [
        "pruned" if run.status == "ok" and _below(trial.trial, run) else run.status for run in runs
    ]
    scores = [run.scores.get("validation") for run in runs]
    halves = [_validation_after(run, trial.trial.after if trial.trial else 0) for run in runs]
    resolved = trial.rule.resolved()
    return Tried(
        set={name: resolved[name] for name in trial.rule_words if name not in base.rule_words},
        runs=[asked.key for asked in trial.asked],
        status=max(statuses, key=_gravity),
        validation=_mean(scores) if set(statuses) == {"ok"} else None,
        halfway=_mean(halves),
    )


def _result(trial: Cell, store: Store, place: int) -> Record:
    asked = trial.asked[place]
    record = store.get(asked)
    if record is None or record.status == "interrupted":
        raise UserError(
            f"the tuning of {asked.rule} on {asked.task} is not complete: seed {asked.seed} of a trial has no result; "
            "run the same command again"
        )
    return record


def _validation_after(run: Record, epoch: int) -> float | None:
    return next((point.validation for point in run.curve if point.epoch == epoch), None)


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if len(known) == len(scores) else None


def _gravity(status: Status) -> int:
    """A trial ended as its worst run did."""
    return {"ok": 0, "pruned": 1}.get(status, 2)


def _rank(tried: Tried) -> float:
    return -math.inf if tried.validation is None else tried.validation


def _check_seeds(cells: Sequence[Cell]) -> None:
    reserved = sorted({asked.seed for cell in cells for asked in cell.asked if asked.seed >= FIRST_SEED})
    if reserved:
        raise UserError(
            f"--seeds: seeds from {FIRST_SEED} on are reserved for the trials of a tuning, got {reserved[0]}; with "
            f"tuning, choose seeds from 0 to {FIRST_SEED - 1}"
        )
