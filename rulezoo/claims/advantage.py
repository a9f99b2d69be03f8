"""Does one rule beat another at an equal number of perturbations, and at which number does the order change?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rulezoo.claims.chart import Chart, Mark, Point
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import Evidence, Measure, at_end, mean_of, over_seeds, paired, score, sites, size
from rulezoo.claims.references import reference_table, size_of
from rulezoo.claims.verdicts import METHOD, Part, Verdict, above, conclude
from rulezoo.measures import theory
from rulezoo.results.records import Record


@dataclass(frozen=True)
class Advantage(Criterion):
    """A criterion on two series that stand on an axis of perturbations, on one task or several.

    The verdict rests on the test score alone: to beat another rule is to have the higher score. The angle to the true
    gradient, which is why it should, is a part of its own, reported and not judged.

    Attributes:
        ours: label of the series that is claimed to be better.
        theirs: label of the other.
        budget: the number of perturbations, named before the runs, on which the verdict rests.
        degrees: how much smaller our angle must be there for its part to hold.
        widest: number of sites whose angles are such parts, the widest ones.
        rate: the rules' option that holds the weight of the newest estimate in the feedback's running average; empty =
            theory does not cover these rules, and no crossover is predicted.
        unit: what a budget counts.
        references: labels of the series that are shown alongside; ``None`` = all others of the task.
    """

    ours: str
    theirs: str
    budget: float
    degrees: float
    widest: int
    rate: str
    unit: str = "perturbed examples per site and step"
    references: tuple[str, ...] | None = None

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        where = "the site" if self.widest == 1 else f"each of the {self.widest} widest sites"
        unit = (
            self.unit.replace("s per ", " per ", 1) if self.budget == 1 else self.unit
        )  # 1 noise vector per …
        return (
            f"At {self.budget:g} {unit}: supported if on every task the test score of {self.ours} minus that of "
            f"{self.theirs} is above 0; not supported if it lies below 0 on one. Reported as a part of its own, and not "
            f"judged: whether the angle to the true gradient after training at {where} is smaller by more than "
            f"{self.degrees:g}°. The other budgets are shown and not judged{self._expected}. {METHOD}."
        )

    @property
    def _expected(self) -> str:
        return (
            f": theory predicts that {self.theirs} has the smaller angle at large ones" if self.rate else ""
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        tasks = self._tasks(evidence)
        parts = (part for task in tasks for part in self._parts(evidence, task))
        return conclude(parts, (self._note(evidence, task) for task in tasks))

    def _parts(self, evidence: Evidence, task: str) -> Iterator[Part]:
        ours, theirs = (evidence.of(label, self.budget, task) for label in (self.ours, self.theirs))
        gain = paired(ours, theirs, score).scaled(100)
        what = f"{task}, test score of {self.ours} − {self.theirs}"
        yield above(what, gain, 0, unit=" points", kind="score")
        for site in sites([*ours.values(), *theirs.values()])[: self.widest]:
            smaller = paired(theirs, ours, at_end(site, "angle"))
            what = f"{task}, angle at {site} of {self.theirs} − {self.ours}"
            yield above(what, smaller, self.degrees, unit="°", kind="angle", judged=False)

    def _note(self, evidence: Evidence, task: str) -> str:
        """At which budget the order changes, in a sentence."""
        angles = [
            f"{site} predicted {predicted}, observed {observed}"
            for site, *_, predicted, observed in self._crossovers(evidence, task)
        ]
        return (
            f"Crossover on {task}, the number of {self.unit} beyond which {self.theirs} does better: test score, "
            f"observed {self._observed(evidence, task, lambda record: 100 * score(record))}; angle, {'; '.join(angles)}."
        )

    def _tasks(self, evidence: Evidence) -> list[str]:
        return [
            task
            for task in evidence.tasks()
            if self.ours in {a.label for a in evidence.runs if a.task == task}
        ]

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        made = []
        for task in self._tasks(evidence):
            made += [
                self._scores(evidence, task),
                self._angles(evidence, task),
                self._crossover_table(evidence, task),
                *(
                    [reference_table(evidence, task, others)]
                    if (others := self._others(evidence, task))
                    else []
                ),
            ]
        return made

    def crossovers(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        return [self._crossover_table(evidence, task) for task in self._tasks(evidence)]

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
        others = [label for label in labels if label not in (self.ours, self.theirs)]
        return others if self.references is None else [label for label in others if label in self.references]

    def _angles(self, evidence: Evidence, task: str) -> Table:
        rows, names = [], self._sites(evidence, task)
        known = any(
            math.isfinite(at_end(site, "gradient_norm")(record))
            for record in evidence.records
            for site in names
        )
        for site in names:
            for budget in evidence.positions(self.ours, task):
                ours, theirs = (evidence.of(label, budget, task) for label in (self.ours, self.theirs))
                angle, ratio = at_end(site, "angle"), at_end(site, "norm_ratio")
                shown = [over_seeds(runs, angle).text(1) for runs in (ours, theirs)]
                sizes = [size(over_seeds(runs, ratio)) for runs in (ours, theirs)]
                sizes += [_norm(runs, site) for runs in (ours, theirs)] if known else []
                rows.append(
                    (site, f"{budget:g}", *shown, paired(ours, theirs, angle).text(1, sign=True), *sizes)
                )
        sizes = [f"size of the signal of {label} ÷ true gradient" for label in (self.ours, self.theirs)]
        sizes += (
            [f"size of the true gradient, {label}" for label in (self.ours, self.theirs)] if known else []
        )
        head = ("site", self.unit, self.ours, self.theirs, "difference", *sizes)
        return Table(f"{task}: angle to the true gradient after training, in degrees", head, tuple(rows))

    def _crossover_table(self, evidence: Evidence, task: str) -> Table:
        observed = self._observed(evidence, task, score)
        rows: list[tuple[str, ...]] = [("test score", "", "", "", "—", observed)]
        rows += [(f"angle at {site}", *others) for site, *others in self._crossovers(evidence, task)]
        head = (
            "quantity",
            "units n",
            "d",
            "α of the mean gradient",
            "crossover predicted",
            "observed (interpolated)",
        )
        return Table(
            f"{task}: crossover, the number of {self.unit} beyond which {self.theirs} does better",
            head,
            tuple(rows),
        )

    def _crossovers(self, evidence: Evidence, task: str) -> list[tuple[str, str, str, str, str, str]]:
        """For each site: its name, n, d, α, and the crossover of the angles as predicted and observed."""
        rows = []
        for site in self._sites(evidence, task):
            n, d, alpha, predicted = self._predicted(evidence, task, site)
            observed = self._observed(evidence, task, _negative(at_end(site, "angle")))
            rows.append((site, f"{n:.0f}", f"{d:.0f}", f"{alpha:.2f}", _count(predicted), observed))
        return rows

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
        if not self.rate or not all(map(math.isfinite, (n, d, alpha))) or alpha >= 1:
            return n, d, alpha, math.nan
        budget = theory.crossover_budget(alpha, d, n, max(1.0, rho) if math.isfinite(rho) else 1.0)
        rate = runs[0].asked.rule_options.get(self.rate)
        per_step = theory.effective_perturbations(1.0, float(rate)) if isinstance(rate, int | float) else 1.0
        return n, d, alpha, budget / per_step

    def _observed(self, evidence: Evidence, task: str, measure: Measure) -> str:
        """Where the mean advantage in a measure, the higher the better, changes its sign."""
        measured = []
        for budget in evidence.positions(self.ours, task):
            ours, theirs = (evidence.of(label, budget, task) for label in (self.ours, self.theirs))
            advantage = paired(ours, theirs, measure).mean
            measured += [(budget, advantage)] if math.isfinite(advantage) else []
        return crossover(measured)

    def chart(self, evidence: Evidence) -> Chart:
        """See `Criterion`."""
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
                predicted = self._predicted(evidence, task, site)[-1]
                budgets = evidence.positions(self.ours, task)
                if budgets[0] <= predicted <= budgets[-1]:
                    marks.append(Mark(panel, "x", predicted, "predicted crossover"))
        return Chart(
            points=tuple(points),
            x=self.unit,
            y=y,
            log="x",
            marks=tuple(marks),
            description=f"For each task a panel with the test score and one for each site with the angle to the true gradient, "
            f"against the number of {self.unit}: a line for {self.ours} and one for {self.theirs}. Dotted lines mark "
            "rules without perturbations and the predicted crossover of the angles. All values are in the tables.",
        )

    def _points(self, evidence: Evidence, task: str, panel: str, measure: Measure) -> list[Point]:
        return [
            Point(panel, arm.label, arm.at, value)
            for arm, runs in evidence.runs.items()
            if arm.task == task and arm.label in (self.ours, self.theirs)
            for record in runs.values()
            if math.isfinite(value := measure(record))
        ]


def _norm(runs: Mapping[int, Record], site: str) -> str:
    return size_of(over_seeds(runs, at_end(site, "gradient_norm")))


def _negative(measure: Measure) -> Measure:
    return lambda record: -measure(record)


def crossover(measured: Sequence[tuple[float, float]]) -> str:
    """Where an advantage falls from above zero to zero or below, by logarithmic interpolation, in words.

    Args:
        measured: pairs (budget, advantage) in increasing order of budgets.

    >>> crossover([(2, 10.0), (8, -10.0)])
    '4'
    """
    if not measured:
        return "—"
    for (left, before), (right, after) in pairwise(measured):
        if before > 0 >= after:
            share = before / (before - after)
            return _count(left * (right / left) ** share)
    first, last = measured[0], measured[-1]
    if last[1] > 0:
        return f"above {last[0]:g}"
    return f"below {first[0]:g}" if first[1] <= 0 else "not in one place"


def _count(number: float) -> str:
    if math.isnan(number):
        return "—"
    return "0" if number <= 0 else f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
