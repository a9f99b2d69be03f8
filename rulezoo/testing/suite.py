"""The conformance suite of rules: every check on every tiny network, as results to report or as tests for pytest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.rule import LearningRule
from rulezoo.specs import RuleSpec
from rulezoo.testing import (
    backward,
    declarations,
    gradients,
    learning,
    limits,
    purity,
    results,
    states,
    transport,
)
from rulezoo.testing.case import Case
from rulezoo.testing.check import CheckResult, outcomes, parametrized
from rulezoo.testing.expect import NotApplicable, expect_sentence
from rulezoo.testing.nets import KINDS, cached_net

if TYPE_CHECKING:
    import pytest

ONCE = (
    declarations.check_spec,
    declarations.check_options,
    declarations.check_frozen_value,
    declarations.check_no_sites,
    declarations.check_no_readout,
    limits.check_limits,
    purity.check_memory,
)
ON_EVERY_NET = (
    results.check_gradients,
    results.check_loss,
    learning.check_learns,
    gradients.check_hidden_gradients,
    gradients.check_backprop,
    transport.check_weight_transport,
    backward.check_backward_pass,
    backward.check_net_run,
    purity.check_arguments_unmodified,
    purity.check_deterministic,
    purity.check_randomness,
    purity.check_global_settings,
    purity.check_predict,
    states.check_state_layout,
    states.check_vmap,
    states.check_checkpoint,
    states.check_float32,
    states.check_batch_of_one,
    states.check_changing_batch,
    states.check_gpu,
)


@dataclass(frozen=True)
class RuleCheck:
    """One check of one rule; see `rulezoo.testing.Check`.

    Attributes:
        rule: the rule, or the spec that loads it (when the check is called, not before).
        function: the check.
        net: name of the tiny network; ``None`` for a check that does not go through all of them.
        spec: what a plugin says about the rule, where ``rule`` is not the spec itself.
        seed: of the sizes, names and data of the drawn networks.
    """

    rule: LearningRule | RuleSpec
    function: Callable[[Case], str | None]
    net: str | None
    spec: RuleSpec | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """``vmap``, for the function ``check_vmap``."""
        return self.function.__name__.removeprefix("check_")

    @property
    def promise(self) -> str:
        """The promise to which the check holds a rule, in one sentence."""
        return (self.function.__doc__ or "").partition("\n")[0]

    @property
    def id(self) -> str:
        """``nmnc:vmap:cnn``; a rule without a spec goes by the name of its class."""
        spec = self._spec()
        rule = type(self.rule).__name__ if spec is None else spec.name
        return ":".join(filter(None, (rule, self.name, self.net)))

    def _spec(self) -> RuleSpec | None:
        return self.rule if isinstance(self.rule, RuleSpec) else self.spec

    def __call__(self) -> str | None:
        """Run it; returns what was measured."""
        with purity.undisturbed():
            rule = self.rule.load()() if isinstance(self.rule, RuleSpec) else self.rule
            tiny = cached_net(self.net or KINDS[0])
            reason = rule.skip(tiny.net, tiny.task) if self.net else None
            if reason is not None:
                expect_sentence(reason)
                raise NotApplicable(f"the rule skips this network: {reason}")
            return self.function(Case(rule, self._spec(), tiny, self.seed))


def rule_checks(
    rule: LearningRule | RuleSpec,
    nets: Collection[str] = KINDS,
    *,
    spec: RuleSpec | None = None,
    seed: int = 0,
) -> Iterator[RuleCheck]:
    """Every check of a rule, on the tiny networks ``nets``; nothing is loaded or run before a check is called."""
    yield from (RuleCheck(rule, function, None, spec, seed) for function in ONCE)
    yield from (RuleCheck(rule, function, net, spec, seed) for net in nets for function in ON_EVERY_NET)


def check_rule(
    rule: LearningRule | RuleSpec,
    *,
    spec: RuleSpec | None = None,
    nets: Collection[str] = KINDS,
    expected_failures: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[CheckResult]:
    """Run the conformance suite on a rule.

    A `RuleSpec` is checked for what it declares, too: the tag ``exact`` says that the rule is the exact gradient; its
    plausibility, that hidden layers do not learn (``hidden_learning=False``), that the feedback path reads no forward
    weight (``weight_transport=False``), that no gradient goes from block to block (``backward_pass=False``); its
    limits, which other rule it becomes with which options.

    Args:
        rule: a spec, or a rule made with options of your choice.
        spec: of a rule that was made with options: what its plugin says about it.
        nets: the tiny networks to check it on.
        expected_failures: pattern of `Check.id` (``"my-rule:vmap:*"``) → the reason why it cannot hold. A check that
            passes although it was declared to fail is reported as failed.
        seed: of the sizes, names and data of networks that are drawn for some checks.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    return outcomes(rule_checks(rule, nets, spec=spec, seed=seed), expected_failures)


def parametrize_rule_checks(
    rules: Iterable[LearningRule | RuleSpec],
    *,
    nets: Collection[str] = KINDS,
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """A decorator that makes one pytest test for each check of each rule.

    ::

        @parametrize_rule_checks([MyRule()])
        def test_conformance(check):
            check()

    Args:
        rules: specs, or rules made with options of your choice.
        nets: the tiny networks to check them on.
        expected_failures: as for `check_rule`; they become strict xfails.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    return parametrized((check for rule in rules for check in rule_checks(rule, nets)), expected_failures)
