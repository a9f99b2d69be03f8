"""Claims put to the test: studies whose protocol and verdict rule are written down before they are run.

A `Claim` has a statement, a `Criterion` and a `Study` for each profile. A study's runs are those of a comparison: each
`Arm` is one rule with its options on one task, over several seeds, and a `Tuning` chooses an option on validation data
beforehand. ``rulezoo claims run`` carries a study out; its stored runs become `Evidence`, the criterion turns them into
a `Verdict` with its parts, tables and a figure, and ``rulezoo claims report`` writes the page::

    from rulezoo import ClaimSpec, claims, hookimpl

    FASTER = claims.Claim("faster", "…", "…", criterion, {"quick": claims.Study(arms, "reduced: …", "a minute")})

    @hookimpl
    def rulezoo_claims():
        return [ClaimSpec("faster", f"{__name__}:FASTER", "…")]

These criteria come with rulezoo: `Advantage`, `Alignment`, `GrowingSavings`, `Growth`, `NotWorse`, `Savings` and `Standing`,
and `Every`, which joins several. Another one is a class
with `verdict_rule` and `judge`, made of numbers of a run (`score`, `at_end`), intervals over seeds (`over_seeds`,
`paired`) and parts (`above`, `below`, `no_worse`), which `conclude` joins.
"""

from rulezoo.claims.advantage import Advantage
from rulezoo.claims.alignment import Alignment
from rulezoo.claims.chart import Chart, Curve, Mark, Point
from rulezoo.claims.design import (
    PROFILES,
    Arm,
    Claim,
    ClaimError,
    Criterion,
    Evaluate,
    Noise,
    OptionTexts,
    Profile,
    Study,
    Table,
    Tuning,
)
from rulezoo.claims.every import Every
from rulezoo.claims.evidence import (
    Evidence,
    Measure,
    at_end,
    at_start,
    last_probe,
    number,
    over_seeds,
    paired,
    score,
    sites,
)
from rulezoo.claims.growing_savings import GrowingSavings
from rulezoo.claims.growth import Growth
from rulezoo.claims.not_worse import NotWorse
from rulezoo.claims.savings import Savings
from rulezoo.claims.standing import Standing
from rulezoo.claims.verdicts import (
    METHOD,
    Interval,
    Part,
    Verdict,
    above,
    below,
    conclude,
    no_worse,
    t_interval,
)
from rulezoo.results.records import Record

__all__ = [
    "METHOD",
    "PROFILES",
    "Advantage",
    "Alignment",
    "Arm",
    "Chart",
    "Claim",
    "ClaimError",
    "Criterion",
    "Curve",
    "Evaluate",
    "Every",
    "Evidence",
    "GrowingSavings",
    "Growth",
    "Interval",
    "Mark",
    "Measure",
    "Noise",
    "NotWorse",
    "OptionTexts",
    "Part",
    "Point",
    "Profile",
    "Record",
    "Savings",
    "Standing",
    "Study",
    "Table",
    "Tuning",
    "Verdict",
    "above",
    "at_end",
    "at_start",
    "below",
    "conclude",
    "last_probe",
    "no_worse",
    "number",
    "over_seeds",
    "paired",
    "score",
    "sites",
    "t_interval",
]
