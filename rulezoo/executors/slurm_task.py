"""What a SLURM job does on its node; submitit calls it, and says when the job has to give way."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rulezoo.comparison.jobs import Job, failures
from rulezoo.executors.attempt import attempt
from rulezoo.processes.supervisor import become_reaper, end_descendants
from rulezoo.results.store import StoreError

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from rulezoo.executors.slurm_request import Request

_EARLY = 60  # seconds by which SLURM may say sooner than asked for that the end comes


@dataclass
class Task:
    """One turn of a job.

    Attributes:
        turn: seconds after which to give way means that the time is over; sooner, it is a pre-emption.
        minutes: of a turn, for those who read the record.
        resumes: how many turns may follow for lack of time.
        began: when this turn began, by the monotonic clock.
        leaving: whether it gives way: then submitit has the process exit, which is no failure.
    """

    turn: float
    minutes: int
    resumes: int
    began: float = 0.0
    leaving: bool = False

    @classmethod
    def first(cls, request: Request) -> Task:
        """The first turn."""
        return cls(60 * request.time - request.warning - _EARLY, request.time, request.resumes)

    def __call__(self, job: Job) -> str | None:
        """Do the job. What comes back is why results cannot be stored, if they cannot."""
        self.began, started = time.monotonic(), datetime.now(UTC)
        become_reaper()
        try:
            if failure := attempt(job, leaving=lambda: self.leaving):
                failures(job, *failure, started)
        except StoreError as error:
            return str(error)
        finally:
            if not self.leaving:  # else SLURM ends the whole job
                end_descendants()
        return None

    def checkpoint(self, job: Job) -> DelayedSubmission:
        """Called by submitit when the job has to give way: what to do when its next turn comes.

        The job is called again as it is: it finds by itself what it left behind.
        """
        from submitit.helpers import DelayedSubmission

        self.leaving = True
        late = time.monotonic() - self.began > self.turn
        if late and self.resumes == 0:
            words = f"took longer than the limit of {self.minutes} min, and was not to be resumed (again)"
            failures(job, "timeout", words, datetime.now(UTC))
            os._exit(
                0
            )  # an exception would be taken for one of the rule's, for we are in the middle of its work
        return DelayedSubmission(Task(self.turn, self.minutes, self.resumes - late), job)
