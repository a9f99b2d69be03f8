"""Does the Jacobian come to lie in the manifold of activity? Its share α there, against chance and two controls."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rulezoo.claims.chart import Chart, Mark, Point
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import (
    Evidence,
    Measure,
    at_end,
    at_start,
    last_probe,
    mean_of,
    number,
    over_seeds,
    sites,
)
from rulezoo.claims.verdicts import METHOD, Verdict, above, conclude
from rulezoo.results.records import Probe, Record


@dataclass(frozen=True)
class Alignment(Criterion):
    """A criterion on arms of one rule that stand on an axis of weight decay.

    Attributes:
        decays: those that the verdict rests on; others are shown.
        rise: the alignment that is required beyond each control.
    """

    decays: tuple[float, ...]
    rise: float = 0.1

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        decays = ", ".join(f"{decay:g}" for decay in self.decays)
        return (
            "Alignment A = (α − d/n)/(1 − d/n), mean over sites, where α is the share of the Jacobian's energy in the "
            "manifold: 0 is chance, 1 is all of it. Supported if, after training, A exceeds by more than "
            f"{self.rise:g} both (1) A of a random subspace of the same dimension in the same network and (2) A of the "
            f"same network before training, at each weight decay of {decays}; not supported if one of these differences "
            f"lies below {self.rise:g}. {METHOD}."
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        parts = []
        for decay in self.decays:
            runs = evidence.of(at=decay)
            for control, measure in (
                ("random subspace", _over_random),
                ("untrained network", _over_untrained),
            ):
                what = f"weight decay {decay:g}, A(trained) − A({control})"
                found = over_seeds(runs, measure)
                parts.append(above(what, found, self.rise, digits=2, kind=f"against {control}"))
        return conclude(parts)

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        control = "α of a random subspace"
        head = (
            "weight decay",
            "site",
            "units n",
            "d",
            "chance d/n",
            "α untrained",
            "α trained",
            control,
            "accuracy %",
        )
        rows = []
        for decay in evidence.positions():
            runs = evidence.of(at=decay)
            for site in sites(runs.values()):
                measures: list[tuple[Measure, int]] = [
                    (at_end(site, "units"), 0),
                    (at_end(site, "rank"), 0),
                    (at_end(site, "chance"), 3),
                    (at_start(site, "alpha"), 3),
                ]
                means = [f"{over_seeds(runs, measure).mean:.{digits}f}" for measure, digits in measures]
                trained = over_seeds(runs, at_end(site, "alpha")).text(3)
                chance = f"{over_seeds(runs, at_end(site, 'alpha_random')).mean:.3f}"
                score = f"{100 * mean_of(runs):.1f}"
                rows.append((f"{decay:g}", site, *means, trained, chance, score))
        return [Table("Share α of the Jacobian's energy in the manifold", head, tuple(rows))]

    def chart(self, evidence: Evidence) -> Chart:
        """See `Criterion`."""
        names = sites(evidence.records)
        points = tuple(
            Point(site, f"weight decay {decay:g}", probe.epoch, alpha)
            for decay in evidence.positions()
            for record in evidence.of(at=decay).values()
            for probe in record.probes
            for site in names
            if math.isfinite(alpha := number(probe, site, "alpha"))
        )
        chance = {site: over_seeds(evidence.of(), at_end(site, "chance")).mean for site in names}
        return Chart(
            points=points,
            x="epochs of training",
            y=dict.fromkeys(names, "α, share of the Jacobian in the manifold"),
            marks=tuple(Mark(site, "y", value, "chance d/n") for site, value in chance.items()),
            description=f"One panel for each site ({', '.join(names)}): α through training, a line for each weight decay, "
            "and a dashed line at chance. The values before and after training are in the table.",
        )


def alignment(probe: Probe | None, quantity: str = "alpha") -> float:
    """(α − d/n)/(1 − d/n), mean over the sites where the manifold is not everything; nan where there is none."""
    shares = []
    for site in probe.sites if probe else ():
        share, chance = number(probe, site, quantity), number(probe, site, "chance")
        if math.isfinite(share) and chance < 1:
            shares.append((share - chance) / (1 - chance))
    return math.fsum(shares) / len(shares) if shares else math.nan


def _over_random(record: Record) -> float:
    probe = last_probe(record)
    return alignment(probe) - alignment(probe, "alpha_random")


def _over_untrained(record: Record) -> float:
    return alignment(last_probe(record)) - alignment(record.probes[0] if len(record.probes) > 1 else None)
