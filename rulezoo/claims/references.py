"""The series that a claim does not compare, such as backprop, frozen and untrained networks, in a table of their own."""

from __future__ import annotations

from collections.abc import Sequence

from rulezoo.claims.design import Arm, Table
from rulezoo.claims.evidence import Evidence, at_end, over_seeds, score, sites, size
from rulezoo.claims.verdicts import Interval


def reference_table(evidence: Evidence, task: str, labels: Sequence[str]) -> Table:
    """Score, angle and sizes of these series at every site: one line for each arm and site.

    Args:
        evidence: the runs.
        task: the task.
        labels: the series.
    """
    rows = []
    for arm, runs in evidence.runs.items():
        if arm.task != task or arm.label not in labels:
            continue
        for site in sites(runs.values()):
            found = [
                over_seeds(runs, at_end(site, name))
                for name in ("angle", "norm_ratio", "gradient_norm", "alpha")
            ]
            angle, ratio, norm, alpha = found
            rows.append(
                (
                    _named(arm, evidence),
                    over_seeds(runs, score).scaled(100).text(1),
                    site,
                    angle.text(1),
                    size(ratio),
                    size_of(norm),
                    f"{alpha.mean:.2f}" if alpha.n else "—",
                )
            )
    head = (
        "series", "test score %", "site", "angle, degrees", "size of the signal ÷ true gradient", "size of the true gradient",
        "α",
    )  # fmt: skip
    return Table(f"{task}: references", head, tuple(rows))


def size_of(found: Interval) -> str:
    """A size in words; a dash where there is none."""
    return f"{found.mean:.2g}" if found.n else "—"


def _named(arm: Arm, evidence: Evidence) -> str:
    several = len({one.at for one in evidence.runs if (one.label, one.task) == (arm.label, arm.task)}) > 1
    return f"{arm.label}, {arm.at:g}" if several else arm.label
