"""Names of groups of runs that differ in nothing but their seed; of a checkpoint, a log, a note of progress."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rulezoo.results.records import RunSpec

_NAME = re.compile(r"[0-9a-f]{16}-\d{1,18}(to\d{1,18})?(\.\d{1,18}(to\d{1,18})?)*", re.ASCII)
_MOST = 1_000_000  # seeds in a group
_LONGEST = 150  # characters of a name; file systems allow 255 bytes


def cell_key(asked: RunSpec) -> str:
    """16 hexadecimal digits that name what was asked but for the seed."""
    return msgspec.structs.replace(asked, seed=0).key


def name(asked: RunSpec, seeds: Sequence[int]) -> str:
    """The name of a group: its cell and its seeds, ``0123456789abcdef-0to4.7``."""
    text = ".".join(_spans(sorted(seeds)))
    if len(text) > _LONGEST:
        text = "x" + hashlib.sha256(text.encode()).hexdigest()
    return f"{cell_key(asked)}-{text}"


def seeds_of(named: str) -> tuple[int, ...]:
    """The seeds that a `name` tells of; none where there were too many to tell, or it is no such name.

    >>> seeds_of("0123456789abcdef-0to2.7")
    (0, 1, 2, 7)
    >>> seeds_of("0123456789abcdef-0to2 (copy)")
    ()
    """
    if not _NAME.fullmatch(named):
        return ()
    spans = [[int(end) for end in span.split("to")] for span in named.partition("-")[2].split(".")]
    if sum(span[-1] - span[0] + 1 for span in spans) > _MOST:  # nobody trains so many in one group
        return ()
    return tuple(seed for span in spans for seed in range(span[0], span[-1] + 1))


def spans(seeds: Sequence[int]) -> str:
    """Seeds in ascending order, in words.

    >>> spans([0, 1, 2, 7])
    '0-2,7'
    """
    return ",".join(span.replace("to", "-") for span in _spans(seeds))


def _spans(seeds: Sequence[int]) -> Iterator[str]:
    cuts = [i for i, (one, other) in enumerate(pairwise(seeds), start=1) if other != one + 1]
    for begin, end in pairwise([0, *cuts, len(seeds)]):
        first, last = seeds[begin], seeds[end - 1]
        yield str(first) if first == last else f"{first}to{last}"
