"""Small drawings within a line of a table, as inline SVG: an interval on an axis, and a dot for each seed.

They are drawn for the eye only: the numbers stand next to them as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from rulezoo.leaderboard.stats import Estimate

_MARGIN = 4  # pixels at either end, so that no mark is cut off


@dataclass(frozen=True)
class Axis:
    """A horizontal axis.

    Attributes:
        low: value at its left end.
        high: value at its right end; larger than ``low``.
        width: in pixels.
    """

    low: float
    high: float
    width: int

    def at(self, value: float) -> str:
        """The position of a value in pixels; what lies beyond an end is drawn at this end."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return f"{_MARGIN + share * (self.width - 2 * _MARGIN):.1f}".removesuffix(".0")

    def has(self, value: float) -> bool:
        """Whether a value lies on it."""
        return self.low <= value <= self.high


def axis(values: Iterable[float], base: tuple[float, float], limits: tuple[float, float], width: int) -> Axis:
    """An axis that has room for its base and for all values, as far as the limits.

    Args:
        values: to be drawn.
        base: the ends that it has in any case.
        limits: beyond which it does not reach, so that one extreme value does not compress the others.
        width: in pixels.
    """
    found = [*values, *base]
    low, high = max(min(found), limits[0]), min(max(found), limits[1])
    return Axis(low, high if high > low else low + 1.0, width)


def interval(on: Axis, one: Estimate, marks: Iterable[float], kind: str = "") -> Markup:
    """A dot with its interval, and upright lines at some values; ``kind`` is the class of the dot, for its colour."""
    lines = "".join(f"M{on.at(value)} 1v14" for value in marks if on.has(value))
    span = "" if one.method == "none" else f'<path d="M{on.at(one.low)} 8H{on.at(one.high)}"/>'
    return Markup(
        '<svg class="strip {kind}" width="{width}" height="16" aria-hidden="true"><path class="axis" d="{lines}"/>{span}'
        '<circle cx="{x}" cy="8" r="3.5"/></svg>'
    ).format(kind=kind, width=on.width, lines=lines, span=Markup(span), x=on.at(one.value))


def ticks(on: Axis, marks: Iterable[float]) -> Markup:
    """The numbers that stand above an axis."""
    texts = Markup("").join(
        Markup('<text x="{}" y="10">{:g}</text>').format(on.at(value), value)
        for value in marks
        if on.has(value)
    )
    return Markup('<svg class="ticks" width="{}" height="12" aria-hidden="true">{}</svg>').format(
        on.width, texts
    )


def dots(on: Axis, scores: Iterable[float], failed: Iterable[float], marks: Iterable[float] = ()) -> Markup:
    """A dot for each score, a cross for each failed run, and upright lines at some values."""
    lines = "".join(f"M{on.at(value)} 1v8" for value in marks if on.has(value))
    drawn = "".join(f"M{on.at(score)} 5h0" for score in scores)
    crosses = "".join(f"M{on.at(score)} 5m-2-2l4 4m0-4l-4 4" for score in failed)
    parts = [f'<path class="{name}" d="{d}"/>' for name, d in (("axis", lines), ("failed", crosses)) if d]
    return Markup(
        '<svg class="dots" viewBox="0 0 {} 10" preserveAspectRatio="none" aria-hidden="true">{}<path d="{}"/></svg>'
    ).format(on.width, Markup("".join(parts)), drawn)
