"""This machine: every job in a process of its own, several at a time.

Processes are forked from a server that has imported torch once and done nothing else, so that each starts clean in
well under a second; where there is no such server (Windows) they are started afresh. A job that raises, hangs or is
killed takes nothing with it. When this process dies, its jobs notice and end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from rulezoo.jobs import Job, failures, work

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from rulezoo.executors import Listener
    from rulezoo.records import Status

_POLL = 1.0  # seconds between looks at the clock while nothing happens
_GRACE = 10.0  # seconds between asking a process to end and killing it


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    pipe: Connection
    started: datetime
    deadline: float | None
    failed: tuple[Status, str] | None = None  # how the job says that it ended, if not well


@dataclass(frozen=True)
class Local:
    """Runs jobs in processes on this machine.

    Attributes:
        jobs: how many at a time.
        time_limit: wall seconds after which a job is ended, or ``None``.
    """

    jobs: int
    time_limit: float | None = None

    def run(self, jobs: Sequence[Job], listener: Listener) -> None:
        """See `rulezoo.executors.Executor`."""
        context = _context()
        waiting = list(reversed(jobs))
        running: list[_Running] = []
        with _ended(running, listener):
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    running.append(self._start(context, waiting.pop()))
                    listener.started(running[-1].job)
                self._attend(running, listener)

    def _start(self, context: Any, job: Job) -> _Running:  # noqa: ANN401  multiprocessing's contexts share no type
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(job, theirs), daemon=True)
        process.start()
        theirs.close()
        deadline = None if self.time_limit is None else time.monotonic() + self.time_limit
        return _Running(job, process, ours, datetime.now(UTC), deadline)

    def _attend(self, running: list[_Running], listener: Listener) -> None:
        """Wait until something happens, hear the news, and bury the dead."""
        wait([source for one in running for source in (one.pipe, one.process.sentinel)], timeout=_POLL)
        for one in list(running):
            _hear(one, listener)
            if one.deadline is not None and time.monotonic() > one.deadline and one.process.is_alive():
                _end(one.process)
                one.failed = ("timeout", f"took longer than the limit of {self.time_limit:g} s")
            if not one.process.is_alive():
                _hear(one, listener)
                running.remove(one)
                _bury(one, listener)


def _context() -> Any:  # noqa: ANN401
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rulezoo.executors.preload"])
    return context


def _hear(one: _Running, listener: Listener) -> None:
    try:
        while one.pipe.poll():
            message = one.pipe.recv()
            if isinstance(message, Exception):
                raise message
            if isinstance(message[0], str):
                one.failed = message
            else:
                listener.progressed(one.job, *message)
    except (EOFError, OSError) as error:
        if not isinstance(error, EOFError | ConnectionError):
            raise


def _bury(one: _Running, listener: Listener) -> None:
    one.process.join()
    one.pipe.close()
    status, reason = one.failed or _cause_of_death(one.process.exitcode)
    listener.finished(one.job, failures(one.job, status, reason, one.started))


def _cause_of_death(code: int | None) -> tuple[Status, str]:
    if code is not None and code < 0:
        return "killed", f"its process was ended by signal {signal.Signals(-code).name}"
    return "crashed", f"its process ended without a word, with exit code {code}"


def _end(process: BaseProcess) -> None:
    process.terminate()
    process.join(_GRACE)
    if process.is_alive():
        process.kill()
        process.join()


@contextmanager
def _ended(running: list[_Running], listener: Listener) -> Iterator[None]:
    """However the block is left, no process outlives it; a run that was under way is marked as interrupted."""
    try:
        yield
    finally:
        for one in running:
            _end(one.process)
            failures(one.job, "interrupted", "the comparison was interrupted", one.started)


def _child(job: Job, pipe: Connection) -> None:
    """What a job's process does. Its last message says how it ended, unless that was well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, args=(pipe,), daemon=True).start()
    try:
        work(job, lambda done, total: pipe.send((done, total)))
    except MemoryError as error:
        pipe.send(("oom_host", f"the machine's memory did not suffice: {error}"))
    except Exception as error:  # noqa: BLE001  whatever it is, the parent is told and the other jobs go on
        pipe.send(_portable(error))


def _portable(error: Exception) -> object:
    from rulezoo.errors import UserError

    return error if isinstance(error, UserError) else ("error", f"{type(error).__name__}: {error}")


def _die_with_parent(pipe: Connection) -> None:
    """The parent never speaks; the pipe ends when it is gone."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)
