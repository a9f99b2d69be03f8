"""Means over seeds, with the band in which the seeds lie: what the pictures draw and their tables tell."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rulezoo.results.records import Record

AFTER = "after training"


class Series(NamedTuple):
    """A line with a band: at each ``x`` the mean over seeds, the smallest and the largest."""

    name: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def series(name: str, points: Iterable[tuple[float, float | None]]) -> Series | None:
    """From points of all seeds; ``None`` where there is none with a value."""
    by_x: dict[float, list[float]] = defaultdict(list)
    for x, y in points:
        if y is not None:
            by_x[x].append(y)
    if not by_x:
        return None
    values = [by_x[x] for x in sorted(by_x)]
    means = tuple(statistics.fmean(v) for v in values)
    return Series(name, tuple(sorted(by_x)), means, tuple(map(min, values)), tuple(map(max, values)))


def curve(name: str, runs: Sequence[Record]) -> Series | None:
    """Validation score in % against epochs."""
    return series(
        name,
        ((p.epoch, None if p.validation is None else 100 * p.validation) for run in runs for p in run.curve),
    )


def angles(runs: Sequence[Record]) -> list[Series]:
    """Angle to backprop in degrees against epochs, one series for each site, then the weights all together."""
    sites = dict.fromkeys(site for run in runs for probe in run.probes for site in probe.sites)
    found = [
        series(s, ((p.epoch, p.sites.get(s, {}).get("angle")) for run in runs for p in run.probes))
        for s in sites
    ]
    together = series(
        "all weights", ((p.epoch, p.weights.get("*", {}).get("angle")) for run in runs for p in run.probes)
    )
    return [one for one in [*found, together] if one]
