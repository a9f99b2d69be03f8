"""How many times fewer perturbations does one rule need for the same angle as another?

At a budget b one series has an angle to the true gradient. The other series has been run at several budgets; its
angle is interpolated on the logarithm of the budget, and the budget at which it equals the first one's is divided by b.
An angle outside of what the other series reached counts as that of its smallest or largest budget, so that a saving is
never extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from rulezoo.claims.chart import Chart, Mark, Point
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import Evidence, at_end, over_seeds, paired, score, size
from rulezoo.claims.references import reference_table, size_of
from rulezoo.claims.verdicts import METHOD, Interval, Part, Verdict, above, conclude, t_interval
from rulezoo.results.records import Record

Curve = Mapping[float, Mapping[int, Record]]
"""Budget → seed → record."""


class Saving(NamedTuple):
    """A saving of one seed at one site.

    Attributes:
        factor: the other series' budget for the same angle, divided by ours.
        bound: the angle is outside of the other's range, and the factor a bound.
    """

    factor: float
    bound: bool


def budget_of(angle: float, curve: Sequence[tuple[float, float]]) -> tuple[float, bool]:
    """The budget at which a curve has an angle, and whether the angle is outside of the curve.

    Args:
        angle: in degrees.
        curve: pairs (budget, angle) in increasing order of budgets.

    >>> budget_of(70.0, [(1, 80.0), (4, 60.0)])
    (2.0, False)
    """
    if not curve or not math.isfinite(angle):
        return math.nan, False
    for (left, high), (right, low) in pairwise(curve):
        if min(high, low) <= angle <= max(high, low) and high != low:
            return left * (right / left) ** ((high - angle) / (high - low)), False
    nearest = min(curve, key=lambda one: abs(one[1] - angle))
    return nearest[0], not math.isclose(nearest[1], angle)


def savings(ours: Mapping[int, Record], theirs: Curve, budget: float, site: str) -> dict[int, Saving]:
    """The saving of every seed at a site."""
    measure, found = at_end(site, "angle"), {}
    for seed, record in ours.items():
        curve = [
            (k, angle)
            for k, runs in sorted(theirs.items())
            if seed in runs and math.isfinite(angle := measure(runs[seed]))
        ]
        needed, bound = budget_of(measure(record), curve)
        if math.isfinite(needed):
            found[seed] = Saving(needed / budget, bound)
    return found


def factor(found: Sequence[Mapping[int, Saving]]) -> Interval:
    """Mean factor over sites and seeds, with its interval over seeds: of logarithms, as factors are ratios."""
    seeds = sorted({seed for one in found for seed in one})
    logs = [
        math.fsum(math.log(one[seed].factor) for one in found if seed in one)
        / sum(seed in one for one in found)
        for seed in seeds
    ]
    mean = t_interval(logs)
    return Interval(_exp(mean.mean), _exp(mean.low), _exp(mean.high), mean.n)


def factor_text(found: Interval, *, bound: bool = False) -> str:
    """A factor in words: ``×3.1 [×2.2, ×4.4]``; ``≥`` or ``≤`` is left to the note on bounds, marked by ``*``."""
    if not found.n:
        return "—"
    ends = f" [×{found.low:.2g}, ×{found.high:.2g}]" if found.n > 1 else " (one seed)"
    return f"×{found.mean:.2g}{ends}{' *' if bound else ''}"


BOUNDS = (
    "An asterisk marks factors of which at least one seed is outside of the budgets that were run; it then counts as the "
    "smallest or largest of them."
)


@dataclass(frozen=True)
class Savings(Criterion):
    """A criterion on two series that stand on an axis of budgets.

    Attributes:
        ours: label of the series that is claimed to need fewer perturbations.
        theirs: label of the other.
        budget: ours, named before the runs, on which the verdict rests.
        kinds: kind of layer → its sites; the verdict rests on each kind.
        unit: what a budget counts.
        inputs: task and site, ``"digits-cnn conv1.post"`` → inputs n of the layer that the site feeds, divided by the units of
            the site; 1 where it is missing, as of a dense layer. For the prediction.
        rank: dimensions of the manifold.
        averaged: effective perturbations of each, by the running average.
    """

    ours: str
    theirs: str
    budget: float
    kinds: Mapping[str, tuple[str, ...]] = field(hash=False)
    unit: str
    rank: float
    averaged: float
    inputs: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        kinds = "; ".join(f"{kind}: {', '.join(sites)}" for kind, sites in self.kinds.items())
        return (
            f"k is the number of {self.unit} with which {self.theirs} has the angle to the true gradient that {self.ours} has with "
            f"{self.budget:g}, divided by {self.budget:g}; interpolated on the logarithm of the budgets that were run and never "
            f"extrapolated, for each seed and site after training, with the geometric mean over the sites of a kind ({kinds}). "
            f"Supported if k is above 1 for every kind of layer and every task; not supported if for one it is below 1, or the angle "
            f"of {self.ours} is larger than that of {self.theirs} at the same number. Scores are shown and not judged. {METHOD}."
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        parts = []
        for task in evidence.tasks():
            parts += [self._part(evidence, task, kind) for kind in self.kinds]
            ours, theirs = (evidence.of(label, self.budget, task) for label in (self.ours, self.theirs))
            gain = paired(ours, theirs, score)
            what = f"{task}, test score of {self.ours} − {self.theirs}"
            parts.append(above(what, gain.scaled(100), 0, unit=" points", kind="score", judged=False))
        return conclude(parts, [BOUNDS])

    def _part(self, evidence: Evidence, task: str, kind: str) -> Part:
        """Refuted by a larger angle at the same budget, too: below the smallest budget no k can be found."""
        found = factor([self._savings(evidence, task, self.budget, site) for site in self.kinds[kind]])
        part = above(f"{task}, k of {kind}", found, 1, digits=2, unit="×", kind="perturbations")
        ours, theirs = (evidence.of(label, self.budget, task) for label in (self.ours, self.theirs))
        worse = paired(ours, theirs, lambda record: self._angle(record, kind))
        text = f"{part.text}; angle at {self.budget:g}, {self.ours} − {self.theirs}: {worse.text(1, '°', sign=True)}"
        return replace(part, text=text, holds=False if worse.low > 0 else part.holds)

    def _angle(self, record: Record, kind: str) -> float:
        found = [at_end(site, "angle")(record) for site in self.kinds[kind]]
        return math.fsum(found) / len(found)

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        made = []
        for task in evidence.tasks():
            others = [label for label in evidence.labels() if label not in (self.ours, self.theirs)]
            made += [
                self._factors(evidence, task),
                self._angles(evidence, task),
                reference_table(evidence, task, others),
            ]
        return made

    def chart(self, evidence: Evidence) -> Chart:
        """See `Criterion`."""
        points, marks, y = [], [], {}
        for task in evidence.tasks():
            for site in self._sites:
                panel = f"{task}: {site}"
                y[panel] = "angle to the true gradient, degrees"
                points += [
                    Point(panel, arm.label, arm.at, value)
                    for arm, runs in evidence.runs.items()
                    if arm.task == task and arm.label in (self.ours, self.theirs)
                    for record in runs.values()
                    if math.isfinite(value := at_end(site, "angle")(record))
                ]
                ours = over_seeds(evidence.of(self.ours, self.budget, task), at_end(site, "angle")).mean
                marks.append(Mark(panel, "y", ours, f"angle of {self.ours} with {self.budget:g}"))
        return Chart(
            points=tuple(points),
            x=self.unit,
            y=y,
            log="x",
            marks=tuple(marks),
            description=f"A panel for each site: angle to the true gradient against the number of {self.unit}, with a line for "
            f"{self.ours} and one for {self.theirs}. A dotted line marks the angle of {self.ours} on which the verdict "
            "rests; k is the distance to where the other line meets it. All values are in the tables.",
        )

    @property
    def _sites(self) -> list[str]:
        return [site for some in self.kinds.values() for site in some]

    def _savings(self, evidence: Evidence, task: str, budget: float, site: str) -> dict[int, Saving]:
        theirs = {k: evidence.of(self.theirs, k, task) for k in evidence.positions(self.theirs, task)}
        return savings(evidence.of(self.ours, budget, task), theirs, budget, site)

    def _factors(self, evidence: Evidence, task: str) -> Table:
        rows = []
        for kind, some in self.kinds.items():
            for site in some:
                for budget in evidence.positions(self.ours, task):
                    found = self._savings(evidence, task, budget, site)
                    bound = any(one.bound for one in found.values())
                    predicted = self._predicted(evidence, task, budget, site)
                    rows.append(
                        (
                            kind,
                            site,
                            f"{budget:g}",
                            factor_text(factor([found]), bound=bound),
                            f"×{predicted:.2g}" if math.isfinite(predicted) else "—",
                        )
                    )
        head = ("kind of layer", "site", self.unit, "k measured", "k predicted")
        return Table(
            f"{task}: k, how many times as many {self.unit} {self.theirs} needs for the angle of {self.ours}",
            head,
            tuple(rows),
        )

    def _predicted(self, evidence: Evidence, task: str, budget: float, site: str) -> float:
        """Equations (1) and (2): (n+1)/K_eff ÷ (1/cos² − 1), cos² that of our angle at the budget.

        Our angle is predicted, too, from the share of the gradient in the manifold as the angle at our largest budget has
        it. The angles of the layers above are not taken out.
        """
        largest = max(evidence.positions(self.ours, task), default=math.nan)
        runs = evidence.of(self.ours, largest, task)
        n = over_seeds(runs, at_end(site, "units")).mean * self.inputs.get(f"{task} {site}", 1.0)
        angle = over_seeds(runs, at_end(site, "angle")).mean
        d = min(self.rank, n)
        share = min(1.0, math.cos(math.radians(angle)) ** 2 * (1 + (d + 1) / (largest * self.averaged)))
        squared = share / (1 + (d + 1) / (budget * self.averaged))
        return (n + 1) / (1 / squared - 1) / self.averaged / budget if 0 < squared < 1 else math.nan

    def _angles(self, evidence: Evidence, task: str) -> Table:
        rows = []
        for site in self._sites:
            for budget in evidence.positions(self.ours, task):
                both = [evidence.of(label, budget, task) for label in (self.ours, self.theirs)]
                rows.append(
                    (
                        site,
                        f"{budget:g}",
                        *(over_seeds(runs, at_end(site, "angle")).text(1) for runs in both),
                        *(size(over_seeds(runs, at_end(site, "norm_ratio"))) for runs in both),
                        *(size_of(over_seeds(runs, at_end(site, "gradient_norm"))) for runs in both),
                        *(over_seeds(runs, score).scaled(100).text(1) for runs in both),
                    )
                )
        pair = (self.ours, self.theirs)
        head = (
            "site",
            self.unit,
            *(f"{label}, angle" for label in pair),
            *(f"{label}, size of the signal ÷ true gradient" for label in pair),
            *(f"{label}, size of the true gradient" for label in pair),
            *(f"{label}, test score %" for label in pair),
        )
        return Table(f"{task}: angle to the true gradient after training, in degrees", head, tuple(rows))


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0)) if math.isfinite(value) or value < 0 else math.inf
