"""A SLURM cluster: a comparison is an array of jobs, submitted by submitit.

Each job works on its node and writes its records into the store, which all nodes share. This process only watches: it
says what begins and ends, and records how those ended that cannot speak any more. A job that is pre-empted, requeued or
out of time is done again by SLURM, and goes on from what it left behind.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rulezoo.comparison.executor import Unreachable
from rulezoo.comparison.jobs import Job, failures
from rulezoo.executors.slurm_task import Task
from rulezoo.results.store import StoreError

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Listener
    from rulezoo.executors.attempt import Failure
    from rulezoo.executors.slurm_request import Request
    from rulezoo.results.records import Status

_COMMANDS = ("sbatch", "srun", "squeue", "scancel")
_ARRAY = 1000  # jobs in an array; SLURM's own limit, unless a site has changed it, is 1001
_PATIENCE = 600.0  # seconds for which SLURM may not answer while its jobs go on
_COLUMNS = "JobArrayID:|,State:|,exit_code:|"
_ENDED: Mapping[str, Status] = {  # SLURM's words for what is over; everything else may still become something
    "COMPLETED": "crashed",  # without a word
    "FAILED": "crashed",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "oom_host",
    "NODE_FAIL": "killed",
    "BOOT_FAIL": "killed",
    "CANCELLED": "killed",
    "PREEMPTED": "killed",
    "REVOKED": "killed",
}


@dataclass(frozen=True)
class _State:
    """What SLURM knows of a job: its word for it, and the status that the job's script ended with, as wait(2) has it."""

    word: str
    code: int


@dataclass
class _Submitted:
    job: Job
    handle: Any  # submitit's
    started: datetime | None = None
    seems_over: bool = False


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
        underway: list[_Submitted] = []
        with _cancelled(underway):
            for begin in range(0, len(jobs), _ARRAY):
                underway += self._submit(jobs[begin : begin + _ARRAY])
            heard = time.monotonic()
            while underway:
                time.sleep(self.poll)
                try:
                    states = _states(underway)
                except Unreachable:
                    if time.monotonic() - heard > _PATIENCE:
                        raise
                else:
                    heard = time.monotonic()
                    _attend(underway, states, listener)

    def _submit(self, jobs: Sequence[Job]) -> list[_Submitted]:
        """Submit jobs as one array."""
        import submitit

        if missing := [command for command in _COMMANDS if shutil.which(command) is None]:
            raise Unreachable(
                f"--executor slurm: this machine has no {' and no '.join(missing)}; "
                "run rulezoo where jobs are submitted, a login node"
            )
        try:
            with redirect_stderr(io.StringIO()):  # submitit repeats there what it raises
                executor = submitit.SlurmExecutor(jobs[0].store / ".slurm", max_num_timeout=1_000_000)
                executor.update_parameters(**self.request.parameters(self.jobs))
                handles = executor.map_array(Task.first(self.request), jobs)
        except OSError as error:
            raise StoreError(f"cannot write into {jobs[0].store / '.slurm'}: {error}") from error
        except submitit.core.utils.FailedJobError as error:
            raise Unreachable(f"SLURM did not take the jobs; `sbatch` said: {error}") from error
        return [_Submitted(job, handle) for job, handle in zip(jobs, handles, strict=True)]


def _attend(underway: list[_Submitted], states: Mapping[str, _State], listener: Listener) -> None:
    for one in list(underway):
        state = states.get(one.handle.job_id)
        over = state is None or state.word in _ENDED
        if one.started is None and (over or (state and state.word == "RUNNING")):
            one.started = datetime.now(UTC)
            listener.started(one.job)
        # Twice in a row: a job that is requeued may look like a dead one for a moment, and what its node wrote may take
        # a while to be seen here.
        if over and (one.seems_over or one.handle.paths.result_pickle.exists()):
            underway.remove(one)
            _bury(one, state, listener)
        one.seems_over = over


def _bury(one: _Submitted, state: _State | None, listener: Listener) -> None:
    status, cause = _told(one) or _cause_of_death(state)
    log = one.handle.paths.stderr.name
    assert one.started is not None  # who is over has begun
    listener.finished(one.job, failures(one.job, status, f"{cause}; its log: .slurm/{log}", one.started))


def _told(one: _Submitted) -> Failure | None:
    """What the job's process said at its end, if it did and that was not well."""
    if not one.handle.paths.result_pickle.exists():
        return None
    if error := one.handle.exception():
        lines = [
            line
            for line in str(error).splitlines()
            if line and not line.startswith(("---", "You can", "  - "))
        ]
        return "error", f"its process could not begin: {lines[-1]}"
    if trouble := one.handle.result():  # then no job can be done
        raise StoreError(trouble)
    return None


def _cause_of_death(state: _State | None) -> Failure:
    if state is None:
        return "killed", "SLURM does not know its job any more"
    status, code = _ENDED[state.word], state.code >> 8
    if status == "crashed" and code > 128:  # as shells say it
        return "killed", f"its process was ended by signal {code - 128}"
    if status == "crashed":
        return "crashed", f"its process ended without a word, with exit code {code}"
    return status, f"SLURM ended its job: {state.word}"


def _states(underway: Iterable[_Submitted]) -> dict[str, _State]:
    """What SLURM knows of the jobs: number → state. It soon forgets those that are over."""
    numbers = ",".join(_arrays(underway))
    # Not `sacct`, which submitit would ask: it needs a data base that not every cluster has.
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={numbers}", f"--Format={_COLUMNS}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(f"`squeue` did not answer: {error}") from error
    if done.returncode and "Invalid job id" not in done.stderr:
        minutes = f"{_PATIENCE / 60:g} minutes"
        raise Unreachable(
            f"SLURM has not answered for {minutes}; `squeue` said: {done.stderr.strip()}; jobs {numbers} were cancelled"
            " if SLURM hears that, and the same command goes on from what is stored"
        )
    rows = (line.split("|") for line in done.stdout.splitlines() if line.strip())
    return {number.strip(): _State(word.strip(), int(code)) for number, word, code, *_ in rows}


def _arrays(underway: Iterable[_Submitted]) -> list[str]:
    return list(dict.fromkeys(one.handle.job_id.split("_")[0] for one in underway))


@contextmanager
def _cancelled(underway: list[_Submitted]) -> Iterator[None]:
    """However the block is left, no job outlives it; a run that was under way is marked as interrupted."""
    try:
        yield
    finally:
        if underway:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(["scancel", *_arrays(underway)], capture_output=True, timeout=60, check=False)
        with suppress(StoreError):  # a run that cannot be marked has no record, which comes to the same
            for one in underway:
                if one.started is not None:
                    failures(one.job, "interrupted", "the comparison was interrupted", one.started)
