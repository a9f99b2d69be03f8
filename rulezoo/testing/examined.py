"""Whether a rule was examined at all: one that skips every network passes all checks, and keeps no promise by that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rulezoo.rule import LearningRule
from rulezoo.specs import RuleSpec
from rulezoo.testing.expect import NotExamined, expect_sentence
from rulezoo.testing.networks import Network


@dataclass(frozen=True)
class Examined:
    """The check that a rule serves one of the networks that it is checked on; see `rulezoo.testing.Check`.

    Attributes:
        rule: the rule, or the spec that loads it.
        subject: the name by which reports call the rule.
        nets: name of a network → how to get it.
        net: set where it is about the network of one task.
    """

    rule: LearningRule | RuleSpec
    subject: str
    nets: dict[str, Callable[[], Network]] = field(hash=False, repr=False)
    net: str | None = None

    name = "examined"
    promise = "It serves at least one of the networks that it is checked on."

    @property
    def id(self) -> str:
        """``nmnc:examined``, or ``nmnc:examined:mnist-mlp``."""
        return ":".join(filter(None, (self.subject, self.name, self.net)))

    def __call__(self) -> str:
        """Ask the rule for every network whether it skips it."""
        rule = self.rule.load()() if isinstance(self.rule, RuleSpec) else self.rule
        reasons: dict[str, str | None] = {}
        for name, made in self.nets.items():
            network = made()
            reasons[name] = rule.skip(network.net, network.task)
        for reason in reasons.values():
            if reason is not None:
                expect_sentence(reason)
        served = [name for name, reason in reasons.items() if reason is None]
        if not served:
            raise NotExamined(_why(reasons.items()))
        return f"on {', '.join(served)}"


def _why(reasons: Iterable[tuple[str, str | None]]) -> str:
    nets: dict[str | None, list[str]] = {}
    for name, reason in reasons:
        nets.setdefault(reason, []).append(name)
    if not nets:
        return "no network was given to check it on"
    each = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in nets.items())
    return f"the rule skips every network that it was to be checked on ({each})"
