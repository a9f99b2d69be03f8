"""What is stored of an evaluation of one network: what was asked, what it found, and what computed it."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Literal

import msgspec

from rulezoo.options import Value, as_text
from rulezoo.results.records import Hardware, NonNegative, Number, Plugin, RecordError, whole
from rulezoo.specs import NAME, TASK_NAME

SCHEMA: Literal[1] = 1  #: raise it when a stored evaluation can no longer be read
Status = Literal["ok", "skipped", "error", "crashed"]
FAILED: tuple[Status, ...] = ("error", "crashed")


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What was asked: the identity of an evaluation of one network.

    Attributes:
        run: `rulezoo.results.records.RunSpec.key` of the run that trained the network.
        rule: name of the rule.
        task: name of the task.
        seed: of the run.
        evaluation: name of the evaluation.
        version: version that its spec declares.
        options: every option of the evaluation, defaults included.

    Raises:
        RecordError: if a name is not a slug, or the key of the run is none.
    """

    run: str
    rule: str
    task: str
    seed: int
    evaluation: str
    version: int
    options: dict[str, Value]

    def __post_init__(self) -> None:
        for kind, form in (("rule", NAME), ("task", TASK_NAME), ("evaluation", NAME)):
            if not form.fullmatch(name := getattr(self, kind)):  # it becomes the name of a folder
                raise RecordError(
                    f"{kind} {name!r} must be lower-case words joined by hyphens, like 'my-{kind}'"
                )
        if len(self.run) != 16 or set(self.run) - set("0123456789abcdef"):
            raise RecordError(f"the key of a run must be 16 hexadecimal digits, got {self.run!r}")

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of the run, the evaluation, its version and options."""
        options = {name: whole(value) for name, value in self.options.items()}
        content = msgspec.json.encode([self.run, self.evaluation, self.version, options], order="sorted")
        return hashlib.sha256(content).hexdigest()[:16]


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The evaluation of one network.

    Attributes:
        schema: `SCHEMA`.
        asked: its identity.
        status: ``skipped`` = the evaluation does not apply to this network; ``error`` = its code raised an exception or
            returned what is no measurement; ``crashed`` = its process ended or exceeded the time limit.
        reason: a sentence, for every status but ``ok``.
        traceback: of an error.
        changed: names of the options that were not the author's default.
        headline: name of the value that the leaderboard shows.
        higher_is_better: whether a larger headline is better; ``None`` = neither.
        values: name → number; ``None`` = it could not be determined, see ``notes``.
        notes: name → sentence.
        arrays: SHA-256 of the file with the arrays; ``None`` = there are none.
        weights: SHA-256 of the weights that were evaluated.
        plugin: where the evaluation came from.
        code: `rulezoo.discovery.fingerprint` of its code; ``None`` where it is not known.
        data: hash of the data that it read in addition to the task's; ``None`` = it read none.
        packages: name → version, ``python`` included.
        hardware: the class of machine; ``None`` where its process could not report it.
        commit: git commit of the rulezoo checkout, if rulezoo ran from one.
        dirty: whether that checkout had changes that are not in the commit.
        finished: UTC, ISO 8601.
        seconds: wall time of the measurement.
    """

    schema: Literal[1] = SCHEMA
    asked: Question
    status: Status
    reason: str | None = None
    traceback: str | None = None
    changed: list[str] = []
    headline: str
    higher_is_better: bool | None
    values: dict[str, Number | None] = {}
    notes: dict[str, str] = {}
    arrays: str | None = None
    weights: str
    plugin: Plugin
    code: str | None
    data: str | None = None
    packages: dict[str, str]
    hardware: Hardware | None = None
    commit: str | None = None
    dirty: bool | None = None
    finished: str
    seconds: NonNegative

    @property
    def label(self) -> str:
        """The evaluation with the options that are not the author's default: ``robustness eps=0.1``."""
        options = (
            f"{name}={as_text(self.asked.options[name])}"
            for name in self.changed
            if name in self.asked.options
        )
        return " ".join([self.asked.evaluation, *options])
