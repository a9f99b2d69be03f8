"""How do rules compare at their own best settings, and what is the gap to the best there is?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rulezoo.claims.chart import Chart, Point
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import EVERY_PARAMETER, Evidence, last_probe, over_seeds, paired, score, size
from rulezoo.claims.verdicts import METHOD, Verdict, above, conclude
from rulezoo.results.records import Record


@dataclass(frozen=True)
class Standing(Criterion):
    """A criterion on one arm for each rule.

    Attributes:
        ours: label of the rule that is claimed to come closer to the top.
        rivals: labels of those that it is claimed to beat.
        top: label of the rule that the gap is measured to.
    """

    ours: str
    rivals: tuple[str, ...]
    top: str

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        rivals = ", ".join(self.rivals)
        return (
            f"Supported if the test score of {self.ours} minus that of each of {rivals} is above 0; not supported if one "
            f"of these differences lies below 0. The gaps to {self.top} and to the other rules are shown and not "
            f"judged. {METHOD}."
        )

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        ours = evidence.of(self.ours)
        return conclude(
            [
                above(
                    f"test score of {self.ours} − {rival}",
                    paired(ours, evidence.of(rival), score).scaled(100),
                    0,
                    unit=" points",
                    kind="score",
                )
                for rival in self.rivals
            ]
        )

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        top = evidence.of(self.top)
        rows = []
        for arm, runs in evidence.runs.items():
            gap = paired(top, runs, score).scaled(100)
            rows.append(
                (
                    arm.label,
                    over_seeds(runs, score).scaled(100).text(1),
                    "" if arm.label == self.top else gap.text(1),
                    over_seeds(runs, angle_of_updates).text(1),
                    size(over_seeds(runs, size_of_updates)),
                    size(over_seeds(runs, cost_of_step)),
                    evidence.chosen.get(arm.tuned, "author's"),
                    str(len(runs)),
                )
            )
        head = (
            "rule",
            "test score %",
            f"gap to {self.top}",
            "angle of updates, degrees",
            "size of updates ÷ backprop's",
            "cost of a step",
            "tuned to",
            "seeds",
        )
        return [Table("Every rule at its own best setting", head, tuple(rows))]

    def chart(self, evidence: Evidence) -> Chart:
        """See `Criterion`."""
        panel = "test score"
        return Chart(
            points=tuple(
                Point(panel, arm.label, 0.0, 100 * value)
                for arm, runs in evidence.runs.items()
                for record in runs.values()
                if math.isfinite(value := score(record))
            ),
            x="",
            y={panel: "percent"},
            description="A row for each rule, with a dot at its mean test score and a line for its interval. The values are in "
            "the table.",
        )


def angle_of_updates(record: Record) -> float:
    """Degrees between the rule's update of all parameters and backprop's, after training."""
    return _of_updates(record, "angle")


def size_of_updates(record: Record) -> float:
    """Size of the rule's update of all parameters divided by that of backprop's, after training."""
    return _of_updates(record, "norm_ratio")


def cost_of_step(record: Record) -> float:
    """Time of a training step divided by that of a step of plain autograd backprop, sampled in turn in the same run."""
    return math.nan if record.cost is None else record.cost.ratio


def _of_updates(record: Record, quantity: str) -> float:
    probe = last_probe(record)
    value = probe.weights.get(EVERY_PARAMETER, {}).get(quantity) if probe else None
    return math.nan if value is None else value
