"""What a claim is: a study with a fixed protocol, and a criterion that was written down before the study was run.

A study's runs are those of a comparison. An `Arm` is one rule with its options on one task, over several seeds; its
label says which series it belongs to, and ``at`` where it stands on the study's axis (a budget, a width, a decay).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from rulezoo.claims.chart import Chart
    from rulezoo.claims.evidence import Evidence
    from rulezoo.claims.verdicts import Verdict

Profile = Literal["quick", "full"]
PROFILES: tuple[Profile, ...] = ("quick", "full")

OptionTexts = Mapping[str, str]
"""Name of an option → its value as a user would write it."""


@dataclass(frozen=True)
class Arm:
    """One rule on one task.

    Attributes:
        label: the series it belongs to.
        rule: name of the rule.
        task: name of the task.
        seeds: the seeds.
        at: where it stands on the study's axis.
        options: of the rule; the rest have their author's default.
        task_options: of the task, likewise.
        epochs: in place of the task's own.
        probes: how many times each run is probed, first before and last after training; 0 = never.
        tuned: name of the `Tuning` whose winner is added to the options; empty = none.
    """

    label: str
    rule: str
    task: str
    seeds: tuple[int, ...]
    at: float = 0.0
    options: OptionTexts = field(default_factory=dict, hash=False)
    task_options: OptionTexts = field(default_factory=dict, hash=False)
    epochs: int | None = None
    probes: int = 0
    tuned: str = ""


@dataclass(frozen=True)
class Tuning:
    """The choice of one option on validation data, with seeds that no arm uses: the same grid for every rule.

    Attributes:
        name: by which arms refer to it.
        arm: what is tuned, without the option.
        option: which one.
        values: the grid.
    """

    name: str
    arm: Arm
    option: str
    values: tuple[str, ...]

    @property
    def candidates(self) -> tuple[Arm, ...]:
        """An arm for each value of the grid."""
        return tuple(self.with_value(self.arm, value) for value in self.values)

    def with_value(self, arm: Arm, value: str) -> Arm:
        """An arm with the option set."""
        return replace(arm, options={**arm.options, self.option: value})


@dataclass(frozen=True)
class Study:
    """A claim's protocol in one profile.

    Attributes:
        arms: what is compared.
        tunings: what is chosen before.
        scale: what is reduced, and where it is meant to run: one sentence.
        duration: how long, roughly, and on what.
        together: train the seeds of an arm together, in one vmap; on a CPU large convolutions are faster one by one.
    """

    arms: tuple[Arm, ...]
    scale: str
    duration: str
    tunings: tuple[Tuning, ...] = ()
    together: bool = True

    def resolved(self, chosen: Mapping[str, str]) -> tuple[Arm, ...]:
        """The arms with the winners of the tunings in their options, and without those whose tuning has none."""
        by_name = {tuning.name: tuning for tuning in self.tunings}
        return tuple(
            by_name[arm.tuned].with_value(arm, chosen[arm.tuned]) if arm.tuned else arm
            for arm in self.arms
            if not arm.tuned or arm.tuned in chosen
        )

    @property
    def runs(self) -> int:
        """How many runs the study has, tuning included."""
        tuned = sum(len(tuning.arm.seeds) * len(tuning.values) for tuning in self.tunings)
        return tuned + sum(len(arm.seeds) for arm in self.arms)


@dataclass(frozen=True)
class Table:
    """Cells of text, all rows as long as the head."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Criterion(Protocol):
    """What is made of a study's runs. Pure: the same runs give the same verdict."""

    @property
    def verdict_rule(self) -> str:
        """The verdict rule, with its thresholds, as written down before the runs."""

    def judge(self, evidence: Evidence) -> Verdict:
        """The verdict on a study that is complete."""

    def tables(self, evidence: Evidence) -> list[Table]:
        """The numbers."""

    def chart(self, evidence: Evidence) -> Chart:
        """The picture, as data."""


@dataclass(frozen=True)
class Claim:
    """A claim, and how it is put to the test.

    Attributes:
        name: for the command line.
        statement: one sentence.
        source: who says so, and what we know of it.
        criterion: the verdict rule.
        studies: one for each profile.
        remarks: what a reader should know of the protocol: paragraphs.
    """

    name: str
    statement: str
    source: str
    criterion: Criterion
    studies: Mapping[Profile, Study] = field(hash=False)
    remarks: str = ""
