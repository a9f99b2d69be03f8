"""How code that takes long inside of `rulezoo.Task.data` reports how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_EVERY = 10.0  # seconds between two reports


def _print(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


_report: ContextVar[Callable[[str], None]] = ContextVar("report", default=_print)


@contextmanager
def reporting(report: Callable[[str], None]) -> Iterator[None]:
    """Have reports go there while the block runs, in place of the standard error stream."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


def report(sentence: str) -> None:
    """Report a sentence."""
    _report.get()(sentence)


class Counter:
    """Reports ``"packing …: 12,000 of 50,000 images"`` every few seconds, and at the end of what took longer."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self._last, self._said = what, total, time.monotonic(), False

    def reached(self, done: int) -> None:
        """So many are done."""
        if (done == self.total and self._said) or time.monotonic() - self._last >= _EVERY:
            self._last, self._said = time.monotonic(), True
            report(f"{self.what}: {done:,} of {self.total:,} images")
