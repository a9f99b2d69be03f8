"""The error of a network that rulezoo cannot train."""

from __future__ import annotations

from rulezoo.errors import UserError


class NetError(UserError, ValueError):
    """A network that cannot be used as a pure function with sites; the message names the cause and a way out."""
