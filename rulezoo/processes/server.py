"""The server that child processes are forked from: it imports torch once, so that each child starts in a moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from rulezoo.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

PRELOAD = "rulezoo.executors.preload"  #: what the server imports; a name, for it stands in a higher layer
SAFE_PATH = "PYTHONSAFEPATH"  #: with it, Python does not import from the current folder

T = TypeVar("T")

_START = 60.0  # seconds after which a server that keeps dying is given up
_UNKNOWN = 255  # the exit code that multiprocessing gives a process whose server is gone
_AGAIN = 0.05  # seconds between two attempts to start a process


class NoProcess(UserError):
    """Child processes cannot be started; the message says what happened and what to do."""


def patiently(start: Callable[[], T]) -> T:
    """Start a process, again and again while the server does not answer: it may have been killed.

    Args:
        start: starts it, with connections of its own each time: a lost process must not hold those of another.

    Raises:
        NoProcess: if that is not possible.
    """
    deadline = time.monotonic() + _START
    while True:
        try:
            return start()
        except (EOFError, OSError) as error:
            # A server that was killed takes a moment to be gone, and one that dies while it starts is no use.
            if time.monotonic() > deadline:
                raise NoProcess(
                    f"no process can be started: the server of processes does not answer ({error or 'it ended'}); "
                    "look for its error above, and whether this user may have more processes and open files (`ulimit -a`)"
                ) from error
            time.sleep(_AGAIN)


def context() -> Any:  # noqa: ANN401  contexts share no type
    """The `multiprocessing` context of child processes; where there is no fork server (Windows), they start afresh."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([PRELOAD])
    with starting():
        from multiprocessing import forkserver

        forkserver.ensure_running()
    return server


def put(environ: Mapping[str, str | None]) -> None:
    """Set variables of this process's environment, or remove those that are ``None``."""
    for name, value in environ.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def may_start_processes() -> None:
    """Let a child process have children, which multiprocessing refuses to one that ends with its parent.

    Whoever started it ends its children, too. Worker processes of a ``DataLoader`` are such children.
    """
    multiprocessing.current_process().daemon = False


def is_lost(process: BaseProcess) -> bool:
    """Whether a process seems to have ended, for the server that would tell was killed, and goes on."""
    import psutil

    return process.exitcode == _UNKNOWN and psutil.pid_exists(process.pid or 0)


def end_strays() -> None:
    """Kill what descends from the server and not from a child process of ours: their supervisor was killed.

    The server adopts them where it can; see `rulezoo.processes.supervisor.become_reaper`.
    """
    from multiprocessing import forkserver

    import psutil

    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is None:
        return
    ours = {process.pid for process in multiprocessing.active_children()}
    with suppress(psutil.Error):
        for stray in psutil.Process(pid).children():
            for process in (stray, *stray.children(recursive=True)) if stray.pid not in ours else ():
                process.kill()


@contextmanager
def starting() -> Iterator[None]:
    """A block in which processes are started: deaf to Ctrl-C, without the current folder on their path, without a main module."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        with _deaf(), _without_main():
            yield
    finally:
        put({SAFE_PATH: before})


@contextmanager
def _without_main() -> Iterator[None]:
    """A block in which this process seems to have an empty main module.

    multiprocessing has a child run the file of the main module again. What our children do is in modules of rulezoo, and
    a user's script that trains would start to train in each child.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _deaf() -> Iterator[None]:
    """A block in which SIGINT is held back, and what starts in it never hears it.

    Ctrl-C reaches every process of the terminal; a server that is still importing would die of it with a traceback. The
    mask is inherited by it and by all that it forks; in this process, what came meanwhile is delivered at the end.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which would lift the mask on its own account
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
