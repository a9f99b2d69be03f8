"""The interface of an executor, which is handed jobs and says what becomes of them; it knows nothing of rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rulezoo.errors import UserError

if TYPE_CHECKING:
    from rulezoo.comparison.jobs import Job
    from rulezoo.results.records import Record


class Unreachable(UserError):
    """A cluster does not answer, or does not take the jobs; the message says what was tried and what was heard."""


class Listener(Protocol):
    """Who wants to know how far it is."""

    def planned(self, runs: int, stored: int) -> None:
        """So many runs were asked for, so many of them are stored already."""

    def started(self, job: Job) -> None:
        """A job begins."""

    def progressed(self, job: Job, done: int, total: int) -> None:
        """A job has done so many of its training steps."""

    def finished(self, job: Job, records: Sequence[Record]) -> None:
        """A job ended, well or not, and its records are stored."""


class Executor(Protocol):
    """Does jobs."""

    def run(self, jobs: Sequence[Job], listener: Listener) -> None:
        """Do all jobs, and return when each has ended and has its records in the store.

        A job that fails, in whatever way, fails alone. An exception leaves this function only where no job can be
        done: `rulezoo.results.store.StoreError`, `Unreachable`, or the user's interrupt.
        """
