"""The server that child processes are forked from: it imports torch once, so that each child starts in a moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

PRELOAD = "rulezoo.executors.preload"  #: what the server imports; a name, for it stands in a higher layer
SAFE_PATH = "PYTHONSAFEPATH"  #: with it, Python does not import from the current folder


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
    """A block in which the server may be started: deaf to Ctrl-C, and without the current folder on its path."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        with _deaf():
            yield
    finally:
        os.environ.pop(SAFE_PATH)
        if before is not None:
            os.environ[SAFE_PATH] = before


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
