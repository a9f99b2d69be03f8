"""Options with several values: the product of the values of a rule's or a task's options."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

from rulezoo.options import Option, OptionError

Given = Mapping[str, str | tuple[str, ...]]
"""Option → its value as the user wrote it; a tuple holds the values of a grid."""


def values(option: Option | None, given: str | tuple[str, ...]) -> tuple[str, ...]:
    """The values that were given for an option; one is no grid.

    A text is one value where the option can read it as a whole, which an option of any text always can. Otherwise
    commas separate the values.
    """
    if isinstance(given, tuple):
        return tuple(dict.fromkeys(given))
    if "," not in given or option is None or _readable(option, given):
        return (given,)
    return tuple(dict.fromkeys(text.strip() for text in given.split(",")))


def variants(options: Mapping[str, Option], given: Given) -> Iterator[dict[str, str]]:
    """Every combination of the values, the last option changing fastest.

    Args:
        options: those that the rule or task declares.
        given: what the user wrote; an unknown option is left for `rulezoo.options.configure` to refuse.
    """
    listed = [values(options.get(name), text) for name, text in given.items()]
    for chosen in itertools.product(*listed):
        yield dict(zip(given, chosen, strict=True))


def listed(options: Mapping[str, Option], given: Given) -> dict[str, str | tuple[str, ...]]:
    """What was given, with the values of each grid in a tuple."""
    found = {name: values(options.get(name), text) for name, text in given.items()}
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in found.items()}


def size(options: Mapping[str, Option], given: Given) -> int:
    """The number of combinations."""
    return math.prod(len(values(options.get(name), text)) for name, text in given.items())


def single(given: Given) -> dict[str, str]:
    """The options of a cell, each of which has one value.

    Raises:
        ValueError: if an option has several.
    """
    words = {name: text for name, text in given.items() if isinstance(text, str)}
    if len(words) < len(given):
        raise ValueError(f"the options of one rule on one task cannot be a grid: {dict(given)}")
    return words


def _readable(option: Option, text: str) -> bool:
    try:
        option.read(text)
    except OptionError:
        return False
    return True
