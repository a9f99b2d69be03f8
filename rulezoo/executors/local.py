"""This machine: every job in a process of its own, several at a time.

Processes are forked from a server that has imported torch once and done nothing else, so that each starts clean in
well under a second; where there is no such server (Windows) they are started afresh. A job that raises, hangs or is
killed takes nothing with it, and what it started itself ends with it. When this process dies, so do its jobs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from rulezoo.comparison.jobs import Job, failures, halve
from rulezoo.discovery.plugins import FILES
from rulezoo.executors import messages
from rulezoo.executors.attempt import attempt
from rulezoo.executors.gpus import VISIBLE, least_used
from rulezoo.executors.memory import in_words, resident, share
from rulezoo.processes import child
from rulezoo.processes.child import Child, Garbled
from rulezoo.results.store import Store, StoreError

if TYPE_CHECKING:
    from rulezoo.comparison.executor import Listener
    from rulezoo.processes.supervisor import Send
    from rulezoo.results.records import Status

_WATCH = 0.1  # seconds between looks at the clock and at memory: a gigabyte is soon taken
_GARBLED = (
    "its process wrote what is no message into its connection to rulezoo; a rule or task must leave it alone"
)


@dataclass
class _Running:
    job: Job
    child: Child
    gpu: str | None
    started: datetime
    deadline: float | None = None  # set when its work begins
    failed: tuple[Status, str] | None = None  # how the job says that it ended, if not well


@dataclass(frozen=True)
class Local:
    """Runs jobs in processes on this machine.

    Attributes:
        jobs: how many at a time.
        time_limit: wall seconds after which a job is ended, or ``None``.
        gpus: what ``CUDA_VISIBLE_DEVICES`` calls the GPUs to share out, one to a job; empty = as the environment has it.
        memory_limit: bytes that a job may hold in memory; ``None`` = an equal share of what is free. One that takes
            more is ended before the operating system ends what it likes, and if it is a group of seeds, goes on in
            halves.
    """

    jobs: int
    time_limit: float | None = None
    gpus: tuple[str, ...] = ()
    memory_limit: int | None = None

    def run(self, jobs: Sequence[Job], listener: Listener) -> None:
        """See `rulezoo.comparison.executor.Executor`."""
        memory_limit = self.memory_limit or share(min(self.jobs, len(jobs)) or 1)
        waiting = list(reversed(jobs))
        running: list[_Running] = []
        with _ended(running):
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    gpu = least_used(self.gpus, [one.gpu for one in running])
                    running.append(_start(waiting.pop(), gpu))
                    listener.started(running[-1].job)
                self._poll(running, listener)
                for one in _over_memory_limit(running, memory_limit):
                    running.append(_start(one.job, one.gpu))

    def _poll(self, running: list[_Running], listener: Listener) -> None:
        """Wait for an event, receive messages, and record the jobs that have ended."""
        child.wait_for([one.child for one in running], _WATCH)
        for one in list(running):
            over = one.child.over
            self._receive(one, listener)
            if one.deadline is not None and time.monotonic() > one.deadline and not over:
                one.child.end()
                one.failed = ("timeout", f"took longer than the limit of {self.time_limit:g} s")
                over = True
            if over:
                running.remove(one)
                _reap(one, listener)

    def _receive(self, one: _Running, listener: Listener) -> None:
        try:
            for line in one.child.read():
                match messages.decode(line):
                    case messages.Begun() if self.time_limit is not None:
                        one.deadline = time.monotonic() + self.time_limit
                    case messages.Progress(done, total):
                        listener.progressed(one.job, done, total)
                    case messages.Failed(status, cause):
                        one.failed = one.failed or (status, cause)
                    case messages.StoreBroken(cause):
                        _check_store(one, cause)
        except Garbled:
            one.failed = one.failed or ("error", _GARBLED)
            one.child.ask_to_end()


def _check_store(one: _Running, cause: str) -> None:
    """See whether results cannot be stored, as a job says; then no job can be done."""
    Store(one.job.store).check_writable()
    one.failed = one.failed or ("error", cause)


def _start(job: Job, gpu: str | None) -> _Running:
    # The server's environment is that of its start; plugin files may have been named since, and a GPU assigned.
    environ = {
        FILES: job.plugins,
        VISIBLE: os.environ.get(VISIBLE) if gpu is None else gpu,
    }  # "" hides them all
    return _Running(job, child.start(partial(_do, job), environ), gpu, datetime.now(UTC))


def _over_memory_limit(running: list[_Running], memory_limit: int) -> list[_Running]:
    """End the jobs above the memory limit; return those that are started again with half as many seeds each."""
    large = [one for one in running if resident(one.child.pid or 0) > memory_limit]
    divided = []
    for one in large:
        one.child.kill()  # SIGTERM would leave it time to take gigabytes more
        one.child.end()
        held = f"took more memory than the limit of {in_words(memory_limit)}"
        one.failed = ("oom_host", f"{held}; --memory-limit sets it")
        if halve(one.job):
            running.remove(one)
            one.child.close()
            divided.append(one)
    return divided


def _reap(one: _Running, listener: Listener) -> None:
    one.child.close()
    status, cause = one.failed or _exit_reason(one.child.exitcode)
    listener.finished(one.job, failures(one.job, status, cause, one.started))


def _exit_reason(code: int | None) -> tuple[Status, str]:
    if code is not None and code < 0:
        return "killed", f"its process was ended by signal {-code} ({signal.strsignal(-code)})"
    return "crashed", f"its process ended without a word, with exit code {code}"


@contextmanager
def _ended(running: list[_Running]) -> Iterator[None]:
    """However the block is left, no process outlives it; a run that was under way is marked as interrupted."""
    try:
        yield
    finally:
        for one in running:
            one.child.ask_to_end()
        for one in running:
            one.child.end()
            one.child.close()
        with suppress(StoreError):  # a run that cannot be marked has no record, and is run again likewise
            for one in running:
                failures(one.job, "interrupted", "the comparison was interrupted", one.started)


def _do(job: Job, send: Send) -> None:
    """Carry out a job in its process. Its last message reports a failure, if there was one."""
    os.dup2(2, 1)  # what a rule prints is a remark: the parent's stdout is for results

    def report_progress(done: int, total: int) -> None:
        send(messages.encode(messages.Progress(done, total) if total else messages.Begun()))

    try:
        if failure := attempt(job, report_progress):
            send(messages.encode(messages.Failed(*failure)))
    except StoreError as error:
        send(messages.encode(messages.StoreBroken(str(error))))
