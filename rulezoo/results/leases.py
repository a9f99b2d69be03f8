"""A run is done by one process at a time, whoever started it: each holds a lock on what it does.

The locks are the operating system's own, on files in the store. It lets go of them when a process ends in whatever way,
so that there is no such thing as a lock that a dead process left.
"""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulezoo.results.store import Store

FOLDER = ".locks"

_POLL = 0.2  # seconds between two attempts
_ANSWER = 30.0  # seconds for another process to try a lock

# What another process does: it tries for a lock, and its exit code says whether it got it.
_TRY = """if True:
    import fcntl, os, sys
    try:
        fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(3)
    sys.exit(5)
"""
_GOT = 5


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


def check(store: Store) -> None:
    """Make sure, before the first run, that the locks of the store's file system work.

    A lock is taken, and another process tries for it: some file systems grant it to both. Whether it would also hold
    against another machine cannot be seen from here; docs/executors.md says what that takes.

    Raises:
        StoreError: if they do not.
    """
    from rulezoo.results.store import StoreError

    if sys.platform == "win32":  # whose locks every file system has
        return
    import fcntl

    path = _path(store.folder(FOLDER), f"check-{uuid.uuid4().hex}")
    try:
        with path.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(_without_locks(store, error.strerror or str(error))) from error
            if _tried_elsewhere(path) == _GOT:
                raise StoreError(_without_locks(store, "it gives one lock to two processes"))
    except OSError as error:
        raise StoreError(
            f"Results cannot be stored in {store.root}: no file can be made in {FOLDER} ({error.strerror}); "
            "choose another folder with --out."
        ) from error
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _tried_elsewhere(path: Path) -> int | None:
    """Whether another process gets the lock; ``None`` if it cannot be asked."""
    command = [sys.executable, "-I", "-S", "-c", _TRY, str(path)]
    try:
        return subprocess.run(command, capture_output=True, timeout=_ANSWER, check=False).returncode
    except (OSError, subprocess.TimeoutExpired):
        return None


def _without_locks(store: Store, why: str) -> str:
    return (
        f"Results cannot be stored in {store.root}: the file system has no working locks ({why}), without which two "
        "processes could do the same run. Choose a folder on a local disk with --out, or have the file system mounted "
        "with locks: NFS 4, or NFS 3 with its lock service; Lustre with the option flock."
    )


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
