"""Does the number of perturbations that one rule saves against another grow with the width of the network?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rulezoo.claims.chart import Chart, Point
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import Evidence, at_end, over_seeds, paired, score, sites, size
from rulezoo.claims.growth import slope
from rulezoo.claims.references import reference_table, size_of
from rulezoo.claims.savings import BOUNDS, Saving, factor, factor_text, savings
from rulezoo.claims.verdicts import METHOD, Interval, Verdict, above, conclude, t_interval
from rulezoo.measures.site_theory import SiteTheory


@dataclass(frozen=True)
class GrowingSavings(Criterion):
    """A criterion on arms that stand on an axis of width: one series at a fixed budget, another at several.

    Attributes:
        ours: label of the series with the fixed budget.
        budget: its perturbations.
        theirs: number of perturbations → label of the other series at that number.
        unit: what a budget counts.
        averaged: effective perturbations of each, by the running average.
    """

    ours: str
    budget: float
    theirs: Mapping[float, str] = field(hash=False)
    unit: str
    averaged: float

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        return (
            f"For each width, seed and site, k is the number of {self.unit} with which the other rule has the angle to the true "
            f"gradient that {self.ours} has with {self.budget:g}, divided by {self.budget:g}; interpolated on the logarithm of the "
            "budgets that were run, never extrapolated. The exponent is the slope of log k on log n (n units of the site) over all "
            "widths, fitted for each seed and site and averaged over sites. Supported if it is above 0; not supported if it is "
            "below 0. Reported and not judged: whether the advantage in test score at equal budget is larger in the widest network "
            f"than in the narrowest. {METHOD}."
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        found = self._exponent(evidence, self._sites(evidence))
        parts = [above("exponent of k against n", found, 0, digits=2, kind="exponent")]
        widths = evidence.positions(self.ours)
        gains = [self._gain(evidence, width) for width in (widths[0], widths[-1])]
        growth = t_interval(100 * (gains[1][seed] - gains[0][seed]) for seed in gains[0] if seed in gains[1])
        what = "growth of the advantage in test score from the narrowest to the widest network"
        parts.append(above(what, growth, 0, unit=" points", kind="score", judged=False))
        return conclude(parts, [BOUNDS])

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        names = self._sites(evidence)
        exponents = [(site, self._exponent(evidence, [site]).text(2)) for site in names]
        exponents.append(("mean over sites", self._exponent(evidence, names).text(2)))
        others = [label for label in evidence.labels() if label not in (self.ours, *self.theirs.values())]
        return [
            Table("Exponent of k against the number of units n", ("site", "exponent"), tuple(exponents)),
            self._factors(evidence, names),
            self._scores(evidence),
            *(reference_table(evidence, task, others) for task in evidence.tasks()),
        ]

    def chart(self, evidence: Evidence) -> Chart:
        """See `Criterion`."""
        points = []
        for width in evidence.positions(self.ours):
            for site in self._sites(evidence):
                n = self._units(evidence, width, site)
                for one in self._savings(evidence, width, site).values():
                    points.append(Point("measured", site, n, one.factor))
                if math.isfinite(predicted := self._predicted(evidence, width, site)):
                    points.append(Point("predicted from n, d, α, ρ", site, n, predicted))
        panels = dict.fromkeys(point.panel for point in points)
        return Chart(
            points=tuple(points),
            x="units n of the site",
            y=dict.fromkeys(panels, "k, how many times fewer perturbations"),
            log="xy",
            description="k, how many times fewer perturbations are needed for the same angle, against the number of units, on "
            "logarithmic axes: as measured and as theory predicts, with a line for each site. The slopes are in the first "
            "table.",
        )

    def _sites(self, evidence: Evidence) -> list[str]:
        return sites(evidence.records)

    def _units(self, evidence: Evidence, width: float, site: str) -> float:
        return over_seeds(evidence.of(self.ours, width), at_end(site, "units")).mean

    def _savings(self, evidence: Evidence, width: float, site: str) -> dict[int, Saving]:
        theirs = {k: evidence.of(label, width) for k, label in self.theirs.items()}
        return savings(evidence.of(self.ours, width), theirs, self.budget, site)

    def _exponent(self, evidence: Evidence, names: Sequence[str]) -> Interval:
        pairs: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for width in evidence.positions(self.ours):
            for site in names:
                n = self._units(evidence, width, site)
                for seed, one in self._savings(evidence, width, site).items():
                    pairs.setdefault((seed, site), []).append((math.log(n), math.log(one.factor)))
        slopes = {place: slope(found) for place, found in pairs.items()}
        seeds = sorted({seed for seed, _ in slopes})
        return t_interval(
            math.fsum(slopes.get((seed, site), math.nan) for site in names) / len(names)
            if names
            else math.nan
            for seed in seeds
        )

    def _gain(self, evidence: Evidence, width: float) -> dict[int, float]:
        ours, theirs = evidence.of(self.ours, width), evidence.of(self.theirs[self.budget], width)
        return {seed: score(ours[seed]) - score(theirs[seed]) for seed in ours if seed in theirs}

    def _predicted(self, evidence: Evidence, width: float, site: str) -> float:
        """Equations (1), (2), (7) and (8), with what was measured of our networks."""
        runs = evidence.of(self.ours, width)
        n, d, alpha, rho = (
            over_seeds(runs, at_end(site, name)).mean
            for name in ("units", "rank", "alpha_mean_gradient", "spread")
        )
        if not all(map(math.isfinite, (n, d, alpha))):
            return math.nan
        theory = SiteTheory(n, d, min(alpha, 1.0), max(1.0, rho) if math.isfinite(rho) else 1.0)
        angle = theory.angle(self.budget * self.averaged, manifold=True)
        return theory.perturbations(angle, manifold=False) / self.averaged / self.budget

    def _factors(self, evidence: Evidence, names: Sequence[str]) -> Table:
        rows = []
        for width in evidence.positions(self.ours):
            for site in names:
                found, ours = self._savings(evidence, width, site), evidence.of(self.ours, width)
                bound = any(one.bound for one in found.values())
                theirs = [evidence.of(label, width) for _, label in sorted(self.theirs.items())]
                angle, alpha = at_end(site, "angle"), at_end(site, "alpha_mean_gradient")
                rows.append(
                    (
                        f"×{width:g}",
                        site,
                        f"{self._units(evidence, width, site):.0f}",
                        f"{over_seeds(ours, alpha).mean:.2f}",
                        over_seeds(ours, angle).text(1),
                        *(over_seeds(runs, angle).text(1) for runs in theirs),
                        factor_text(factor([found]), bound=bound),
                        f"×{self._predicted(evidence, width, site):.2g}",
                        size(over_seeds(ours, at_end(site, "norm_ratio"))),
                        size_of(over_seeds(ours, at_end(site, "gradient_norm"))),
                    )
                )
        head = (
            "width", "site", "units n", "α of the mean gradient", f"angle of {self.ours}",
            *(f"angle of {label}" for _, label in sorted(self.theirs.items())), "k measured", "k predicted",
            f"size of the signal of {self.ours} ÷ true gradient", "size of the true gradient",
        )  # fmt: skip
        return Table(
            f"Angles in degrees after training, and k at {self.budget:g} {self.unit}", head, tuple(rows)
        )

    def _scores(self, evidence: Evidence) -> Table:
        labels, rows = evidence.labels(), []
        for width in evidence.positions(self.ours):
            runs = {label: evidence.of(label, width) for label in labels}
            gain = paired(runs[self.ours], runs[self.theirs[self.budget]], score).scaled(100)
            shown = [over_seeds(runs[label], score).scaled(100).text(1) for label in labels]
            rows.append((f"×{width:g}", *shown, gain.text(1, sign=True)))
        return Table("Test score in percent", ("width", *labels, "difference at equal budget"), tuple(rows))
