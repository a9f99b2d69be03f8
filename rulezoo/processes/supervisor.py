"""What a child process does: it runs a function in a worker of its own, and ends all that the worker started.

The supervisor is forked first, and forks the worker. It runs no foreign code, so it can be relied upon: when the worker
has ended in whatever way, or when the parent asks for the end or is gone, it kills every process that descends from the
worker. On Linux it adopts those whose own parents are gone, so that none escapes; elsewhere they share a process group.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn

from rulezoo.processes.server import may_start_processes, put

GRACE = 10.0  #: seconds between asking a worker to end and killing it
MOST = 1 << 16  #: bytes of a message, at most

_PATIENCE = 5.0  # seconds after which a process that does not die of SIGKILL is left alone
_SUBREAPER, _DEATH_SIGNAL = 36, 1  # PR_SET_CHILD_SUBREAPER and PR_SET_PDEATHSIG of prctl(2)

Send = Callable[[bytes], None]
"""``send(message)`` of a worker to its parent; a message is at most `MOST` bytes and holds no line break."""

Work = Callable[[Send], None]
"""What a worker does."""


def run(work: Work, control: socket.socket, data: socket.socket, environ: Mapping[str, str | None]) -> None:
    """Do some work in a worker, and end what it leaves behind; the target of a child process.

    Args:
        work: what to do; it can be pickled.
        control: to the parent, which receives the worker's number and then how it ended, in a line each. The parent never
            writes: its end of the connection means that the worker has to end.
        data: to the parent, for the messages of the work.
        environ: variables of the environment to set, or to remove where they are ``None``.
    """
    put(environ)
    may_start_processes()
    if not hasattr(os, "fork"):
        threading.Thread(target=_end_with_parent, args=(control,), daemon=True).start()
        _work(work, data)
    reaper = become_reaper()
    with _signals() as woken:
        supervisor = os.getpid()
        worker = os.fork()
        if worker == 0:
            control.close()
            _be_worker(supervisor, reaper=reaper)
            _work(work, data)
        data.close()
        _tell(control, worker)
        signal.signal(signal.SIGTERM, lambda number, frame: _kill(worker, signal.SIGKILL))
        status = _wait(worker, control, woken)
        _end_descendants(None if reaper else worker)
    _tell(control, os.waitstatus_to_exitcode(status))


def become_reaper() -> bool:
    """Have orphans among the descendants of this process become its children; whether the system can do that."""
    return sys.platform == "linux" and _prctl(_SUBREAPER, 1)


def end_descendants() -> None:
    """Kill everything that descends from this process, and reap its children."""
    _end_descendants(None)


def _prctl(option: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that can be read when a child ended or a signal came."""
    read, write = os.pipe()
    for end in (read, write):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # a signal that is ignored wakes nobody
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def _wait(worker: int, control: socket.socket, woken: int) -> int:
    """Wait for the worker's end, and see to it when the parent asks for it or is gone; its status as wait(2) has it."""
    deadline: float | None = None
    while (status := _reaped(worker)) is None:
        listen: list[int | socket.socket] = [woken, control] if deadline is None else [woken]
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = select.select(listen, [], [], left)[0]
        if woken in ready:
            os.read(woken, 1 << 12)
        if control in ready:
            deadline = time.monotonic() + GRACE
            _kill(worker, signal.SIGTERM)
        if deadline is not None and time.monotonic() >= deadline:
            _kill(worker, signal.SIGKILL)
            deadline = time.monotonic() + GRACE
    return status


def _reaped(worker: int) -> int | None:
    """Reap what has ended, adopted orphans included; the worker's status if it is among them."""
    found = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == worker:
                found = ended[1]
    return found


def _end_descendants(group: int | None) -> None:
    """Kill and reap until nobody is left: who is killed may have started others in the meantime."""
    import psutil

    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if group is not None:
            with suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _kill(worker: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker, number)


def _tell(control: socket.socket, number: int) -> None:
    with suppress(OSError):  # the parent is gone
        control.sendall(b"%d\n" % number)


def _be_worker(supervisor: int, *, reaper: bool) -> None:
    """Put the signals in order, and die with the supervisor."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not reaper:
        os.setpgid(0, 0)
    if sys.platform == "linux":
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before that
            os._exit(1)


def _work(work: Work, data: socket.socket) -> NoReturn:
    """Do the work; whatever happens, this process ends here."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process of a terminal: the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def send(message: bytes) -> None:
        try:
            data.sendall(message + b"\n")
        except OSError:  # nobody listens; an exception would be taken for one of the foreign code's
            os._exit(1)

    code = 1
    try:
        work(send)
        code = 0
    except BaseException:  # noqa: BLE001  there is nobody above who could handle it
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def _end_with_parent(control: socket.socket) -> None:
    """For systems without fork, where a thread stands for the supervisor."""
    with suppress(OSError):
        control.recv(1)
    os._exit(1)
