"""Where the names of points go, so that they cover neither each other nor the points.

The same points give the same positions: a greedy choice among a few candidates around each point, the most crowded point first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_ANGLES = (0, 180, 90, -90, 45, -45, 135, -135, 20, -20, 160, -160)  # degrees, the preferred ones first
_DISTANCES = (8.0, 16.0, 26.0, 38.0, 52.0, 70.0, 90.0)  # from the centre of a point, the nearest first
_POINT = 5.0  # half the size of a point
_MARGIN = 1.5  # around a name


class Box(NamedTuple):
    """A rectangle; ``y`` grows upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        across = min(self.right, other.right) - max(self.left, other.left)
        up = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, across) * max(0.0, up)

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2


class Point(NamedTuple):
    """A point, the size of its name, and the ends of its whisker."""

    x: float
    y: float
    width: float
    height: float
    low: float
    high: float


def place(points: Sequence[Point], frame: Box, lines: Sequence[Box] = ()) -> list[Box | None]:
    """A box for the name of each point; ``None`` where none is free of other names and points, and so it is left out.

    Args:
        points: with their names.
        frame: in which the boxes must be.
        lines: thin boxes that names had better not cover, as whiskers.
    """
    obstacles = [_around(one) for one in points]
    whiskers = [*lines, *(Box(one.x - 1, one.low, one.x + 1, one.high) for one in points)]
    placed: dict[int, Box] = {}
    for i in sorted(range(len(points)), key=lambda i: (-_crowd(points, i), i)):
        taken = list(placed.values())
        free = [one for one in _candidates(points[i]) if _is_free(one.box, frame, obstacles, taken)]
        if free:
            placed[i] = min(free, key=lambda one: one.penalty + 4 * sum(map(one.box.overlap, whiskers))).box
    return [placed.get(i) for i in range(len(points))]


def _around(one: Point) -> Box:
    return Box(one.x - _POINT, one.y - _POINT, one.x + _POINT, one.y + _POINT)


def _crowd(points: Sequence[Point], i: int) -> float:
    return sum(
        math.exp(-math.dist(points[i][:2], other[:2]) / 40) for j, other in enumerate(points) if j != i
    )


class _Candidate(NamedTuple):
    """A box, and how little it is preferred."""

    penalty: float
    box: Box


def _candidates(one: Point) -> Iterable[_Candidate]:
    """Boxes around a point."""
    for reach, distance in enumerate(_DISTANCES):
        for preference, angle in enumerate(_ANGLES):
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = one.x + distance * across, one.y + distance * up
            left = x - one.width * (1 - across) / 2
            bottom = y - one.height * (1 - up) / 2
            box = Box(left, bottom, left + one.width, bottom + one.height)
            yield _Candidate(30 * reach + preference, box)


def _is_free(box: Box, frame: Box, points: Iterable[Box], names: Iterable[Box]) -> bool:
    area = (box.right - box.left) * (box.top - box.bottom)
    return (
        box.overlap(frame) >= 0.999 * area
        and not any(map(box.overlap, points))
        and not any(map(_wide(box).overlap, names))
    )


def _wide(box: Box) -> Box:
    return Box(box.left - _MARGIN, box.bottom - _MARGIN, box.right + _MARGIN, box.top + _MARGIN)
