"""What each visit of a site receives of an error or a target."""

from __future__ import annotations

from torch import Tensor

from rulezoo import Net, credit


def visits_by_site(net: Net) -> dict[str, list[str]]:
    """Site of kind ``post`` → the keys of its visits, in the order of the forward pass."""
    found: dict[str, list[str]] = {}
    for key in net.keys("post"):
        found.setdefault(net.visits[key].site, []).append(key)
    return found


def received(net: Net, signal: Tensor) -> dict[str, Tensor]:
    """What each visit receives of a signal of the output's shape: key → ``(batch, numbers)``.

    Where the output has a value at every time step, a visit receives that of its own step; elsewhere the whole.
    """
    found: dict[str, Tensor] = {}
    for visits in visits_by_site(net).values():
        own_steps = signal.ndim == 3 and signal.shape[1] == len(visits)
        rows = list(signal.unbind(1)) if own_steps else [credit.rows(signal)] * len(visits)
        found |= dict(zip(visits, rows, strict=True))
    return found
