"""The conformance suite: every check on every tiny network, as results to report or as tests for pytest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Literal

from rulezoo.rule import LearningRule
from rulezoo.specs import RuleSpec
from rulezoo.testing import declarations, purity, results, states
from rulezoo.testing.case import Case
from rulezoo.testing.expect import CheckFailed, NotApplicable, expect_sentence
from rulezoo.testing.nets import KINDS, TinyNet, tiny_net

if TYPE_CHECKING:
    import pytest

Outcome = Literal["passed", "failed", "skipped", "expected failure"]

ONCE = (
    declarations.check_spec,
    declarations.check_options,
    declarations.check_frozen_value,
    declarations.check_no_sites,
    declarations.check_no_readout,
    results.check_learns,
)
ON_EVERY_NET = (
    results.check_gradients,
    results.check_loss,
    results.check_hidden_gradients,
    results.check_backprop,
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
class Check:
    """One check of one rule; calling it raises `CheckFailed`, `NotApplicable`, or what the rule itself raised.

    Attributes:
        rule: the rule, or the spec that loads it (when the check is called, not before).
        function: the check.
        net: name of the tiny network; ``None`` for a check that does not go through all of them.
    """

    rule: LearningRule | RuleSpec
    function: Callable[[Case], None]
    net: str | None

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
        rule = self.rule.name if isinstance(self.rule, RuleSpec) else type(self.rule).__name__
        return ":".join(filter(None, (rule, self.name, self.net)))

    def __call__(self) -> None:
        """Run it."""
        with purity.undisturbed():
            spec = self.rule if isinstance(self.rule, RuleSpec) else None
            rule = self.rule.load()() if isinstance(self.rule, RuleSpec) else self.rule
            tiny = _tiny(self.net or KINDS[0])
            reason = rule.skip(tiny.net, tiny.task) if self.net else None
            if reason is not None:
                expect_sentence(reason)
                raise NotApplicable(f"the rule skips this network: {reason}")
            self.function(Case(rule, spec, tiny))


_tiny: Callable[[str], TinyNet] = cache(tiny_net)


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes:
        id: rule, check and network, as in `Check.id`.
        promise: what was checked, in one sentence.
        outcome: ``"passed"``, ``"failed"``, ``"skipped"``, or ``"expected failure"``.
        message: why it failed or was skipped; for an expected failure, the declared reason.
    """

    id: str
    promise: str
    outcome: Outcome
    message: str = ""


def rule_checks(rule: LearningRule | RuleSpec, nets: Collection[str] = KINDS) -> Iterator[Check]:
    """Every check of a rule, on the tiny networks ``nets``; nothing is loaded or run before a check is called."""
    yield from (Check(rule, function, None) for function in ONCE)
    yield from (Check(rule, function, net) for net in nets for function in ON_EVERY_NET)


def check_rule(
    rule: LearningRule | RuleSpec,
    *,
    nets: Collection[str] = KINDS,
    expected_failures: Mapping[str, str] | None = None,
) -> list[CheckResult]:
    """Run the conformance suite on a rule.

    A `RuleSpec` is checked for what it declares, too: the tag ``exact`` says that the rule is the exact gradient, and
    ``signal="none"`` of its plausibility that hidden layers are taught nothing.

    Args:
        rule: a spec, or a rule made with options of your choice.
        nets: the tiny networks to check it on.
        expected_failures: pattern of `Check.id` (``"my-rule:vmap:*"``) → the reason why it cannot hold. A check that
            passes although it was declared to fail is reported as failed.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    declared = dict(expected_failures or {})
    checks = list(rule_checks(rule, nets))
    _refuse_unmatched(declared, checks)
    return [_result(check, _reason(declared, check)) for check in checks]


def _result(check: Check, reason: str | None) -> CheckResult:
    outcome, message = _run(check)
    if reason is not None and outcome == "failed":
        outcome, message = "expected failure", reason
    elif reason is not None and outcome == "passed":
        outcome, message = (
            "failed",
            f"passes, though it is declared to fail ({reason}); take the declaration back",
        )
    return CheckResult(check.id, check.promise, outcome, message)


def _run(check: Check) -> tuple[Outcome, str]:
    try:
        check()
    except NotApplicable as reason:
        return "skipped", str(reason)
    except CheckFailed as failure:
        return "failed", str(failure)
    except Exception as error:  # noqa: BLE001  the rule is foreign code: whatever it raises is a finding
        return "failed", f"{type(error).__name__}: {error}"
    return "passed", ""


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
    import pytest

    declared = dict(expected_failures or {})
    checks = [check for rule in rules for check in rule_checks(rule, nets)]
    _refuse_unmatched(declared, checks)

    def parameter(check: Check) -> object:
        reason = _reason(declared, check)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
        return pytest.param(_Skipping(check), id=check.id, marks=marks)

    return pytest.mark.parametrize("check", [parameter(check) for check in checks])


@dataclass(frozen=True)
class _Skipping:
    """A check that tells pytest when it does not apply."""

    check: Check

    def __call__(self) -> None:
        import pytest

        try:
            self.check()
        except NotApplicable as reason:
            pytest.skip(str(reason))


def _reason(declared: Mapping[str, str], check: Check) -> str | None:
    return next((reason for pattern, reason in declared.items() if fnmatchcase(check.id, pattern)), None)


def _refuse_unmatched(declared: Mapping[str, str], checks: list[Check]) -> None:
    for pattern in declared:
        if not any(fnmatchcase(check.id, pattern) for check in checks):
            raise ValueError(
                f"expected failure {pattern!r} matches no check; checks are called like {checks[0].id!r}"
            )
