"""Runs foreign code in a guarded process, so that a hang, an exit or a crash there ends as a sentence here.

The process has a group of its own, which is killed as a whole; what it prints is captured; its answers come over a
pipe as framed bytes that nothing here unpickles. It ends when this process does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from rulezoo.processes import server
from rulezoo.text import brief

Report = Callable[[str], None]
"""``report("data()")``: what the process is about to do; the time limit counts from here."""

Work = Callable[[bytes, Report], bytes]
"""``work(request, report)`` returns the answer to a request; a function of a module, for it is sent by name."""

LIMIT = "RULEZOO_CHECK_LIMIT"  #: environment variable with the seconds that a step may take
_STEP, _ANSWER = b"s", b"a"  # the first byte of a message
_LARGEST = 1 << 24  # bytes of a message
_KEPT = 1 << 14  # bytes kept of what the process prints
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Death:
    """Why there is no answer to a request, in a sentence."""

    cause: str


def run(
    work: Work,
    requests: Sequence[bytes],
    context: Any,  # noqa: ANN401  contexts share no type
    limit: float,
    environ: Mapping[str, str | None],
    on_step: Report = lambda step: None,
) -> Iterator[bytes | Death]:
    """Have requests worked on in guarded processes, one after the other.

    Args:
        work: what the process calls for each request.
        requests: in order; after one that ends the process, the rest are done in a new one.
        context: of `multiprocessing`.
        limit: seconds for a step.
        environ: variables to set in the process, or to remove where they are ``None``.
        on_step: called with each step that the process reports.

    Yields:
        for each request its answer, or why there is none.
    """
    waiting = list(requests)
    while waiting:
        process = _Guarded(work, waiting, context, limit, environ, on_step)
        try:
            for answer in process.answers():
                waiting.pop(0)
                yield answer
                if not waiting:
                    return
        finally:
            process.kill()
        waiting.pop(0)
        yield Death(process.cause())


class _Guarded:
    """One guarded process."""

    def __init__(
        self,
        work: Work,
        requests: Sequence[bytes],
        context: Any,  # noqa: ANN401
        limit: float,
        environ: Mapping[str, str | None],
        on_step: Report,
    ) -> None:
        self.limit, self.on_step = limit, on_step
        self.step, self.since = "its start", time.monotonic()
        self.failure = ""  # a cause that is no exit code
        self.tail = b""
        server.patiently(lambda: self._start(context, work, list(requests), dict(environ)))

    def _start(
        self,
        context: Any,  # noqa: ANN401
        work: Work,
        requests: list[bytes],
        environ: dict[str, str | None],
    ) -> None:
        self.pipe, theirs = context.Pipe()
        self.output, printed = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_child, args=(theirs, printed, work, requests, environ), daemon=True
        )
        try:
            with server.starting():
                self.process.start()
        finally:
            theirs.close()
            printed.close()

    def answers(self) -> Iterator[bytes]:
        """Each answer; it ends when no more will come, and then `cause` is known."""
        sources: list[Any] = [self.pipe, self.output, self.process.sentinel]
        while not self.failure:
            left = self.since + self.limit - time.monotonic()
            if left <= 0:
                self.failure = f"did not finish within {self.limit:g} s ({LIMIT} sets the limit)"
                return
            ready = wait(sources, timeout=left)
            if self.output in ready and not self._read_output():
                sources.remove(self.output)
            if self.pipe in ready:
                try:
                    message = self.pipe.recv_bytes(_LARGEST)
                except (EOFError, OSError):
                    self.process.join(1)  # closed by its end, as a rule
                    return
                if answer := self._received(message):
                    yield answer
            elif self.process.sentinel in ready:
                if not server.is_lost(self.process):
                    return
                sources.remove(self.process.sentinel)

    def _received(self, message: bytes) -> bytes | None:
        self.since = time.monotonic()
        if message[:1] == _ANSWER:
            return message[1:]
        if message[:1] != _STEP:
            self.failure = "wrote into rulezoo's own pipe"
            return None
        self.step = message[1:].decode(errors="replace")
        self.on_step(self.step)
        return None

    def _read_output(self) -> bool:
        """Keep the end of what was printed; whether more may come."""
        try:
            block = os.read(self.output.fileno(), _BLOCK)
        except OSError:
            return False
        self.tail = (self.tail + block)[-_KEPT:]
        return bool(block)

    def kill(self) -> None:
        """End the process and all that it started."""
        with suppress(OSError):  # no member is left, or the group was not made yet
            if self.process.pid and hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(OSError):
            self.process.kill()
        self.process.join()
        server.end_strays()
        while self.output.poll() and self._read_output():
            pass
        self.pipe.close()
        self.output.close()

    def cause(self) -> str:
        """Why the process gave no answer, in a sentence; after `kill`."""
        said = self.tail.decode(errors="replace").strip().splitlines()
        printed = f"; the last line it printed: {brief(said[-1], 200)}" if said else ""
        return f"{self.step} {self.failure or _end(self.process.exitcode)}{printed}"


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"crashed: signal {-code} ({signal.strsignal(-code)}) ended its process"
    return f"ended its process with exit code {code}"


def _child(
    pipe: Connection,
    output: Connection,
    work: Work,
    requests: Sequence[bytes],
    environ: Mapping[str, str | None],
) -> None:
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if os.name == "posix":
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
        output.close()
    server.put(environ)
    server.may_start_processes()
    threading.Thread(target=_die_with_parent, args=(pipe,), daemon=True).start()
    own = os.getpid()

    def send(kind: bytes, content: bytes) -> None:
        if os.getpid() != own:  # foreign code forked, and its child came back into ours
            os._exit(1)
        pipe.send_bytes(kind + content)

    for request in requests:
        send(_ANSWER, work(request, lambda step: send(_STEP, step.encode())))


def _die_with_parent(pipe: Connection) -> None:
    """The parent never speaks; the pipe ends when it is gone."""
    with suppress(EOFError, OSError):
        pipe.recv_bytes()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
