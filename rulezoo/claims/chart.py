"""A picture as data: what `rulezoo.claims.figures` draws, and its description in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Point:
    """One number of one run: the mean over seeds is drawn, with its interval.

    Attributes:
        panel: the panel it stands in.
        series: what has a colour of its own.
        x: its place on the horizontal axis.
        y: the number.
        row: where the chart has no horizontal axis, the row it stands in, with one dot for each series; empty = its series'.
    """

    panel: str
    series: str
    x: float
    y: float
    row: str = ""


@dataclass(frozen=True)
class Mark:
    """A line across a panel, at a value of ``y`` (a reference) or of ``x`` (a predicted place)."""

    panel: str
    axis: Literal["x", "y"]
    value: float
    text: str


@dataclass(frozen=True)
class Curve:
    """A line through a panel that was not measured, such as a prediction."""

    panel: str
    points: tuple[tuple[float, float], ...]
    text: str


@dataclass(frozen=True)
class Chart:
    """Panels side by side.

    Attributes:
        points: what was measured.
        x: label of the horizontal axis; empty = there is none, and dots stand in rows.
        y: panel → label of its vertical axis.
        log: which axes are logarithmic.
        marks: lines across panels.
        curves: predictions.
        scatter: draw each point by itself, and no line through those of a series.
        x_of: panel → label of its horizontal axis, where that is not `x`.
        description: what there is to see, for those who cannot see it.
    """

    points: tuple[Point, ...]
    x: str
    y: dict[str, str]
    description: str
    log: Literal["", "x", "xy"] = ""
    marks: tuple[Mark, ...] = ()
    curves: tuple[Curve, ...] = ()
    scatter: bool = False
    x_of: dict[str, str] = field(default_factory=dict)

    @property
    def panels(self) -> list[str]:
        """The panels, in order."""
        return list(self.y)
