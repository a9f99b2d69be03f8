"""The error of a call from Python that cannot be carried out."""

from __future__ import annotations

import functools

from rulezoo.errors import UserError


class CallError(UserError, ValueError):
    """An argument or a batch that cannot be used; the message names it, says what was expected, and what to do."""


def name_of(one: object) -> str:
    """The name of a function, class or module for a message, also where arguments of it are fixed by `functools.partial`."""
    return (
        name_of(one.func)
        if isinstance(one, functools.partial)
        else str(getattr(one, "__name__", type(one).__name__))
    )
