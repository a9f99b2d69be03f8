"""A job: one cell of a plan in words and numbers, so that any process on any machine can do it.

Whoever does it finds the rule and the task by their names, trains, and writes the records into the store itself, so
that a result exists the moment it can.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from rulezoo.comparison.grids import single
from rulezoo.comparison.plan import Cell, plan
from rulezoo.comparison.recording import code_of, kept_files, of_failure, of_outcome
from rulezoo.comparison.request import Request
from rulezoo.discovery.fingerprint import core
from rulezoo.discovery.plugins import FILES
from rulezoo.results import groups, journal
from rulezoo.results.leases import forget, leases
from rulezoo.results.records import Record, RunSpec, Status
from rulezoo.results.store import Store
from rulezoo.training.checkpoints import CheckpointFiles, Checkpoints, clear
from rulezoo.training.outcome import Outcome
from rulezoo.training.protocol import Trial

ReportProgress = Callable[[int, int], None]
"""``report_progress(steps done, steps in all)``; first with ``(0, 0)``, when the work begins: it may have had to wait."""

CHECKPOINTS = ".checkpoints"  #: folder of the checkpoints in a store
_BROKEN_OFF = frozenset({"timeout", "killed", "crashed", "oom_host", "oom_gpu"})


@dataclass(frozen=True)
class Job:
    """What to do, in words and numbers only.

    Attributes:
        request: what is asked of one rule on one task, with the seeds to train together.
        store: folder of results.
        trial: set where the runs are trials of a tuning.
        plugins: plugin files, joined like those of ``$RULEZOO_PLUGINS``: other machines do not have this environment.
    """

    request: Request
    store: Path
    trial: Trial | None = None
    plugins: str = field(default_factory=lambda: os.environ.get(FILES, ""))

    @property
    def rule(self) -> str:
        """Name of the rule."""
        (name,) = self.request.rules
        return name

    @property
    def task(self) -> str:
        """Name of the task."""
        (name,) = self.request.tasks
        return name

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds to train together."""
        return self.request.seeds

    @property
    def rule_options(self) -> Mapping[str, str]:
        """The rule's options as the user wrote them."""
        return single(self.request.options.get(self.rule, {}))

    @property
    def task_options(self) -> Mapping[str, str]:
        """The task's options as the user wrote them."""
        return single(self.request.options.get(self.task, {}))

    def cell(self) -> Cell:
        """The cell that the request stands for."""
        from rulezoo.discovery.registry import discover

        files = [Path(text) for text in self.plugins.split(os.pathsep) if text]
        (cell,) = plan(discover(files), self.request)
        return cell


def work(
    job: Job, report_progress: ReportProgress = lambda done, total: None, cell: Cell | None = None
) -> list[Record]:
    """Do a job in this process, and store each record as soon as there is one.

    Where another process is at work on one of its runs, it waits; what is stored by then is not run again.

    Args:
        job: the job.
        report_progress: called with the number of steps done and of all steps.
        cell: what `Job.cell` gives, if it is known already.

    Returns:
        the record of each seed.

    Raises:
        StoreError: if they cannot be stored.
        DataMissing: if the task's data are not there.
    """
    import torch

    if job.request.threads is not None:
        torch.set_num_threads(job.request.threads)
    cell, store = cell or job.cell(), Store(job.store)
    keys = [asked.key for asked in cell.asked]
    with leases(store, keys):
        report_progress(0, 0)
        todo = [asked for asked in cell.asked if not is_done(store.get(asked), job.request)]
        if todo:
            _train(job, cell, store, todo, report_progress)
        tidy(store, cell.asked, job.request)
    return [record for asked in cell.asked if (record := store.get(asked))]


def _train(
    job: Job, cell: Cell, store: Store, todo: Sequence[RunSpec], report_progress: ReportProgress
) -> None:
    from rulezoo.training import allocator

    allocator.prepare()
    with journal.training(store, groups.name(todo[0], [asked.seed for asked in todo]), todo) as note:

        def report_both(done: int, total: int) -> None:
            note(done, total)
            report_progress(done, total)

        request = _keeping(job.request, filter(None, map(store.get, todo)))
        for record, outcome in outcomes(cell, request, todo, report_both, _checkpoints(job, cell), job.trial):
            store.put(record, kept_files(record, outcome))


def outcomes(
    cell: Cell,
    request: Request,
    todo: Sequence[RunSpec],
    report_progress: ReportProgress,
    checkpoints: Checkpoints | None = None,
    trial: Trial | None = None,
) -> Iterator[tuple[Record, Outcome]]:
    """Train runs of a cell in this process; the record and the outcome of each as soon as there is one.

    Args:
        cell: the cell.
        request: what is asked of it; weights and memory are handed over where they are to be kept.
        todo: the runs.
        report_progress: called with the number of steps done, and of all steps.
        checkpoints: where states are kept, if they are.
        trial: set where the runs are trials of a tuning.

    Raises:
        DataMissing: if the task's data are not there.
    """
    import torch

    from rulezoo.comparison import contract
    from rulezoo.training import runner
    from rulezoo.training.run import RunRequest

    # Or convolutions on a GPU would have ten bits, and be called float32.
    torch.backends.cudnn.allow_tf32 = False
    started, missing = datetime.now(UTC), {asked.seed: asked for asked in todo}
    data = cell.task.data(request.data)
    digest = contract.digest(data)  # of the very tensors that are trained on
    found = runner.run(
        RunRequest(
            cell.rule,
            cell.task,
            list(missing),
            cell.budget,
            data,
            torch.device(request.device),
            progress=report_progress,
            probes=request.probes,
            trial=trial,
            checkpoints=checkpoints or Checkpoints(),
            compiled=request.compiled,
            keep_weights=request.keep_weights,
            keep_memory=request.keep_memory,
        )
    )
    with torch.autocast(request.device, torch.bfloat16, enabled=request.precision == "bfloat16"):
        for seed, outcome in found:
            yield of_outcome(cell, missing[seed], outcome, started, digest), outcome


def _keeping(request: Request, old: Iterable[Record]) -> Request:
    """The request with what is kept of the records that its runs replace, too."""
    old = list(old)
    return replace(
        request,
        keep_weights=request.keep_weights or any(record.weights for record in old),
        keep_memory=request.keep_memory or any(record.memory for record in old),
    )


def _checkpoints(job: Job, cell: Cell) -> CheckpointFiles:
    import torch

    made_by = {
        "code of the rule": str(code_of(cell.rule_module)),
        "code of the task": str(code_of(cell.task_module)),
        "code of rulezoo": core(),
        "version of torch": str(torch.__version__),
        "number of probes": str(job.request.probes),
        "trial": str(job.trial),
        "compilation": str(job.request.compiled),
    }
    folder = job.store / CHECKPOINTS
    return CheckpointFiles(folder, cell.asked[0], made_by, job.request.checkpoint, job.request.device, _say)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # kept in the run's log


def halve(job: Job) -> bool:
    """Have the group of seeds that a job was training go on in two halves, for it was more than the memory holds.

    Returns:
        whether it can: a seed alone cannot be divided. Then the same job is to be done again.
    """
    from rulezoo.training.runner import halves

    cell, store = job.cell(), Store(job.store)
    checkpoints = _checkpoints(job, cell)
    seeds = tuple(asked.seed for asked in cell.asked if not is_done(store.get(asked), job.request))
    while seeds and (parts := checkpoints.divided(seeds)):
        missing = {asked.seed for asked in cell.asked if not is_done(store.get(asked), job.request)}
        seeds = next((part for part in parts if missing & set(part)), ())
    if len(seeds) < 2 or not cell.rule.vmappable:
        return False
    checkpoints.divide(seeds, halves(seeds))
    return checkpoints.divided(seeds) is not None


def tidy(store: Store, asked: Sequence[RunSpec], request: Request) -> None:
    """Delete what is of no use to runs that are done: their checkpoints, and the files that were locked for them.

    A run that was interrupted keeps its checkpoint: with more time or memory it may be asked to go on.

    Whoever did the runs does so himself, unless he was killed between his last record and his end.
    """
    done = {one.key for one in asked if is_done(store.get(one), request)}
    forget(store, done)
    folder = store.root / CHECKPOINTS
    for cell in {groups.cell_key(one): one for one in asked}.values() if folder.is_dir() else ():

        def settled(seed: int, cell: RunSpec = cell) -> bool:
            record = store.get(msgspec.structs.replace(cell, seed=seed))
            return is_done(record, request) and record is not None and record.status not in _BROKEN_OFF

        clear(folder, cell, settled)


def is_done(record: Record | None, request: Request) -> bool:
    """Whether a run does not have to be run: it has a record, was not interrupted, and holds what is asked for.

    Probes and what is kept change no number of a run and are no part of its identity. A run that went well but was
    probed at fewer points than are asked for, or whose weights or memory are asked for and were not kept, is run again,
    and the same numbers with more of them replace the old record.
    """
    if record is None or record.status == "interrupted":
        return False
    if record.status != "ok":
        return True
    last = record.curve[-1].step if record.curve else 0
    kept = (record.weights or not request.keep_weights) and (record.memory or not request.keep_memory)
    return bool(kept) and len(record.probes) >= min(request.probes, last + 1)


def failures(job: Job, status: Status, reason: str, started: datetime) -> list[Record]:
    """Store, for every seed of a job whose process cannot speak any more, how it ended; what it stored stays.

    Args:
        job: the job.
        status: how it ended.
        reason: a sentence.
        started: when it began.
    """
    cell, store = job.cell(), Store(job.store)
    together = len(job.seeds) if cell.rule.vmappable else 1
    records = []
    for asked in cell.asked:
        record = store.put_back(asked) if status == "interrupted" else store.get(asked)
        if record is None or record.status == "interrupted":
            record = of_failure(cell, asked, status, reason, started, together)
            store.put(record)
        records.append(record)
    journal.sweep(store, cell.asked)
    tidy(store, cell.asked, job.request)
    return records
