"""What every executor does in the process that works: a job, and how it ended in the words of a record."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from rulezoo.comparison.jobs import Job, ReportProgress, work
from rulezoo.discovery.plugins import reason
from rulezoo.results.logs import capture
from rulezoo.results.records import Status
from rulezoo.results.store import Store, StoreError
from rulezoo.training.errors import out_of_memory

Failure = tuple[Status, str]
"""A status and a sentence, as `rulezoo.comparison.jobs.failures` takes them."""


def attempt(
    job: Job,
    report_progress: ReportProgress = lambda done, total: None,
    leaving: Callable[[], bool] = lambda: False,
) -> Failure | None:
    """Do a job in this process; say how it ended, unless that was well. What the process prints goes into the store.

    Args:
        job: the job.
        report_progress: called with the number of steps done and of all steps.
        leaving: whether an exit is the executor's own and not the foreign code's; then it is let through.

    Raises:
        StoreError: if results cannot be stored, which would befall every other job, too.
    """
    try:
        cell = job.cell()
        capture(Store(job.store), cell.asked)
        work(job, report_progress, cell)
    except StoreError:
        raise
    except BaseException as error:  # whatever it is, it is recorded and the other jobs go on
        if leaving():
            raise
        if not isinstance(error, Exception):  # the runner has not seen it, and its traceback is in no record
            traceback.print_exc()
        return out_of_memory(error) or "error", reason(error)
    return None
