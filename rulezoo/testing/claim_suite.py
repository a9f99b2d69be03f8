"""The conformance suite of claims: what can be known of a claim before its study is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulezoo.claims.design import Arm, Claim
from rulezoo.comparison.plan import plan
from rulezoo.comparison.request import Request
from rulezoo.discovery.registry import Registry, discover
from rulezoo.errors import UserError
from rulezoo.specs import ClaimSpec
from rulezoo.testing.check import ByFunction, CheckResult, outcomes, parametrized
from rulezoo.testing.expect import CheckFailed, expect

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class ClaimCase:
    """A claim, what its plugin says about it, and the rules and tasks there are."""

    claim: Claim
    spec: ClaimSpec
    zoo: Registry


def check_claim_spec(case: ClaimCase) -> None:
    """The spec tells the truth: it loads a claim of the same name, with a summary and a source."""
    expect(isinstance(case.claim, Claim), f"{case.spec.target} is no rulezoo.claims.Claim")
    expect(
        case.claim.name == case.spec.name,
        f"the claim is called {case.claim.name!r}, and its spec {case.spec.name!r}",
    )
    expect(bool(case.spec.summary.strip()), f"the spec of {case.spec.name} has no summary")
    expect(bool(case.claim.statement.strip()), "the claim has no statement")
    expect(bool(case.claim.source.strip()), "the claim does not say who makes it")


def check_verdict_rule(case: ClaimCase) -> str:
    """The criterion states its verdict rule before anything is run."""
    rule = case.claim.criterion.verdict_rule
    expect(isinstance(rule, str) and len(rule.split()) > 2, f"verdict_rule must be a sentence, got {rule!r}")
    return rule


def check_runs(case: ClaimCase) -> str:
    """Every arm can be planned: its rule, its task and their options exist."""
    for profile, study in case.claim.studies.items():
        for arm in (*study.arms, *(tuning.arm for tuning in study.tunings)):
            try:
                plan(case.zoo, _request(arm))
            except UserError as error:
                raise CheckFailed(f"arm {arm.label!r} of the {profile} profile: {error}") from error
    return ", ".join(f"{profile}: {study.runs} runs" for profile, study in case.claim.studies.items())


def _request(arm: Arm) -> Request:
    return Request(
        rules=(arm.rule,),
        tasks=(arm.task,),
        seeds=arm.seeds,
        options={arm.task: dict(arm.task_options), arm.rule: dict(arm.options)},
        epochs=arm.epochs,
        device="cpu",
        probes=arm.probes,
    )


CHECKS: tuple[Callable[[ClaimCase], str | None], ...] = (check_claim_spec, check_verdict_rule, check_runs)


@dataclass(frozen=True)
class ClaimCheck(ByFunction):
    """One check of one claim; see `rulezoo.testing.Check`.

    Attributes:
        spec: loads the claim when the check is called, not before.
        function: the check.
        zoo: the rules and tasks there are; ``None`` = those that are installed.
    """

    spec: ClaimSpec
    function: Callable[[ClaimCase], str | None] = field(repr=False)
    zoo: Registry | None = field(repr=False)

    @property
    def id(self) -> str:
        """``nmnc-beats-vnc:runs``."""
        return f"{self.spec.name}:{self.name}"

    def __call__(self) -> str | None:
        """Run it; returns what was found."""
        return self.function(ClaimCase(self.spec.load(), self.spec, self.zoo or discover()))


def claim_checks_of(spec: ClaimSpec, *, zoo: Registry | None = None) -> Iterator[ClaimCheck]:
    """Every check of a claim; nothing is loaded before a check is called."""
    yield from (ClaimCheck(spec, function, zoo) for function in CHECKS)


def check_claim(
    spec: ClaimSpec,
    *,
    zoo: Registry | None = None,
    expected_failures: Mapping[str, str] | None = None,
    report: Callable[[int, int, str], None] | None = None,
) -> list[CheckResult]:
    """Run the conformance suite on a claim; nothing is trained.

    Args:
        spec: of the claim.
        zoo: the rules and tasks there are; those that are installed if not given.
        expected_failures: as for `rulezoo.testing.check_rule`.
        report: likewise.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    return outcomes(claim_checks_of(spec, zoo=zoo), expected_failures, report)


def parametrize_claim_checks(
    specs: Iterable[ClaimSpec], *, expected_failures: Mapping[str, str] | None = None
) -> pytest.MarkDecorator:
    """A decorator that makes one pytest test for each check of each claim; see `parametrize_rule_checks`."""
    return parametrized((check for spec in specs for check in claim_checks_of(spec)), expected_failures)
