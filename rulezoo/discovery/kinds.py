"""The kinds of things a plugin can offer, in one table: what holds of one kind holds for all of them.

A new kind needs a spec, a hook in `rulezoo.discovery.hookspecs`, and a row here.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rulezoo.errors import PluginError
from rulezoo.specs import ClaimSpec, EvaluationSpec, RuleSpec, Spec, TaskSpec

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Kind(Generic[S]):
    """One kind of thing that plugins offer.

    Attributes:
        name: in the singular: ``"rule"``.
        spec: the class of its specs.
        base: ``"package.module:Class"`` of which targets are subclasses, or objects; text, because some of the modules
            import torch, and some stand above this one.
        made: whether a target is a class from which a configured object is made; else it is the object itself.
    """

    name: str
    spec: type[S]
    base: str
    made: bool = True

    @property
    def plural(self) -> str:
        """``"rules"``."""
        return f"{self.name}s"

    @property
    def hook(self) -> str:
        """The name of the hook by which a plugin offers it: ``"rulezoo_rules"``."""
        return f"rulezoo_{self.plural}"

    def check(self, loaded: object, what: str, target: str) -> None:
        """Refuse a target of another class.

        Args:
            loaded: what the target names.
            what: whose it is, for the message.
            target: the target as text.

        Raises:
            PluginError: if it is not a subclass, or not an object, of the base.
        """
        module, _, name = self.base.partition(":")
        base = getattr(importlib.import_module(module), name)
        if self.made and not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise PluginError(f"{what}: {target} must be a subclass of rulezoo.{name}")
        if not self.made and not isinstance(loaded, base):
            raise PluginError(f"{what}: {target} must be a {module}.{name}, not a {type(loaded).__name__}")


RULE = Kind("rule", RuleSpec, "rulezoo.rule:LearningRule")
TASK = Kind("task", TaskSpec, "rulezoo.task:Task")
EVALUATION = Kind("evaluation", EvaluationSpec, "rulezoo.evaluation:Evaluation")
CLAIM = Kind("claim", ClaimSpec, "rulezoo.claims:Claim", made=False)

KINDS: tuple[Kind[Any], ...] = (RULE, TASK, EVALUATION, CLAIM)


def in_words(kinds: Sequence[Kind[Any]] = KINDS, *, plural: bool = False, last: str = "or") -> str:
    """The kinds in a sentence: ``"rule, task, evaluation or claim"``.

    Args:
        kinds: which.
        plural: ``"rules, tasks, …"``.
        last: the word before the last one.
    """
    words = [kind.plural if plural else kind.name for kind in kinds]
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
