"""A criterion that consists of several."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rulezoo.claims.chart import Chart
from rulezoo.claims.design import Criterion, Table
from rulezoo.claims.evidence import Evidence
from rulezoo.claims.verdicts import Verdict, conclude


@dataclass(frozen=True)
class Every(Criterion):
    """All of several criteria: the verdict rests on the parts of each.

    Attributes:
        named: what a criterion is about → the criterion; panels and tables are named by it.
    """

    named: tuple[tuple[str, Criterion], ...]

    @property
    def verdict_rule(self) -> str:
        """See `Criterion`."""
        rules = " ".join(f"({name}) {one.verdict_rule}" for name, one in self.named)
        return f"The verdict rests on the judged parts of {len(self.named)} criteria together. {rules}"

    def judge(self, evidence: Evidence) -> Verdict:
        """See `Criterion`."""
        verdicts = [(name, one.judge(evidence)) for name, one in self.named]
        parts = [replace(part, text=f"{name}, {part.text}") for name, v in verdicts for part in v.parts]
        return conclude(parts, [f"{name}: {note}" for name, v in verdicts for note in v.notes])

    def tables(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        return [_renamed(name, table) for name, one in self.named for table in one.tables(evidence)]

    def crossovers(self, evidence: Evidence) -> list[Table]:
        """See `Criterion`."""
        return [_renamed(name, table) for name, one in self.named for table in one.crossovers(evidence)]

    def chart(self, evidence: Evidence) -> Chart | None:
        """See `Criterion`; the panels of all whose axes are of the same kind as those of the first."""
        found = [(name, chart) for name, one in self.named if (chart := one.chart(evidence)) is not None]
        if not found:
            return None
        first = found[0][1]
        kind = bool(first.x), first.log, first.scatter
        alike = [(name, chart) for name, chart in found if (bool(chart.x), chart.log, chart.scatter) == kind]
        return replace(
            first,
            points=tuple(replace(p, panel=f"{name}: {p.panel}") for name, c in alike for p in c.points),
            marks=tuple(replace(m, panel=f"{name}: {m.panel}") for name, c in alike for m in c.marks),
            curves=tuple(replace(m, panel=f"{name}: {m.panel}") for name, c in alike for m in c.curves),
            y={f"{name}: {panel}": label for name, c in alike for panel, label in c.y.items()},
            x_of={f"{name}: {panel}": c.x_of.get(panel, c.x) for name, c in alike for panel in c.y},
            description=" ".join(f"{name}: {c.description}" for name, c in alike),
        )


def _renamed(name: str, table: Table) -> Table:
    return replace(table, title=f"{name}: {table.title}")
