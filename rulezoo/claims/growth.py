"""How fast does the manifold's dimension grow with the width of the network? The exponent b of d ∝ nᵇ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rulezoo.claims.chart import Chart, Point
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import Evidence, at_end, mean_of, over_seeds, sites
from rulezoo.claims.verdicts import METHOD, Interval, Verdict, below, conclude, t_interval

_FEWEST = 3  # widths to draw a line through


@dataclass(frozen=True)
class Growth(Criterion):
    """A criterion on arms of one rule that stand on an axis of width.

    Attributes:
        quantities: of a probe, the estimates of dimension → their names in tables.
        slow: the exponent below which growth is called slow; 1 would be growth in proportion to width.
    """

    quantities: Mapping[str, str] = field(hash=False)
    slow: float = 0.5

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        named = ", ".join(self.quantities.values())
        return (
            "The exponent b is the slope of log d on log n (n units of the site) over all widths, fitted for each seed "
            f"and site after training, and averaged over sites. Supported if b is below {self.slow:g} for every "
            f"estimate of d ({named}); not supported if it is above {self.slow:g} for at least one. Proportional growth has "
            f"b = 1; {self.slow:g} means that doubling the width adds at most {100 * (2**self.slow - 1):.0f} %. {METHOD}."
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        return conclude(
            [
                below(
                    f"exponent of {name}", self._mean_exponent(evidence, quantity), self.slow, kind="exponent"
                )
                for quantity, name in self.quantities.items()
            ]
        )

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        names = sites(evidence.records)
        exponents = [
            (site, *(self._exponent(evidence, [site], q).text(2) for q in self.quantities)) for site in names
        ]
        exponents.append(
            ("mean over sites", *(self._mean_exponent(evidence, q).text(2) for q in self.quantities))
        )
        sizes = []
        for width in evidence.positions():
            runs = evidence.of(at=width)
            for site in names:
                n = over_seeds(runs, at_end(site, "units")).mean
                found = [over_seeds(runs, at_end(site, q)).text(1) for q in self.quantities]
                sizes.append((f"×{width:g}", site, f"{n:.0f}", *found, f"{100 * mean_of(runs):.1f}"))
        named = tuple(self.quantities.values())
        return [
            Table("Exponent b of dimension against width", ("site", *named), tuple(exponents)),
            Table(
                "Dimension after training", ("width", "site", "units n", *named, "accuracy %"), tuple(sizes)
            ),
        ]

    def chart(self, evidence: Evidence) -> Chart:
        """See `Criterion`."""
        names = sites(evidence.records)
        points = tuple(
            Point(panel, site, n, d)
            for quantity, panel in self.quantities.items()
            for record in evidence.records
            for site in names
            if math.isfinite(n := at_end(site, "units")(record)) and (d := at_end(site, quantity)(record)) > 0
        )
        return Chart(
            points=points,
            x="units n of the site",
            y=dict.fromkeys(self.quantities.values(), "dimension d"),
            log="xy",
            description="One panel for each estimate of dimension, on logarithmic axes, with a line for each site: dimension "
            "against the number of units. The slopes of the lines are in the first table.",
        )

    def _mean_exponent(self, evidence: Evidence, quantity: str) -> Interval:
        return self._exponent(evidence, sites(evidence.records), quantity)

    def _exponent(self, evidence: Evidence, names: Sequence[str], quantity: str) -> Interval:
        """Mean over the sites named, with its interval over seeds."""
        seeds = sorted({seed for runs in evidence.runs.values() for seed in runs})
        return t_interval(_mean([_slope(evidence, seed, site, quantity) for site in names]) for seed in seeds)


def _slope(evidence: Evidence, seed: int, site: str, quantity: str) -> float:
    pairs = []
    for runs in evidence.runs.values():
        if seed in runs:
            n, d = (at_end(site, name)(runs[seed]) for name in ("units", quantity))
            pairs += [(math.log(n), math.log(d))] if n > 0 and d > 0 else []
    return slope(pairs)


def slope(pairs: Sequence[tuple[float, float]]) -> float:
    """Slope of the least-squares line through points (x, y); nan with fewer than three different x."""
    if len({x for x, _ in pairs}) < _FEWEST:
        return math.nan
    centre = [math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True)]
    along = math.fsum((x - centre[0]) * (y - centre[1]) for x, y in pairs)
    return along / math.fsum((x - centre[0]) ** 2 for x, _ in pairs)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
