"""Is one series at least as good as the best of several others, wherever it is asked?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rulezoo.claims.chart import Chart, Point
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import (
    Evidence,
    Measure,
    last_probe,
    mean_of,
    number,
    over_seeds,
    paired,
    score,
    size,
)
from rulezoo.claims.references import reference_table
from rulezoo.claims.verdicts import METHOD, Part, Verdict, conclude, no_worse
from rulezoo.results.records import Record


@dataclass(frozen=True)
class NotWorse(Criterion):
    """A criterion on several series that stand on one axis.

    Attributes:
        ours: label of the series that is claimed to be as good as the best.
        margin: percentage points that its mean may be below the best's.
    """

    ours: str
    margin: float = 1.0

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        return (
            f"At every budget, {self.ours} is compared with the best of the others there, by mean test score. (The best "
            "of several is partly the luckiest: this is strict.) Supported if the interval of the difference reaches 0 "
            f"and its mean is at most {self.margin:g} point{'' if self.margin == 1 else 's'} below 0, at every budget; not supported if the interval "
            f"lies below 0 at one. {METHOD}."
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        return conclude([self._part(evidence, budget) for budget in evidence.positions(self.ours)])

    def _part(self, evidence: Evidence, budget: float) -> Part:
        best = self._best(evidence, budget)
        difference = paired(evidence.of(self.ours, budget), evidence.of(best, budget), score).scaled(100)
        return no_worse(
            f"budget {budget:g}, test score of {self.ours} − {best}",
            difference,
            self.margin,
            unit=" points",
            kind="score",
        )

    def _best(self, evidence: Evidence, budget: float) -> str:
        means = {
            label: mean_of(evidence.of(label, budget))
            for label in self._series(evidence)
            if label != self.ours
        }
        known = {label: mean for label, mean in means.items() if math.isfinite(mean)} or means
        return max(known, key=lambda label: known[label])

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        labels = self._series(evidence)
        others = [label for label in evidence.labels() if label not in labels]
        references = [reference_table(evidence, task, others) for task in evidence.tasks() if others]
        head = ("perturbed examples per site and step", *labels, "best of the others", "difference")
        scores, angles, sizes = [], [], []
        for budget in evidence.positions(self.ours):
            runs = {label: evidence.of(label, budget) for label in labels}
            best = self._best(evidence, budget)
            gain = paired(runs[self.ours], runs[best], score).scaled(100)
            shown = [over_seeds(runs[label], score).scaled(100).text(1) for label in labels]
            scores.append((f"{budget:g}", *shown, best, gain.text(1, sign=True)))
            angles.append((f"{budget:g}", *(over_seeds(runs[label], mean_angle).text(1) for label in labels)))
            sizes.append((f"{budget:g}", *(size(over_seeds(runs[label], mean_size)) for label in labels)))
        return [
            Table("Test score in percent", head, tuple(scores)),
            Table(
                "Angle to the true gradient after training, mean over sites, in degrees",
                head[:-2],
                tuple(angles),
            ),
            Table(
                "Size of the error signal divided by that of the true gradient, after training, mean over sites",
                head[:-2],
                tuple(sizes),
            ),
            *references,
        ]

    def _series(self, evidence: Evidence) -> list[str]:
        """The series on the axis of ours; the others are references."""
        axis = set(evidence.positions(self.ours))
        return [label for label in evidence.labels() if axis & set(evidence.positions(label))]

    def chart(self, evidence: Evidence) -> Chart:
        """See `Criterion`."""
        panels: dict[str, tuple[str, Measure]] = {
            "test score": ("percent", lambda record: 100 * score(record)),
            "angle": ("degrees to the true gradient, mean over sites", mean_angle),
        }
        points = tuple(
            Point(panel, arm.label, arm.at, value)
            for panel, (_, measure) in panels.items()
            for arm, runs in evidence.runs.items()
            if arm.label in self._series(evidence)
            for record in runs.values()
            if math.isfinite(value := measure(record))
        )
        return Chart(
            points=points,
            x="perturbed examples per site and step",
            y={panel: label for panel, (label, _) in panels.items()},
            log="x",
            description="Two panels, test score and mean angle to the true gradient, against the number of perturbed examples "
            f"per step: a line for each of {', '.join(self._series(evidence))}. The values are in the tables.",
        )


def mean_angle(record: Record) -> float:
    """Degrees to the true gradient after training, mean over the sites that have an angle."""
    return _mean_over_sites(record, "angle")


def mean_size(record: Record) -> float:
    """Size of the error signal divided by that of the true gradient, likewise."""
    return _mean_over_sites(record, "norm_ratio")


def _mean_over_sites(record: Record, quantity: str) -> float:
    probe = last_probe(record)
    values = [number(probe, site, quantity) for site in (probe.sites if probe else ())]
    known = [value for value in values if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan
