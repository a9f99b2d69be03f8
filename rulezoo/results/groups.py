"""Names of groups of runs that differ in nothing but their seed; of a checkpoint, a log, a note of progress."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rulezoo.results.records import Asked

_LONGEST = 150  # characters of a name; file systems allow 255 bytes


def cell_key(asked: Asked) -> str:
    """16 hexadecimal digits that name what was asked but for the seed."""
    return msgspec.structs.replace(asked, seed=0).key


def name(asked: Asked, seeds: Sequence[int]) -> str:
    """The name of a group: its cell and its seeds, ``0123456789abcdef-0to4.7``."""
    text = ".".join(_spans(sorted(seeds)))
    if len(text) > _LONGEST:
        text = "x" + hashlib.sha256(text.encode()).hexdigest()
    return f"{cell_key(asked)}-{text}"


def seeds_of(named: str) -> tuple[int, ...]:
    """The seeds that a `name` tells of; none where there were too many to tell.

    >>> seeds_of("0123456789abcdef-0to2.7")
    (0, 1, 2, 7)
    """
    _, _, text = named.partition("-")
    if text.startswith("x"):
        return ()
    spans = [[int(end) for end in span.split("to")] for span in text.split(".")]
    return tuple(seed for span in spans for seed in range(span[0], span[-1] + 1))


def _spans(seeds: Sequence[int]) -> Iterator[str]:
    cuts = [i for i, (one, other) in enumerate(pairwise(seeds), start=1) if other != one + 1]
    for begin, end in pairwise([0, *cuts, len(seeds)]):
        first, last = seeds[begin], seeds[end - 1]
        yield str(first) if first == last else f"{first}to{last}"
