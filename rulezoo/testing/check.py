"""What a conformance suite is made of: checks, what came of them, and how pytest is given them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, Protocol

from rulezoo.testing.advice import NEXT_STEP
from rulezoo.testing.expect import CheckFailed, NotApplicable, NotExamined

if TYPE_CHECKING:
    import pytest

Outcome = Literal["passed", "failed", "skipped", "expected failure", "not examined"]


class Check(Protocol):
    """One check of one rule or task."""

    @property
    def name(self) -> str:
        """What is checked, in a word: ``vmap``."""

    @property
    def promise(self) -> str:
        """The promise to which the check holds its subject, in one sentence."""

    @property
    def id(self) -> str:
        """Subject and check, and the network if there are several: ``nmnc:vmap:cnn``."""

    def __call__(self) -> str | None:
        """Run it.

        Returns:
            what was measured, in words, where there is a number to tell.

        Raises:
            CheckFailed: if the promise is broken; or whatever the subject itself raises.
            NotApplicable: if the check does not concern the subject.
            NotExamined: if nothing could be checked, so that passing the other checks means nothing.
        """


class ByFunction:
    """The name and the promise of a check are those of a function ``check_NAME``, which a subclass has as ``function``."""

    function: Callable[..., str | None]

    @property
    def name(self) -> str:
        """``vmap``, for the function ``check_vmap``."""
        return self.function.__name__.removeprefix("check_")

    @property
    def promise(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes:
        id: subject, check and network, as in `Check.id`.
        promise: what was checked, in one sentence.
        outcome: ``"passed"``, ``"failed"``, ``"skipped"``, ``"expected failure"``, or ``"not examined"``, for a subject that
            could not be checked.
        message: why it failed, was skipped or could not be examined; for an expected failure, the declared reason.
        measured: what was measured, in words; empty where there is no number to tell.
    """

    id: str
    promise: str
    outcome: Outcome
    message: str = ""
    measured: str = ""

    @property
    def check(self) -> str:
        """The check's name."""
        return self.id.split(":")[1]

    @property
    def net(self) -> str | None:
        """The network's name, where the check goes through several."""
        return self.id.split(":")[2] if self.id.count(":") == 2 else None


def outcomes(
    checks: Iterable[Check],
    expected_failures: Mapping[str, str] | None = None,
    report: Callable[[int, int, str], None] | None = None,
) -> list[CheckResult]:
    """Run checks; none stops another.

    Args:
        checks: the checks.
        expected_failures: pattern of `Check.id` (``"my-rule:vmap:*"``) → the reason why it cannot hold. A check that
            passes although it was declared to fail is reported as failed.
        report: called before each check with the number of those done, that of all, and the check's `Check.id`.

    Raises:
        ValueError: if an expected failure matches no check.
    """
    declared, every = dict(expected_failures or {}), list(checks)
    _refuse_unmatched(declared, every)
    results = []
    for number, check in enumerate(every):
        if report is not None:
            report(number, len(every), check.id)
        results.append(_result(check, _reason(declared, check)))
    return results


def parametrized(
    checks: Iterable[Check], expected_failures: Mapping[str, str] | None = None
) -> pytest.MarkDecorator:
    """A decorator that makes one pytest test, with an argument ``check``, for each check; as for `outcomes`."""
    import pytest

    declared, every = dict(expected_failures or {}), list(checks)
    _refuse_unmatched(declared, every)

    def parameter(check: Check) -> object:
        reason = _reason(declared, check)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
        return pytest.param(_Skipping(check), id=check.id, marks=marks)

    return pytest.mark.parametrize("check", [parameter(check) for check in every])


@dataclass(frozen=True)
class _Skipping:
    """A check that tells pytest when it does not apply, and fails where nothing was examined."""

    check: Check

    def __call__(self) -> None:
        import pytest

        try:
            self.check()
        except NotApplicable as reason:
            pytest.skip(str(reason))
        except NotExamined as reason:
            pytest.fail(f"not examined: {reason}; next: {NEXT_STEP.get(self.check.name)}", pytrace=False)


def _result(check: Check, reason: str | None) -> CheckResult:
    outcome, message, measured = _run(check)
    if reason is not None and outcome in ("failed", "not examined"):
        outcome, message = "expected failure", reason
    elif reason is not None and outcome == "passed":
        why = f"passes, though it is declared to fail ({reason}); take the declaration back"
        outcome, message = "failed", why
    return CheckResult(check.id, check.promise, outcome, message, measured)


def _run(check: Check) -> tuple[Outcome, str, str]:
    try:
        return "passed", "", check() or ""
    except NotApplicable as reason:
        return "skipped", str(reason), ""
    except NotExamined as reason:
        return "not examined", str(reason), ""
    except CheckFailed as failure:
        return "failed", str(failure), ""
    except Exception as error:  # noqa: BLE001  the subject is foreign code: whatever it raises is a finding
        return "failed", f"{type(error).__name__}: {error}", ""


def _reason(declared: Mapping[str, str], check: Check) -> str | None:
    return next((reason for pattern, reason in declared.items() if fnmatchcase(check.id, pattern)), None)


def _refuse_unmatched(declared: Mapping[str, str], checks: list[Check]) -> None:
    for pattern in declared:
        if not any(fnmatchcase(check.id, pattern) for check in checks):
            raise ValueError(
                f"expected failure {pattern!r} matches no check; checks are called like {checks[0].id!r}"
            )
