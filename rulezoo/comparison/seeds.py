"""Seeds as users write them: a number of seeds, a range, or a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rulezoo.comparison.request import MOST_SEEDS, RequestError

EXPECTED = "a number of seeds (5: seeds 0 to 4), a range (5-9), or a list (0,3,7)"
_RANGE = re.compile(r"(\d{1,16})(?:-(\d{1,16}))?")


def read(text: str) -> tuple[int, ...]:
    """The seeds that a text stands for: ``5`` = 0 to 4, ``5-9``, ``0,3,7``, ``0,5-9``.

    Raises:
        RequestError: if the text is none of these.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and parts[0].isascii() and parts[0].isdecimal():
        return first(int(parts[0]))
    return tuple(seed for part in parts for seed in _range(part, text))


def first(number: int) -> tuple[int, ...]:
    """The seeds 0 to ``number`` - 1."""
    _check_number(number)
    if number < 1:
        raise RequestError(f"the number of seeds must be 1 or more, got {number}")
    return tuple(range(number))


def shown(seeds: Iterable[int]) -> str:
    """The text that `read` reads as these seeds, ranges joined: ``0,5-9``."""
    ordered = sorted(seeds)
    if ordered == list(range(len(ordered))):
        return str(len(ordered))
    runs: list[list[int]] = []
    for seed in ordered:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    text = ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
    return f"{text}-{text}" if text.isdecimal() else text  # a number alone would be a number of seeds


def _range(part: str, text: str) -> Iterator[int]:
    found = _RANGE.fullmatch(part)
    if not found:
        raise RequestError(f"seeds must be {EXPECTED}, got {text!r}")
    low, high = int(found[1]), int(found[2] or found[1])
    if high < low:
        raise RequestError(f"a range of seeds must begin with its smallest, got {part!r}; write {high}-{low}")
    _check_number(high - low + 1)
    yield from range(low, high + 1)


def _check_number(number: int) -> None:
    if number > MOST_SEEDS:
        raise RequestError(f"seeds must be {MOST_SEEDS:,} at most, got {number:,}")
