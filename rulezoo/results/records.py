"""The record of a run: its specification, its provenance, and its results. Schema 2.

The identity of a run is its specification (`RunSpec.key`), never the code that computed it: a second machine or a newer
torch computes the same run again. In a record, which is stored as JSON, the two have the names ``asked`` and ``answered``. Every class is frozen, and refuses fields that it does not know.

Floats that are not finite have no place in JSON: they are stored as ``null`` and read back as ``None``. The bounds of the
fields hold for whatever is read, be it written by rulezoo or by hand.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rulezoo.errors import UserError
from rulezoo.options import Value
from rulezoo.specs import NAME, TASK_NAME

SCHEMA = 2  #: raise it when a stored record can no longer be read as one of these classes

Device = Literal["cpu", "cuda", "mps"]
Mode = Literal["vmap", "single"]
Precision = Literal["float32", "bfloat16"]
Status = Literal[
    "ok",
    "diverged",
    "error",
    "skipped",
    "pruned",
    "timeout",
    "oom_host",
    "oom_gpu",
    "crashed",
    "killed",
    "interrupted",
]


LARGEST = 1e100  #: numbers beyond it are stored like those that are not finite; squares of those below cannot overflow
Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
NonNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

RANGES = {"accuracy": (0.0, 1.0)}  #: of the metrics whose name says it
_ROUNDING = 1e-6  # of a mean in float32
_KEY = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


class RecordError(UserError, ValueError):
    """A record that cannot be stored; the message says which value and what was expected."""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The specification of a run, which is its identity.

    Attributes:
        protocol: number of the runner's procedure, raised when its numerics change.
        rule: name of the rule.
        rule_version: version that its spec declares.
        rule_options: every option of the rule, defaults included.
        task: name of the task.
        task_version: version that its spec declares.
        task_options: every option of the task, defaults included.
        budget: the fields of `rulezoo.Budget` as used, the rule's own ``lr`` and ``--epochs`` applied.
        seed: from 0.
        device: class of the device; which one it was is in `Provenance`.
        precision: floating-point precision; ``bfloat16`` = as torch's autocast chooses it, the parameters staying in float32.

    Raises:
        RecordError: if a name is not a slug, the seed is negative, or an option is not a finite number.
    """

    protocol: int
    rule: str
    rule_version: int
    rule_options: dict[str, Value]
    task: str
    task_version: int
    task_options: dict[str, Value]
    budget: dict[str, Value]
    seed: int
    device: Device
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        for kind, name, form in (("rule", self.rule, NAME), ("task", self.task, TASK_NAME)):
            if not form.fullmatch(name):  # it becomes the name of a folder
                raise RecordError(
                    f"{kind} {name!r} must be lower-case words joined by hyphens, like 'my-{kind}'"
                )
        if self.seed < 0:
            raise RecordError(f"seed must be 0 or more, got {self.seed}")
        for owner, values in (
            (self.rule, self.rule_options),
            (self.task, self.task_options),
            ("", self.budget),
        ):
            for name, value in values.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise RecordError(f"{owner or 'budget'}.{name} must be a finite number, got {value}")
                if isinstance(value, int) and abs(value) >= 2**63:  # JSON's writers stop there
                    raise RecordError(f"{owner or 'budget'}.{name} must be below 2**63, got {value:.3g}")

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits that identify the run; options that are 1 and 1.0 are the same option."""
        content = msgspec.structs.asdict(self)
        for field in ("rule_options", "task_options", "budget"):
            content[field] = {name: whole(value) for name, value in content[field].items()}
        return hashlib.sha256(_KEY.encode(content).encode()).hexdigest()[:16]


def whole(value: Value) -> Value:
    """``1`` for ``1.0``: one value, however it was written."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The class of machine: times are compared within one only.

    Attributes:
        cpu: model of the processor.
        cores: processor cores that the process could use.
        threads: torch's threads.
        gpu: model of the GPU that computed, if one did.
    """

    cpu: str
    cores: int
    threads: int
    gpu: str | None = None


class Plugin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a rule or a task came from: a distribution and its version; a single file has no version."""

    distribution: str
    version: str | None = None


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What computed a run, and when. It holds no name of a host or a user, and no path.

    Attributes:
        packages: name → version, ``python`` included.
        rule_plugin: where the rule came from.
        task_plugin: where the task came from.
        hardware: the class of machine.
        commit: git commit of the rulezoo checkout, if rulezoo ran from one.
        dirty: whether that checkout had changes that are not in the commit.
        started: UTC, ISO 8601.
        finished: UTC, ISO 8601.
        seeds_together: how many seeds were trained in one vmap.
        mode: how they were trained.
        rule_code: `rulezoo.discovery.fingerprint` of the rule's code; ``None`` where it was not known.
        task_code: fingerprint of the task's code; ``None`` where it was not known.
        compiled: whether `torch.compile` took the step.
        data: digest of the data that the run was trained on, 16 hexadecimal digits; ``None`` where it is not known.
    """

    packages: dict[str, str]
    rule_plugin: Plugin
    task_plugin: Plugin
    hardware: Hardware
    commit: str | None
    dirty: bool | None
    started: str
    finished: str
    seeds_together: int
    mode: Mode
    rule_code: str | None = None
    task_code: str | None = None
    compiled: bool = False
    data: str | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """A point of the learning curve.

    Attributes:
        step: updates so far.
        epoch: passes through the training data so far.
        train_loss: mean since the last point.
        validation: score on the validation data.
    """

    step: Count
    epoch: Number
    train_loss: Number | None = None
    validation: Number | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a training step cost.

    Attributes:
        step_ms: mean wall milliseconds of a training step of the group of seeds.
        backprop_step_ms: mean wall milliseconds of a plain autograd step, sampled in turn in the same run.
        ratio: of the two; backprop is 1.
        peak_memory_mb: highest memory in MB, where it could be measured.
    """

    step_ms: NonNegative
    backprop_step_ms: NonNegative
    ratio: NonNegative
    peak_memory_mb: Number | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured from outside at one moment of training; `rulezoo.measures.probes.QUANTITIES` tells what the numbers are.

    Attributes:
        step: updates so far.
        epoch: passes through the training data so far.
        sites: name of a site → quantity → number; ``None`` where it has no value, and left out where it does not apply.
        weights: name of a parameter → quantity → number; ``*`` stands for all of them together.
        reason: a sentence, when something could not be measured.
    """

    step: Count
    epoch: Number
    sites: dict[str, dict[str, Number | None]] = {}
    weights: dict[str, dict[str, Number | None]] = {}
    reason: str | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run.

    Attributes:
        schema: `SCHEMA`.
        asked: its specification, which is its identity.
        answered: its provenance.
        status: how it ended; ``skipped`` = the rule said that it cannot serve the task, ``pruned`` = a trial of a
            tuning that was given up for its validation score.
        reason: a sentence, for every status but ``ok``.
        traceback: of an error.
        changed: names of the rule's options that were not the author's default.
        scores: ``validation`` and ``test``, as fractions of 1; empty when there are none. A trial of a tuning has no
            ``test``: it never read those data.
        chance: the score that guessing gets.
        metric: name of the score.
        curve: the learning curve.
        cost: ``None`` when no step was timed.
        logs: what the rule logged, one value for each point of the curve.
        parameters: how many the network has.
        probes: measurements taken during training, in the order of the steps; empty when none were asked for.
        block_depth: number of weight layers in series through which an error travelled within one block, measured;
            ``None`` = not measured.
        weights: SHA-256 of the file of trained weights alongside the record; ``None`` = not kept.
        memory: SHA-256 of the file of the rule's memory alongside the record; ``None`` = not kept.

    Raises:
        RecordError: if ``chance`` is not finite, a score lies outside of its metric's range, or ``changed`` names an
            option that the rule does not have.
    """

    schema: int = SCHEMA
    asked: RunSpec
    answered: Provenance
    status: Status
    reason: str | None = None
    traceback: str | None = None
    changed: list[str] = []
    scores: dict[str, Number | None] = {}
    chance: Number
    metric: str
    curve: list[Point] = []
    cost: Cost | None = None
    logs: dict[str, list[Number | None]] = {}
    parameters: Count | None = None
    probes: list[Probe] = []
    block_depth: int | None = None
    weights: Digest | None = None
    memory: Digest | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(
            self.chance
        ):  # failed runs count at this level: without it they could not be ranked
            raise RecordError(f"chance of {self.asked.task} must be a finite number, got {self.chance}")
        low, high = RANGES.get(self.metric, (-LARGEST, LARGEST))
        for name, score in self.scores.items():
            if (
                score is not None
                and abs(score) <= LARGEST
                and not low - _ROUNDING <= score <= high + _ROUNDING
            ):
                raise RecordError(
                    f"{name} {self.metric} of {self.asked.task} must be in [{low:g}, {high:g}], got {score:g}"
                )
        for name in self.changed:
            if name not in self.asked.rule_options:
                raise RecordError(f"changed names {name!r}, which is no option of {self.asked.rule} here")
