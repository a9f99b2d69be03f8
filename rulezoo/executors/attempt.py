"""What every executor does in the process that works: a job, and how it ended in the words of a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rulezoo.discovery import reason
from rulezoo.jobs import Job, Tell, work
from rulezoo.records import Status
from rulezoo.store import StoreError

if TYPE_CHECKING:
    from rulezoo.plan import Cell

Failure = tuple[Status, str]
"""A status and a sentence, as `rulezoo.jobs.failures` takes them."""


def attempt(
    job: Job, tell: Tell = lambda done, total: None, before: Callable[[Cell], None] = lambda cell: None
) -> Failure | None:
    """Do a job in this process; say how it ended, unless that was well.

    Args:
        job: the job.
        tell: told how far it is.
        before: called with what is to be trained, before it begins.

    Raises:
        StoreError: if results cannot be stored, which would befall every other job, too.
    """
    try:
        cell = job.cell()
        before(cell)
        work(job, tell, cell)
    except MemoryError as error:
        return "oom_host", f"the machine's memory did not suffice: {error}"
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is, it is recorded and the other jobs go on
        return "error", reason(error)
    return None
