"""Does one rule beat another at an equal number of perturbations, and where does the order turn?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from rulezoo.claims.chart import Chart, Mark, Point
from rulezoo.claims.design import Table
from rulezoo.claims.evidence import Evidence, Measure, at_end, mean_of, over_seeds, paired, score, sites
from rulezoo.claims.verdicts import METHOD, Part, Verdict, above, conclude
from rulezoo.measures import theory
from rulezoo.results.records import Record


@dataclass(frozen=True)
class Advantage:
    """A criterion on two series that stand on an axis of perturbations, on one task or several.

    Attributes:
        ours: label of the series that is claimed to be better.
        theirs: label of the other.
        budget: the place, named before the runs, on which the verdict rests.
        degrees: how much smaller our angle must be there.
        widest: at so many sites, the widest ones.
        rate: the rules' option that holds the weight of the newest estimate in the feedback's running average.
        unit: what a budget counts.
    """

    ours: str
    theirs: str
    budget: float
    degrees: float
    widest: int
    rate: str
    unit: str = "perturbed examples per site and step"

    @property
    def verdict_rule(self) -> str:
        """See `rulezoo.claims.design.Criterion`."""
        where = "the site" if self.widest == 1 else f"each of the {self.widest} widest sites"
        return (
            f"At {self.budget:g} {self.unit}, on every task: supported if the test score of "
            f"{self.ours} less that of {self.theirs} is above 0, and the angle to the true gradient after training at "
            f"{where} is smaller by more than {self.degrees:g}°; not supported if one of these differences lies below "
            f"its threshold. The other budgets are shown and not judged: theory says that the order turns. {METHOD}."
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `rulezoo.claims.design.Criterion`."""
        return conclude([part for task in self._tasks(evidence) for part in self._parts(evidence, task)])

    def _parts(self, evidence: Evidence, task: str) -> Iterator[Part]:
        ours, theirs = (evidence.of(label, self.budget, task) for label in (self.ours, self.theirs))
        gain = paired(ours, theirs, score).scaled(100)
        yield above(f"{task}, test score of {self.ours} less {self.theirs}", gain, 0, unit=" points")
        for site in sites([*ours.values(), *theirs.values()])[: self.widest]:
            less = paired(theirs, ours, at_end(site, "angle"))
            what = f"{task}, angle at {site} of {self.theirs} less {self.ours}"
            yield above(what, less, self.degrees, unit="°")

    def _tasks(self, evidence: Evidence) -> list[str]:
        return [
            task
            for task in evidence.tasks()
            if self.ours in {a.label for a in evidence.runs if a.task == task}
        ]

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `rulezoo.claims.design.Criterion`."""
        made = []
        for task in self._tasks(evidence):
            made += [self._scores(evidence, task), self._angles(evidence, task), self._turns(evidence, task)]
        return made

    def _scores(self, evidence: Evidence, task: str) -> Table:
        rows = []
        for budget in evidence.positions(self.ours, task):
            ours, theirs = (evidence.of(label, budget, task) for label in (self.ours, self.theirs))
            gain = paired(ours, theirs, score).scaled(100)
            shown = [over_seeds(runs, score).scaled(100).text(1) for runs in (ours, theirs)]
            rows.append((f"{budget:g}", *shown, gain.text(1, sign=True), str(gain.n)))
        for label in self._others(evidence, task):
            found = over_seeds(evidence.of(label, task=task), score).scaled(100)
            rows.append((label, found.text(1), "", "", str(found.n)))
        head = (self.unit, self.ours, self.theirs, "difference", "seeds")
        return Table(f"{task}: test score in percent", head, tuple(rows))

    def _others(self, evidence: Evidence, task: str) -> list[str]:
        labels = dict.fromkeys(arm.label for arm in evidence.runs if arm.task == task)
        return [label for label in labels if label not in (self.ours, self.theirs)]

    def _angles(self, evidence: Evidence, task: str) -> Table:
        rows = []
        for site in self._sites(evidence, task):
            for budget in evidence.positions(self.ours, task):
                ours, theirs = (evidence.of(label, budget, task) for label in (self.ours, self.theirs))
                measure = at_end(site, "angle")
                shown = [over_seeds(runs, measure).text(1) for runs in (ours, theirs)]
                rows.append((site, f"{budget:g}", *shown, paired(ours, theirs, measure).text(1, sign=True)))
        head = ("site", self.unit, self.ours, self.theirs, "difference")
        return Table(f"{task}: angle to the true gradient after training, in degrees", head, tuple(rows))

    def _turns(self, evidence: Evidence, task: str) -> Table:
        rows = []
        for site in self._sites(evidence, task):
            n, d, alpha, predicted = self._predicted(evidence, task, site)
            seen = self._seen(evidence, task, site)
            rows.append((site, f"{n:.0f}", f"{d:.0f}", f"{alpha:.2f}", _count(predicted), seen))
        head = ("site", "units n", "d", "α of the mean gradient", "order turns at, predicted", "seen")
        return Table(
            f"{task}: number of {self.unit} beyond which {self.theirs} has the smaller angle",
            head,
            tuple(rows),
        )

    def _sites(self, evidence: Evidence, task: str) -> list[str]:
        return sites(r for arm, runs in evidence.runs.items() if arm.task == task for r in runs.values())

    def _predicted(self, evidence: Evidence, task: str, site: str) -> tuple[float, float, float, float]:
        """Equation (3) with what was measured of our networks: n, d, α, and K* in examples per step."""
        runs = [
            r
            for a, runs in evidence.runs.items()
            if (a.label, a.task) == (self.ours, task)
            for r in runs.values()
        ]
        numbered: Mapping[int, Record] = dict(enumerate(runs))
        n, d, alpha, rho = (
            over_seeds(numbered, at_end(site, name)).mean
            for name in ("units", "rank", "alpha_mean_gradient", "spread")
        )
        if not all(map(math.isfinite, (n, d, alpha))) or alpha >= 1:
            return n, d, alpha, math.nan
        turn = theory.crossover_budget(alpha, d, n, max(1.0, rho) if math.isfinite(rho) else 1.0)
        rate = runs[0].asked.rule_options.get(self.rate)
        per_step = theory.effective_perturbations(1.0, float(rate)) if isinstance(rate, int | float) else 1.0
        return n, d, alpha, turn / per_step

    def _seen(self, evidence: Evidence, task: str, site: str) -> str:
        """Where the mean difference of angles changes its sign, between budgets on a logarithmic scale."""
        measured = []
        for budget in evidence.positions(self.ours, task):
            ours, theirs = (evidence.of(label, budget, task) for label in (self.ours, self.theirs))
            difference = paired(ours, theirs, at_end(site, "angle")).mean
            measured += [(budget, difference)] if math.isfinite(difference) else []
        return turning(measured)

    def chart(self, evidence: Evidence) -> Chart:
        """See `rulezoo.claims.design.Criterion`."""
        points: list[Point] = []
        marks: list[Mark] = []
        y: dict[str, str] = {}
        for task in self._tasks(evidence):
            panel = f"{task}: test score"
            y[panel] = "percent"
            points += self._points(evidence, task, panel, lambda record: 100 * score(record))
            for label in self._others(evidence, task):
                marks.append(Mark(panel, "y", 100 * mean_of(evidence.of(label, task=task)), label))
            for site in self._sites(evidence, task):
                panel = f"{task}: {site}"
                y[panel] = "angle to the true gradient, degrees"
                points += self._points(evidence, task, panel, at_end(site, "angle"))
                turn = self._predicted(evidence, task, site)[-1]
                places = evidence.positions(self.ours, task)
                if places[0] <= turn <= places[-1]:
                    marks.append(Mark(panel, "x", turn, "predicted turn"))
        return Chart(
            points=tuple(points),
            x=self.unit,
            y=y,
            log="x",
            marks=tuple(marks),
            description=f"For each task a panel with the test score and one for each site with the angle to the true gradient, "
            f"against the number of perturbed examples per step: a line for {self.ours} and one for {self.theirs}. "
            "Dotted lines mark rules without perturbations and the budget at which theory predicts that the order of "
            "the angles turns. All values are in the tables.",
        )

    def _points(self, evidence: Evidence, task: str, panel: str, measure: Measure) -> list[Point]:
        return [
            Point(panel, arm.label, arm.at, value)
            for arm, runs in evidence.runs.items()
            if arm.task == task and arm.label in (self.ours, self.theirs)
            for record in runs.values()
            if math.isfinite(value := measure(record))
        ]


def turning(measured: list[tuple[float, float]]) -> str:
    """Where ours − theirs of an angle turns from below zero to above, by logarithmic interpolation, in words.

    >>> turning([(2, -10.0), (8, 10.0)])
    '4'
    """
    if not measured:
        return "—"
    for (left, before), (right, after) in pairwise(measured):
        if before < 0 <= after:
            share = before / (before - after)
            return _count(left * (right / left) ** share)
    first, last = measured[0], measured[-1]
    if last[1] < 0:
        return f"above {last[0]:g}"
    return f"below {first[0]:g}" if first[1] >= 0 else "not in one place"


def _count(number: float) -> str:
    if math.isnan(number):
        return "—"
    return "at once" if number <= 0 else f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
