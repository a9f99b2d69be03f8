"""Which evaluations are asked for: their names and options, checked before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.comparison.grids import Given, variants
from rulezoo.discovery.kinds import EVALUATION
from rulezoo.errors import UserError, did_you_mean
from rulezoo.evaluations.records import Question
from rulezoo.options import declared
from rulezoo.results.records import Plugin
from rulezoo.specs import EVERY

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Found, Registry
    from rulezoo.evaluation import Evaluation
    from rulezoo.results.records import Record
    from rulezoo.specs import EvaluationSpec


@dataclass(frozen=True)
class Requested:
    """One evaluation with its options.

    Attributes:
        found: its spec, and where it came from.
        made: the evaluation.
        words: the options that the user gave, as text.
    """

    found: Found[EvaluationSpec]
    made: Evaluation
    words: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its name."""
        return self.found.spec.name

    @property
    def plugin(self) -> Plugin:
        """Where it came from."""
        return Plugin(distribution=self.found.distribution, version=self.found.version or None)

    @property
    def changed(self) -> list[str]:
        """Names of the options that are not the author's default."""
        options = declared(type(self.made)).items()
        return [name for name, option in options if getattr(self.made, name) != option.default]

    def question(self, record: Record) -> Question:
        """What is asked of the network of one run."""
        return Question(
            run=record.asked.key,
            rule=record.asked.rule,
            task=record.asked.task,
            seed=record.asked.seed,
            evaluation=self.name,
            version=self.found.spec.version,
            options=self.made.resolved(),
        )


def requested(registry: Registry, names: Sequence[str], options: Mapping[str, Given]) -> list[Requested]:
    """The evaluations that are asked for, made; options with several values give one for each combination.

    Args:
        registry: the evaluations there are.
        names: names; ``["all"]`` = all of them.
        options: name of an evaluation → its options as the user wrote them.

    Raises:
        UnknownName: if there is no such evaluation; the message gives the near names.
        OptionError: if an option does not exist, or its value is not allowed.
        PluginError: if its code fails.
        UserError: if options are given for an evaluation that is not asked for.
    """
    chosen = (
        list(registry.evaluations)
        if list(names) == [EVERY]
        else list(dict.fromkeys(registry.evaluation(name).spec.name for name in names))
    )
    words = {registry.current(name): texts for name, texts in options.items()}
    for name in words:
        if name not in chosen:
            hint = did_you_mean(name, chosen) or f"those are {', '.join(chosen)}"
            raise UserError(f"-o {name}.…: {name!r} is not among the evaluations asked for; {hint}")
    return [
        _made(registry, name, each)
        for name in chosen
        for each in variants(declared(registry.load(EVALUATION, name)), words.get(name, {}))
    ]


def _made(registry: Registry, name: str, words: Mapping[str, str]) -> Requested:
    made: Evaluation = registry.make(EVALUATION, name, words)
    headline = getattr(made, "headline", None)
    if not (isinstance(headline, str) and headline):
        found = registry.evaluation(name)
        raise UserError(
            f"evaluation {name!r} of {found.origin} must name the value that the leaderboard shows, as "
            f"headline: ClassVar[str] = 'error', got {headline!r}"
        )
    return Requested(registry.evaluation(name), made, dict(words))
