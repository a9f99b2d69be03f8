"""A SLURM cluster: a comparison is an array of jobs, submitted by submitit.

Each job works on its node and writes its records into the store, which all nodes share. This process only watches: it
says how far they are, and records how those ended that cannot speak any more. A job that is pre-empted, requeued or out
of time is done again by SLURM, and resumes from what it left behind; so does one whose seeds were together more than
its memory holds, in halves.
"""

from __future__ import annotations

import io
import pickle
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rulezoo.comparison.executor import Unreachable
from rulezoo.comparison.jobs import Job, failures, halve
from rulezoo.executors import slurm_queue as queue
from rulezoo.executors.slurm_task import Task
from rulezoo.results import journal
from rulezoo.results.leases import forget, is_held, leases
from rulezoo.results.store import Store, StoreError
from rulezoo.text import SENTENCE, bounded

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Listener
    from rulezoo.executors.attempt import Failure
    from rulezoo.executors.slurm_request import Request

_COMMANDS = ("sbatch", "srun", "squeue", "scancel")
_FOLDER = ".slurm"  # in the store: what submitit keeps, and a mark for each comparison under way
_MARK = ".mark"
_LARGEST = 1 << 20  # bytes of what a job's process leaves as its result
_NAME = re.compile(r"rulezoo-[0-9a-f]{8}")  # of the jobs of a comparison, and of its mark
_ARRAY = 1000  # jobs in an array; SLURM's own limit, unless a site has changed it, is 1001


@dataclass
class _Submitted:
    job: Job
    handle: Any  # submitit's
    started: datetime | None = None
    seems_over: bool = False
    keys: frozenset[str] = field(default_factory=frozenset)  # of its runs, once it has started


@dataclass(frozen=True)
class Slurm:
    """Runs jobs on a SLURM cluster.

    Attributes:
        request: what each job asks SLURM for.
        jobs: how many at a time; ``None`` = SLURM decides.
        poll: seconds between looks at the queue.
    """

    request: Request
    jobs: int | None = None
    poll: float = 5.0

    def run(self, jobs: Sequence[Job], listener: Listener) -> None:
        """See `rulezoo.comparison.executor.Executor`."""
        _check_commands()
        underway: list[_Submitted] = []
        with _named(Store(jobs[0].store)) as name, _cancelled(name, underway):
            for begin in range(0, len(jobs), _ARRAY):
                underway += self._submit(jobs[begin : begin + _ARRAY], name)
            last_contact = time.monotonic()
            while underway:
                time.sleep(self.poll)
                try:
                    states = queue.states(name)
                except Unreachable:
                    if time.monotonic() - last_contact > queue.PATIENCE:
                        raise
                else:
                    last_contact = time.monotonic()
                    for one in _poll(underway, states, listener):
                        (again,) = self._submit([one.job], name)
                        underway.append(replace(again, started=one.started, keys=one.keys))

    def _submit(self, jobs: Sequence[Job], name: str) -> list[_Submitted]:
        """Submit jobs as one array."""
        import submitit

        try:
            with redirect_stderr(io.StringIO()):  # submitit repeats there what it raises
                executor = submitit.SlurmExecutor(
                    jobs[0].store / _FOLDER,
                    max_num_timeout=1_000_000,
                    python=f"{shlex.quote(sys.executable)} -P",
                )
                executor.update_parameters(job_name=name, **self.request.parameters(self.jobs))
                handles = executor.map_array(Task.first(self.request), jobs)
        except OSError as error:
            raise StoreError(f"cannot write into {jobs[0].store / _FOLDER}: {error}") from error
        except submitit.core.utils.FailedJobError as error:
            raise Unreachable(f"SLURM did not take the jobs; `sbatch` said: {error}") from error
        return [_Submitted(job, handle) for job, handle in zip(jobs, handles, strict=True)]


def _check_commands() -> None:
    if missing := [command for command in _COMMANDS if shutil.which(command) is None]:
        raise Unreachable(
            f"--executor slurm: this machine has no {' and no '.join(missing)}; "
            "run rulezoo where jobs are submitted, a login node"
        )


def _poll(
    underway: list[_Submitted], states: Mapping[str, queue.State], listener: Listener
) -> list[_Submitted]:
    """Report starts, progress and ends; return the jobs to submit again with half as many seeds."""
    to_divide = []
    notes = _notes(underway)
    for one in list(underway):
        state = states.get(one.handle.job_id)
        over = state is None or state.word in queue.ENDED
        if one.started is None and (over or (state and state.word == "RUNNING")):
            _begin(one, listener)
        if note := next((notes[key] for key in one.keys if key in notes), None):
            listener.progressed(one.job, note.step, note.total)
        # Twice in a row: a job that is requeued may look like a dead one for a moment, and what its node wrote may take
        # a while to be seen here.
        if over and (one.seems_over or one.handle.paths.result_pickle.exists()):
            underway.remove(one)
            failure = _reported_failure(one) or queue.exit_reason(state, one.handle.paths.stderr)
            if failure[0] == "oom_host" and halve(one.job):
                to_divide.append(one)
            else:
                _reap(one, failure, listener)
        one.seems_over = over
    return to_divide


def _begin(one: _Submitted, listener: Listener) -> None:
    one.started = datetime.now(UTC)
    one.keys = frozenset(asked.key for asked in one.job.cell().asked)
    listener.started(one.job)


def _notes(underway: Sequence[_Submitted]) -> dict[str, journal.Training]:
    """Progress of the runs that have started: key of a run → what its node noted in the store."""
    if not any(one.keys for one in underway):
        return {}
    trainings = journal.trainings(Store(underway[0].job.store))
    return {asked.key: note for note in trainings if note.total for asked in note.asked}


def _reap(one: _Submitted, failure: Failure, listener: Listener) -> None:
    (status, cause), log = failure, one.handle.paths.stderr.name
    assert one.started is not None  # who is over has begun
    listener.finished(one.job, failures(one.job, status, f"{cause}; its log: {_FOLDER}/{log}", one.started))


def _reported_failure(one: _Submitted) -> Failure | None:
    """What the job's process said at its end, if it did and that was not well."""
    path: Path = one.handle.paths.result_pickle
    if not path.exists():
        return None
    try:
        outcome, said = _plain(path)
    except (OSError, EOFError, ValueError, TypeError, pickle.UnpicklingError, IndexError, KeyError) as error:
        return "error", f"what its process left as its result is none: {error}"
    if outcome != "success":
        lines = [line for line in str(said).splitlines() if line.strip()]
        return "error", f"its process could not begin: {bounded(lines[-1] if lines else '', SENTENCE)}"
    if said:  # results cannot be stored, as it says; then no job can be done
        Store(one.job.store).check_writable()
        return "error", bounded(str(said), SENTENCE)
    return None


class _Plain(pickle.Unpickler):
    """Reads strings and tuples, and calls nothing: foreign code may have written the file."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _plain(path: Path) -> tuple[Any, Any]:
    """The two things that submitit keeps of a job's end: whether it went well, and what came back or the traceback."""
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST} bytes")
    outcome, said = _Plain(io.BytesIO(content)).load()
    return outcome, said


@contextmanager
def _named(store: Store) -> Iterator[str]:
    """A name for the jobs of this comparison, and its mark in the store for as long as the block lasts.

    A mark that nobody holds is that of a comparison that was killed. Its jobs are cancelled: this one does them again,
    from where they are, and nobody would hear of those.
    """
    folder, name = store.folder(_FOLDER), f"rulezoo-{uuid.uuid4().hex[:8]}"
    for left in folder.glob(f"*{_MARK}"):
        if _NAME.fullmatch(left.stem) and not is_held(store, left.stem) and queue.cancel(left.stem):
            left.unlink(missing_ok=True)
            forget(store, [left.stem])
    mark = (folder / name).with_suffix(_MARK)
    with leases(store, [name]):
        try:
            mark.touch()
        except OSError as error:
            raise StoreError(f"cannot write into {folder}: {error}") from error
        yield name
        mark.unlink(missing_ok=True)  # not after an interrupt, which SLURM may not have heard
        forget(store, [name])


@contextmanager
def _cancelled(name: str, underway: list[_Submitted]) -> Iterator[None]:
    """However the block is left, no job outlives it; a run that was under way is marked as interrupted."""
    try:
        yield
    finally:
        if underway:
            queue.cancel(name)
        with suppress(StoreError):  # a run that cannot be marked has no record, which comes to the same
            for one in underway:
                if one.started is not None:
                    failures(one.job, "interrupted", "the comparison was interrupted", one.started)
