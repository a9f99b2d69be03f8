"""The server that clean processes are forked from: it has imported torch once and done nothing else."""

from __future__ import annotations

import multiprocessing
import signal
from typing import Any


def context() -> Any:  # noqa: ANN401  contexts share no type
    """The context of `multiprocessing` to start processes with; the server runs, or there can be none (Windows)."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["rulezoo.executors.preload"])
    # Ctrl-C reaches every process of the terminal; a server that is still importing would die of it with a traceback.
    # The mask is inherited by it and by all that it forks; in this process, what came meanwhile is delivered now.
    resource_tracker.ensure_running()  # which would lift the mask on its own account
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return found
