"""What theory predicts and what the claims measured: angles over the closed forms, and crossovers.

Every arm that says how it perturbs (`Noise`) gives a point for each site: the angle to the true gradient after training,
and the angle that equations (1), (2), (7) and (8) predict from numbers of the same network that need no perturbation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rulezoo.claims.chart import Chart, Curve, Point
from rulezoo.claims.design import Arm, Profile, Table
from rulezoo.claims.evidence import Evidence, at_end, last_probe, sites
from rulezoo.claims.verdicts import Interval, t_interval
from rulezoo.measures import theory
from rulezoo.measures.site_theory import SiteTheory
from rulezoo.results.records import Record
from rulezoo.text import number

ALL_UNITS, IN_MANIFOLD = "noise in all units (VNC)", "noise in the manifold (NMNC)"
_ALONG = "effective perturbations K ÷ ((d+2)ρ − 1)"
_NEEDED = ("units", "rank", "alpha_mean_gradient", "angle")


@dataclass(frozen=True)
class Measured:
    """One site of one run.

    Attributes:
        site: its numbers, as theory needs them.
        k: effective perturbations.
        manifold: whether only the manifold was perturbed.
        angle: measured, to the true gradient, degrees.
    """

    site: SiteTheory
    k: float
    manifold: bool
    angle: float

    @property
    def predicted(self) -> float:
        """The angle that theory predicts, degrees."""
        return self.site.angle(self.k, manifold=self.manifold)

    @property
    def per_dimension(self) -> float:
        """Effective perturbations for each unit of variance: with this on the axis all sites have one curve."""
        d = self.site.rank if self.manifold else self.site.units
        return self.k / ((d + 2) * self.site.rho - 1)

    @property
    def share(self) -> float:
        """cos² of the measured angle, divided by that of the smallest possible one; theory: x/(1+x)."""
        smallest = math.cos(math.radians(self.site.smallest_angle(manifold=self.manifold))) ** 2
        return math.cos(math.radians(self.angle)) ** 2 / smallest if smallest else math.nan


@dataclass(frozen=True)
class Row:
    """One site of one arm: runs of several seeds."""

    claim: str
    profile: Profile
    arm: Arm
    name: str
    runs: tuple[Measured, ...]

    @property
    def difference(self) -> Interval:
        """Measured minus predicted angle, over seeds."""
        return t_interval(run.angle - run.predicted for run in self.runs)

    def mean(self, values: Iterable[float]) -> float:
        """Mean over seeds."""
        found = list(values)
        return math.fsum(found) / len(found)


def rows(claim: str, profile: Profile, evidence: Evidence) -> Iterator[Row]:
    """The points of a claim: for each arm that perturbs, its sites, widest first."""
    for arm, runs in evidence.runs.items():
        if arm.noise is None:
            continue
        for site in sites(runs.values()):
            found = [one for record in runs.values() if (one := measured(record, arm, site)) is not None]
            if found:
                yield Row(claim, profile, arm, site, tuple(found))


def measured(record: Record, arm: Arm, site: str) -> Measured | None:
    """What a run says of a site; ``None`` where a number that theory needs is missing."""
    numbers = [at_end(site, name)(record) for name in _NEEDED]
    if arm.noise is None or not all(map(math.isfinite, numbers)):
        return None
    rate, probe = record.asked.rule_options.get(arm.noise.rate), last_probe(record)
    known = rate if isinstance(rate, int | float) and not isinstance(rate, bool) else None
    steps = max(1, probe.step) if probe else 1
    k = (
        arm.noise.perturbations
        if known is None
        else theory.effective_perturbations(arm.noise.perturbations, float(known), steps)
    )
    n, d, alpha, angle = numbers
    rho, ceiling = at_end(site, "spread")(record), at_end(site, "ceiling")(record)
    rho = max(1.0, rho) if math.isfinite(rho) else 1.0
    ceiling = min(ceiling, 89.9) if math.isfinite(ceiling) else 0.0
    return Measured(SiteTheory(n, d, min(alpha, 1.0), rho, ceiling), k, arm.noise.manifold, angle)


def table(found: Sequence[Row]) -> Table:
    """Every point: what was predicted, what was measured."""
    lines = []
    for row in found:
        first, mean = row.arm, row.mean
        lines.append(
            (
                f"{row.claim} ({row.profile})",
                ", ".join([first.task, *(f"{name}={value}" for name, value in first.task_options.items())]),
                row.name,
                first.label,
                f"{first.noise.perturbations:g}" if first.noise else "",
                f"{mean(run.k for run in row.runs):,.0f}",
                f"{mean(run.site.units for run in row.runs):,.0f}",
                f"{mean(run.site.rank for run in row.runs):,.0f}" if row.runs[0].manifold else "",
                f"{mean(run.site.alpha for run in row.runs):.2f}" if row.runs[0].manifold else "",
                f"{mean(run.site.rho for run in row.runs):.2f}",
                f"{mean(run.site.ceiling for run in row.runs):.0f}",
                f"{mean(run.predicted for run in row.runs):.1f}",
                t_interval(run.angle for run in row.runs).text(1),
                row.difference.text(1, sign=True),
            )
        )
    head = (
        "claim", "task", "site", "series", "perturbed examples per site and step", "effective K", "units n", "d", "α", "ρ",
        "ceiling, degrees", "predicted angle", "measured angle", "difference",
    )  # fmt: skip
    return Table(
        "Angle to the true gradient after training, predicted and measured, in degrees", head, tuple(lines)
    )


def summary(found: Sequence[Row]) -> Table:
    """How far prediction and measurement are apart: one line for each claim and kind of noise."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in found:
        kind = IN_MANIFOLD if row.runs[0].manifold else ALL_UNITS
        groups.setdefault((f"{row.claim} ({row.profile})", kind), []).append(row.difference.mean)
    lines = [
        (
            claim,
            kind,
            str(len(values)),
            number(math.fsum(values) / len(values), signed=True),
            f"{math.fsum(map(abs, values)) / len(values):.1f}",
            number(max(values, key=abs), signed=True),
        )
        for (claim, kind), values in groups.items()
    ]
    head = (
        "claim",
        "noise",
        "points",
        "mean difference",
        "mean size of the difference",
        "largest difference",
    )
    return Table("Measured minus predicted angle, in degrees", head, tuple(lines))


def chart(found: Sequence[Row]) -> Chart:
    """The points over the curve, and measured against predicted angles."""
    points, x = [], []
    for row in found:
        panel = IN_MANIFOLD if row.runs[0].manifold else ALL_UNITS
        along = row.mean(run.per_dimension for run in row.runs)
        x.append(along)
        points.append(Point(panel, row.claim, along, row.mean(run.share for run in row.runs)))
    low, high = math.log10(min(x)), math.log10(max(x))
    steps = [10 ** (low + (high - low) * i / 60) for i in range(61)]
    curve = tuple((value, value / (1 + value)) for value in steps)
    panels = [panel for panel in (ALL_UNITS, IN_MANIFOLD) if any(point.panel == panel for point in points)]
    return Chart(
        points=tuple(points),
        x=_ALONG,
        y=dict.fromkeys(panels, "cos² of the angle ÷ that of the smallest possible angle"),
        log="x",
        curves=tuple(Curve(panel, curve, "theory, x/(1+x)") for panel in panels),
        scatter=True,
        description="A panel for each kind of noise, with a point for each site of each arm and the curve of theory: "
        "cos² of the angle to the true gradient, divided by that of the smallest angle that is possible with the "
        "manifold and the ceiling of the site, against the effective number of perturbations per dimension. All "
        "numbers are in the table.",
    )
