"""The errors a user can mend, and the near names their messages offer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of what the user can mend: the command line shows the message in one line and exits.

    Attributes:
        exit_code: the command line's; 2 = it was asked for what cannot be done.
    """

    exit_code = 2


class UnknownName(UserError, LookupError):
    """A name that nothing has; the message gives the near ones and where to find the rest."""


class AmbiguousName(UserError, LookupError):
    """A name that more than one plugin claims; the message names them."""


class PluginError(UserError):
    """A plugin broke the contract, or its code failed; the message says what and why."""


class WeightsError(UserError, ValueError):
    """Trained weights that were not kept, were changed, or belong to another network; the message says what to do."""


def unknown(kind: str, name: str, known: Iterable[str], listing: str) -> UnknownName:
    """The error for a name that is not among the known ones.

    Args:
        kind: what it should name: ``"rule"``.
        name: what was asked for.
        known: the names there are.
        listing: the command that lists them.
    """
    hint = did_you_mean(name, known)
    return UnknownName(f"unknown {kind} {name!r}{'; ' * bool(hint)}{hint} ({listing})")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"did you mean 'a' or 'b'?"``, nearest first, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.65)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""
