"""A child process as its parent sees it.

What a child says is data: lines of bytes with a bound on their length, which the parent reads without waiting. The end
of the connection to the child's supervisor is the child's end, whatever became of the server it was forked from.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from rulezoo.processes import server, supervisor
from rulezoo.processes.supervisor import GRACE, MOST, Work

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_READ = 1 << 16  # bytes that are read at once
_REAPED = 1.0  # seconds for the server to tell of a process's end
_PIECES = 1024  # that are read after a child's end


class Garbled(Exception):
    """A child wrote what is no message."""


class Child:
    """A child process; see `start`.

    Attributes:
        pid: number of its worker, which runs the foreign code; ``None`` until that has started.
        exitcode: of its worker, negative for a signal; ``None`` until it is over.
    """

    def __init__(self, process: BaseProcess, control: socket.socket, data: socket.socket) -> None:
        self.process = process
        self.pid = None if hasattr(os, "fork") else process.pid
        self.exitcode: int | None = None
        self._control, self._data = _Lines(control), _Lines(data)

    @property
    def sources(self) -> list[socket.socket]:
        """What becomes readable when there is something to `read`."""
        return [lines.source for lines in (self._control, self._data) if not lines.ended]

    @property
    def over(self) -> bool:
        """Whether it has ended, with everything that it started."""
        self._poll()
        return self._control.ended

    def read(self) -> Iterator[bytes]:
        """The messages that came since the last time; never waits.

        Raises:
            Garbled: if something came that is no message.
        """
        over = self.over
        yield from self._data.read()
        for _ in range(_PIECES) if over else ():  # a message that it sent before its end is in the connection
            if self._data.idle:
                break
            yield from self._data.read()

    def kill(self) -> None:
        """Kill its worker; the supervisor then ends what that started."""
        if self.pid is not None and not self.over:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def ask_to_end(self) -> None:
        """Have the supervisor end it; returns at once."""
        with suppress(OSError):
            self._control.source.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """End it, politely at first; returns when it is over."""
        self.ask_to_end()
        self.join(2 * GRACE)
        if not self.over:
            self.process.kill()
            self.join(GRACE)

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, for so many seconds at most."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.over:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            wait([self._control.source], left)

    def close(self) -> None:
        """Close the connections to it, and let the system forget it."""
        self.process.join(_REAPED)
        for lines in (self._control, self._data):
            lines.source.close()

    def _poll(self) -> None:
        if self._control.ended:
            return
        for line in self._control.read():
            if self.pid is None:
                self.pid = int(line)
            else:
                self.exitcode = int(line)
        if self._control.ended and self.exitcode is None:
            self._supervisor_died()

    def _supervisor_died(self) -> None:
        """Its worker, if there is one, dies with it where the system can do that."""
        self.process.join(_REAPED)
        code = self.process.exitcode
        self.exitcode = -signal.SIGKILL if code in (None, 255) else code  # 255: the server was killed, too
        if self.pid is not None and hasattr(os, "killpg"):
            for kill in (os.kill, os.killpg):
                with suppress(OSError):
                    kill(self.pid, signal.SIGKILL)
        server.end_strays()


class _Lines:
    """The lines that come from a socket, without their ends."""

    def __init__(self, source: socket.socket) -> None:
        source.setblocking(False)
        self.source, self.ended, self.idle = source, False, False
        self._rest = b""

    def read(self) -> list[bytes]:
        """The lines of a piece of what came; ``idle`` when there was nothing.

        Raises:
            Garbled: if a line is longer than a message may be.
        """
        try:
            piece = b"" if self.ended else self.source.recv(_READ)
        except (BlockingIOError, InterruptedError):
            self.idle = True
            return []
        except OSError:
            piece = b""
        if not piece:
            self.ended = self.idle = True
            return []
        self.idle = False
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if any(len(line) > MOST for line in (*lines, self._rest)):
            self._rest = b""
            raise Garbled
        return lines


def start(work: Work, environ: Mapping[str, str | None]) -> Child:
    """Start a child process that does some work; a server of processes that was killed is started again.

    Args:
        work: what to do; it can be pickled.
        environ: variables of the child's environment to set, or to remove where they are ``None``: else it has that of
            the server's start.

    Raises:
        rulezoo.processes.server.NoProcess: if that is not possible.
    """
    environ = {server.SAFE_PATH: os.environ.get(server.SAFE_PATH), **environ}
    return server.patiently(lambda: _start(work, environ))


def _start(work: Work, environ: Mapping[str, str | None]) -> Child:
    context = server.context()
    control, data = (
        socket.socketpair(),
        socket.socketpair(),
    )  # new ones: a lost child must not hold those of another
    theirs = (control[1], data[1])
    try:
        process = context.Process(target=supervisor.run, args=(work, *theirs, dict(environ)), daemon=True)
        with server.starting():
            process.start()
    except BaseException:
        control[0].close()
        data[0].close()
        raise
    finally:
        for end in theirs:
            end.close()
    return Child(process, control[0], data[0])


def wait_for(children: Sequence[Child], timeout: float) -> None:
    """Wait until one of these children has said something or ended, for so many seconds at most."""
    sources = [source for child in children for source in child.sources]
    if sources:
        wait(sources, timeout)
