"""This machine: every job in a process of its own, several at a time.

Processes are forked from a server that has imported torch once and done nothing else, so that each starts clean in
well under a second; where there is no such server (Windows) they are started afresh. A job that raises, hangs or is
killed takes nothing with it. When this process dies, its jobs notice and end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from rulezoo.comparison import processes
from rulezoo.comparison.jobs import Job, failures, halve
from rulezoo.discovery.plugins import FILES
from rulezoo.executors.attempt import attempt
from rulezoo.executors.gpus import VISIBLE, least_used
from rulezoo.executors.memory import in_words, resident, share
from rulezoo.results.store import StoreError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from rulezoo.comparison.executor import Listener
    from rulezoo.results.records import Status

_WATCH = 0.1  # seconds between looks at the clock and at memory: a gigabyte is soon taken
_GRACE = 10.0  # seconds between asking a process to end and killing it


@dataclass
class _Running:
    job: Job
    process: BaseProcess
    pipe: Connection
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
        context = processes.context()
        memory_limit = self.memory_limit or share(min(self.jobs, len(jobs)) or 1)
        waiting = list(reversed(jobs))
        running: list[_Running] = []
        with _ended(running):
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    gpu = least_used(self.gpus, [one.gpu for one in running])
                    running.append(self._start(context, waiting.pop(), gpu))
                    listener.started(running[-1].job)
                self._attend(running, listener)
                for one in _to_divide(running, memory_limit):
                    running.append(self._start(context, one.job, one.gpu))

    def _start(self, context: Any, job: Job, gpu: str | None) -> _Running:  # noqa: ANN401  contexts share no type
        ours, theirs = context.Pipe()
        # The server's environment is that of its start; plugin files may have been named since, and a GPU assigned.
        environ = {FILES: job.plugins}
        assigned = os.environ.get(VISIBLE) if gpu is None else gpu
        if assigned is not None:  # "" hides them all
            environ[VISIBLE] = assigned
        process = _started(context, job, theirs, environ)
        theirs.close()
        return _Running(job, process, ours, gpu, datetime.now(UTC))

    def _attend(self, running: list[_Running], listener: Listener) -> None:
        """Wait until something happens, hear the news, and bury the dead."""
        wait([source for one in running for source in (one.pipe, one.process.sentinel)], timeout=_WATCH)
        for one in list(running):
            self._hear(one, listener)
            if one.deadline is not None and time.monotonic() > one.deadline and one.process.is_alive():
                _end(one.process)
                one.failed = ("timeout", f"took longer than the limit of {self.time_limit:g} s")
            if not one.process.is_alive():
                self._hear(one, listener)
                running.remove(one)
                _bury(one, listener)

    def _hear(self, one: _Running, listener: Listener) -> None:
        for message in _messages(one.pipe):
            if isinstance(message, StoreError):  # then no job can be done
                raise message
            if isinstance(message[0], str):
                one.failed = one.failed or message
            elif message != (0, 0):
                listener.progressed(one.job, *message)
            elif self.time_limit is not None:
                one.deadline = time.monotonic() + self.time_limit


def _started(context: Any, job: Job, pipe: Connection, environ: Mapping[str, str]) -> BaseProcess:  # noqa: ANN401
    """The process of a job. If the server of processes was killed, it is started anew, once."""
    for last in (False, True):
        process: BaseProcess = context.Process(target=_child, args=(job, pipe, environ), daemon=True)
        try:
            process.start()
        except (EOFError, OSError):
            if last:
                raise
        else:
            break
    return process


def _to_divide(running: list[_Running], memory_limit: int) -> list[_Running]:
    """End what takes too much memory. Groups of seeds are taken out, to be started again in smaller ones."""
    large = [one for one in running if resident(one.process.pid or 0) > memory_limit]
    divided = []
    for one in large:
        with _without_orphans([one.process]):
            one.process.kill()  # it may take gigabytes more while it is asked politely
            one.process.join()
        held = f"took more memory than the limit of {in_words(memory_limit)}"
        one.failed = ("oom_host", f"{held}; --memory-limit sets it")
        if halve(one.job):
            running.remove(one)
            one.pipe.close()
            divided.append(one)
    return divided


def _messages(pipe: Connection) -> Iterator[Any]:
    """What was said until now; a process that died in the middle of a word said nothing."""
    with suppress(EOFError, OSError):
        while pipe.poll():
            yield pipe.recv()


def _bury(one: _Running, listener: Listener) -> None:
    one.process.join()
    one.pipe.close()
    status, cause = one.failed or _cause_of_death(one.process.exitcode)
    listener.finished(one.job, failures(one.job, status, cause, one.started))


def _cause_of_death(code: int | None) -> tuple[Status, str]:
    if code is not None and code < 0:
        return "killed", f"its process was ended by signal {-code} ({signal.strsignal(-code)})"
    return "crashed", f"its process ended without a word, with exit code {code}"


def _end(process: BaseProcess) -> None:
    with _without_orphans([process]):
        process.terminate()
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _without_orphans(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """What these processes have started themselves is killed when the block has ended them."""
    import psutil

    started: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.Error):
            started += psutil.Process(process.pid).children(recursive=True)
    yield
    for child in started:
        with suppress(psutil.Error):  # gone, too
            child.kill()


@contextmanager
def _ended(running: list[_Running]) -> Iterator[None]:
    """However the block is left, no process outlives it; a run that was under way is marked as interrupted."""
    try:
        yield
    finally:
        with _without_orphans([one.process for one in running]):
            for one in running:
                one.process.terminate()
            for one in running:
                _end(one.process)
        with suppress(StoreError):  # a run that cannot be marked has no record, which comes to the same
            for one in running:
                failures(one.job, "interrupted", "the comparison was interrupted", one.started)


def _child(job: Job, pipe: Connection, environ: Mapping[str, str]) -> None:
    """What a job's process does. Its last message says how it ended, unless that was well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(2, 1)  # what a rule prints is a remark: the parent's stdout is for results
    for name in (FILES, VISIBLE):
        os.environ.pop(name, None)
    os.environ.update(environ)  # before CUDA starts, which reads it once
    threading.Thread(target=_die_with_parent, args=(pipe,), daemon=True).start()

    def tell(done: int, total: int) -> None:
        try:
            pipe.send((done, total))
        except OSError:  # nobody listens any more; an exception would be taken for one of the rule's
            os._exit(1)

    try:
        if failure := attempt(job, tell):
            pipe.send(failure)
    except StoreError as error:
        pipe.send(error)


def _die_with_parent(pipe: Connection) -> None:
    """The parent never speaks; the pipe ends when it is gone."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)
