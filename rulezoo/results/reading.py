"""Content that others may have written or changed, as it is read: records, notes, conclusions of tunings.

Every file of a store comes in through `decode` or `convert`. What a field may hold is declared with its class, as a type
with bounds or in ``__post_init__``; here a value that breaks such a bound becomes a sentence that names it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from rulezoo.text import brief

if TYPE_CHECKING:
    from rulezoo.results.records import Record

T = TypeVar("T")

_ASKED = ("rule_options", "task_options", "budget")
_ANSWERED = ("packages", "hardware", "rule_plugin", "task_plugin")
_PATH = re.compile(r" - at `\$([^`]*)`$")
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(\d+)\]")


class Unreadable(Exception):
    """Why a file cannot be used, with what to do."""


def decode(content: bytes, kind: type[T]) -> T:
    """The value that some JSON holds.

    Args:
        content: of a file.
        kind: the class that it should be of; ``Any`` for plain content.

    Raises:
        Unreadable: if it is not JSON, not of that class, or breaks one of its bounds.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise Unreadable(_words(str(error), _plain(content))) from error
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise Unreadable(f"is not whole JSON ({brief(error, 200)})") from error


def convert(content: Any, kind: type[T]) -> T:  # noqa: ANN401  plain JSON content
    """Like the above for content that is plain objects already."""
    try:
        return msgspec.convert(content, kind)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise Unreadable(_words(str(error), content)) from error


def _plain(content: bytes) -> Any:  # noqa: ANN401
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.decode(content)
    return None


def _words(message: str, content: Any) -> str:  # noqa: ANN401
    """A message of msgspec's, with the value that it is about."""
    found = _PATH.search(message)
    value = _value(content, found[1]) if found else ""
    return brief(f"is not as expected ({message}{value})", 300)


def _value(content: Any, path: str) -> str:  # noqa: ANN401
    """``: 1e308`` for the value at a path, or for what holds it where the path does not name its key."""
    try:
        for found in _STEP.finditer(path.partition("[...]")[0]):
            content = content[found[1]] if found[1] else content[int(found[2])]
        return f": {brief(msgspec.json.encode(content).decode(), 60)}"
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError):
        return ""


class Shared:
    """Makes records share what is equal in them, such as the options of the same rule: a store has few of each."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Any, ...]] = {}

    def __call__(self, record: Record) -> Record:
        """The same record, its parts shared with those before it."""
        for owner, names in ((record.asked, _ASKED), (record.answered, _ANSWERED)):
            values = tuple([getattr(owner, name) for name in names])
            identity = msgspec.json.encode(
                values
            )  # JSON tells 1, 1.0 and true apart, which Python takes for equal
            for name, value in zip(names, self._known.setdefault(identity, values), strict=True):
                msgspec.structs.force_setattr(owner, name, value)
        return record
