"""A run is done by one process at a time, whoever started it: each holds a lock on what it does.

The locks are the operating system's own, on files in the store. It lets go of them when a process ends in whatever way,
so that there is no such thing as a lock that a dead process left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulezoo.results.store import Store

FOLDER = ".locks"

_POLL = 0.2  # seconds between two attempts


@contextmanager
def leases(store: Store, names: Iterable[str]) -> Iterator[None]:
    """Hold the locks of these names; wait for them as long as other processes do.

    Raises:
        StoreError: if the store cannot be written.
    """
    from filelock import FileLock

    folder = store.folder(FOLDER)
    with ExitStack() as held:
        for name in sorted(names):  # in one order, so that no two processes wait for each other
            held.enter_context(FileLock(_path(folder, name), poll_interval=_POLL))
        yield


def is_held(store: Store, name: str) -> bool:
    """Whether a process holds the lock of that name."""
    from filelock import FileLock, Timeout

    path = _path(store.root / FOLDER, name)
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a store that may only be read
        return False


def forget(store: Store, names: Iterable[str]) -> None:
    """Delete the lock files of runs that nobody will do again: their records are stored."""
    for name in names:
        with suppress(OSError):
            _path(store.root / FOLDER, name).unlink(missing_ok=True)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"
