"""What the numbers of a training depend on in addition to its rule, its task and its budget."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL = 1  #: part of a run's identity: raise it when the numbers that come out of the runner change


@dataclass(frozen=True)
class Trial:
    """What makes a run a trial of a tuning: it never reads the test data, and may be given up on the way.

    Attributes:
        after: the epoch after which it may be given up.
        bar: the validation score that it must have reached by then; ``None`` = it is never given up.
    """

    after: int = 0
    bar: float | None = None
