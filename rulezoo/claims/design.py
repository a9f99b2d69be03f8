"""What a claim is: studies with a fixed protocol, and a criterion that was written down before they were run.

A study's runs are those of a comparison. An `Arm` is one rule with its options on one task, over several seeds; its
label says which series it belongs to, and ``at`` its position on the study's axis (a budget, a width, a decay).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from rulezoo.errors import UserError
from rulezoo.specs import NAME

if TYPE_CHECKING:
    from rulezoo.claims.chart import Chart
    from rulezoo.claims.evidence import Evidence
    from rulezoo.claims.verdicts import Verdict

Profile = Literal["quick", "standard", "full"]
PROFILES: tuple[Profile, ...] = get_args(Profile)  #: from the smallest to the largest


class ClaimError(UserError, ValueError):
    """A claim whose parts do not fit together; the message says which part and what was expected."""


OptionTexts = Mapping[str, str]
"""Name of an option → its value as a user would write it."""


@dataclass(frozen=True)
class Noise:
    """How an arm's rule perturbs its sites, for comparing the angles of its runs with theory.

    Attributes:
        perturbations: perturbed examples per site and update.
        manifold: whether only the principal subspace of activity is perturbed, and not all units.
        rate: the rule's option that holds the weight of the newest estimate in the feedback's running average.
    """

    perturbations: float
    manifold: bool
    rate: str = "rate"


@dataclass(frozen=True)
class Arm:
    """One rule on one task.

    Attributes:
        label: the series it belongs to.
        rule: name of the rule.
        task: name of the task.
        seeds: the seeds.
        at: its position on the study's axis.
        options: of the rule; the rest have their author's default.
        task_options: of the task, likewise.
        epochs: in place of the task's own.
        budget: other parts of the task's budget that are set, such as the batch.
        probes: how many times each run is probed, first before and last after training; 0 = never.
        tuned: name of the `Tuning` whose winner is added to the options; empty = none.
        noise: how the rule perturbs; ``None`` = it does not, or theory does not cover how it does.
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
    noise: Noise | None = None
    budget: OptionTexts = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if not self.seeds or any(type(seed) is not int or seed < 0 for seed in self.seeds):
            raise ClaimError(
                f"arm {self.label!r}: seeds must be whole numbers, 0 or more, and at least one, got {self.seeds!r}"
            )


@dataclass(frozen=True)
class Tuning:
    """The choice of one option on validation data, with seeds that no arm uses: the same grid for every rule.

    Attributes:
        name: by which arms refer to it.
        arm: what is tuned, without the option; its seeds are those of the tuning.
        option: the option of the rule.
        values: the grid.
    """

    name: str
    arm: Arm
    option: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not self.values:
            raise ClaimError(
                f"tuning {self.name!r}: values must be a tuple of texts, like ('1e-3', '1e-2'), got {self.values!r}"
            )

    @property
    def candidates(self) -> tuple[Arm, ...]:
        """An arm for each value of the grid."""
        return tuple(self.with_value(self.arm, value) for value in self.values)

    def with_value(self, arm: Arm, value: str) -> Arm:
        """An arm with the option set."""
        return replace(arm, options={**arm.options, self.option: value})


@dataclass(frozen=True)
class Evaluate:
    """An evaluation of the networks that a study's arms train.

    Attributes:
        name: by which the criterion refers to it.
        evaluation: name of the evaluation.
        options: of the evaluation; the rest have their author's default.
        labels: the series whose networks are evaluated; empty = all.
    """

    name: str
    evaluation: str
    options: OptionTexts = field(default_factory=dict, hash=False)
    labels: tuple[str, ...] = ()

    def of(self, arm: Arm) -> bool:
        """Whether the networks of an arm are evaluated."""
        return not self.labels or arm.label in self.labels


@dataclass(frozen=True)
class Study:
    """A claim's protocol in one profile.

    Attributes:
        arms: what is compared.
        tunings: what is chosen before.
        scale: what is reduced, and where it is meant to run: one sentence.
        duration: how long it takes, roughly, and on what.
        together: train the seeds of an arm together, in one vmap; on a CPU large convolutions are faster one by one.
        evaluations: what is measured on the trained networks, whose weights are kept for it.
    """

    arms: tuple[Arm, ...]
    scale: str
    duration: str
    tunings: tuple[Tuning, ...] = ()
    together: bool = True
    evaluations: tuple[Evaluate, ...] = ()

    def __post_init__(self) -> None:
        if not self.arms:
            raise ClaimError("a study must have at least one arm")
        self._check_evaluations()
        known = {tuning.name for tuning in self.tunings}
        for arm in self.arms:
            if arm.tuned and arm.tuned not in known:
                raise ClaimError(
                    f"arm {arm.label!r} is tuned by {arm.tuned!r}, and the study has no such tuning; "
                    f"its tunings are {', '.join(sorted(known)) or 'none'}"
                )
        judging = {seed for arm in self.arms for seed in arm.seeds}
        for tuning in self.tunings:
            if shared := sorted(judging & set(tuning.arm.seeds)):
                raise ClaimError(
                    f"tuning {tuning.name!r} uses seeds {', '.join(map(str, shared))}, on which the claim is judged; "
                    "give it other seeds, such as 1000"
                )

    def _check_evaluations(self) -> None:
        labels, names = {arm.label for arm in self.arms}, [one.name for one in self.evaluations]
        for one in self.evaluations:
            if names.count(one.name) > 1:
                raise ClaimError(
                    f"two evaluations of the study are called {one.name!r}; give each a name of its own"
                )
            if lost := [label for label in one.labels if label not in labels]:
                raise ClaimError(
                    f"evaluation {one.name!r} is of series {lost[0]!r}, and the study has no such series; those are "
                    f"{', '.join(sorted(labels))}"
                )

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

    @property
    def measurements(self) -> int:
        """How many evaluations of networks the study has."""
        return sum(len(arm.seeds) for one in self.evaluations for arm in self.arms if one.of(arm))


@dataclass(frozen=True)
class Table:
    """Cells of text, all rows as long as the head."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Criterion(Protocol):
    """What turns a study's runs into a verdict; a subclass writes `verdict_rule` and `judge`.

    It is pure: the same runs give the same verdict. A frozen dataclass with its thresholds as fields, from which both
    the text and the verdict are made, cannot state another rule than the one that judges.
    """

    @property
    def verdict_rule(self) -> str:
        """The verdict rule in words, with its thresholds, as written down before the runs."""
        ...

    def judge(self, evidence: Evidence) -> Verdict:
        """The verdict on a study that is complete; see `conclude`."""
        ...

    def tables(self, evidence: Evidence) -> list[Table]:
        """The numbers behind the verdict."""
        return []

    def chart(self, evidence: Evidence) -> Chart | None:
        """The figure, as data; ``None`` = no figure."""
        return None

    def crossovers(self, evidence: Evidence) -> list[Table]:
        """The crossover of two series, predicted and observed, for the page on theory."""
        return []


@dataclass(frozen=True)
class Claim:
    """A claim, and how it is put to the test.

    Attributes:
        name: for the command line; the same as that of its `rulezoo.ClaimSpec`.
        statement: one sentence, as specific as the criterion: nothing is judged that it does not say.
        source: who says so, and what we know of it.
        criterion: the verdict rule.
        studies: profile → its study; ``"quick"``, ``"standard"`` and ``"full"``, each of them optional.
        remarks: what a reader should know of the protocol: paragraphs.
        changes: what was changed in the statement, the criterion or the protocol after a study had been run, when, and
            what the verdict was before.
    """

    name: str
    statement: str
    source: str
    criterion: Criterion
    studies: Mapping[Profile, Study] = field(hash=False)
    remarks: str = ""
    changes: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ClaimError(
                f"name {self.name!r} must be lower-case words joined by hyphens, like 'my-claim'"
            )
        if not self.studies:
            raise ClaimError(f"claim {self.name!r} has no study; give it at least a quick one")
        for profile, study in self.studies.items():
            if profile not in PROFILES:
                raise ClaimError(
                    f"claim {self.name!r}: profile {profile!r} must be one of {', '.join(PROFILES)}"
                )
            if not isinstance(study, Study):
                raise ClaimError(
                    f"claim {self.name!r}: its {profile} profile must be a Study, got a {type(study).__name__}"
                )
        if isinstance(self.criterion, type) or not callable(getattr(self.criterion, "judge", None)):
            raise ClaimError(
                f"claim {self.name!r}: its criterion must be an object with a method judge(evidence), "
                f"got {self.criterion!r}"
            )

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The profiles that it has a study for, from the smallest to the largest."""
        return tuple(profile for profile in PROFILES if profile in self.studies)

    def study(self, profile: Profile) -> Study:
        """The study of a profile.

        Raises:
            UserError: if there is none; the message names the profiles there are.
        """
        if profile not in self.studies:
            raise UserError(
                f"claim {self.name!r} has no {profile} profile, only {' and '.join(self.profiles)}: "
                f"rulezoo claims run {self.name} --profile {self.profiles[0]}"
            )
        return self.studies[profile]
