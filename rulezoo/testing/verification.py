"""What a report of the conformance suite says of each mark of plausibility, and the report as it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rulezoo.leaderboard import plausibility
from rulezoo.options import declared
from rulezoo.results.freshness import code_of
from rulezoo.results.provenance import checkout, packages
from rulezoo.results.records import Plugin
from rulezoo.results.verifications import Mark, Outcome, State, Verification
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.testing.verify import Report

# A check that is called like a field of plausibility concerns it. Others that do:
_CONCERNS = {"hidden_gradients": "hidden_learning"}
_SAID = {"verified": "verified by", "failed": "refuted by"}


def marks(report: Report) -> dict[str, Mark]:
    """Field of plausibility → what the rule declares with the options that were checked, and whether it was verified."""
    plausibility = report.plausibility
    return {
        name: _mark(report, name, mark)
        for name, mark in (plausibility.marks() if plausibility else {}).items()
    }


def _mark(report: Report, field: str, mark: str) -> Mark:
    concerned = [
        result
        for result in report.results
        if _CONCERNS.get(result.check, result.check) == field and result.outcome in ("passed", "failed")
    ]
    failed = [result for result in concerned if result.outcome == "failed"]
    state: State = "failed" if failed else "verified" if concerned else "declared"
    return Mark(declared=mark, state=state, checks=list(dict.fromkeys(r.check for r in failed or concerned)))


def lines(report: Report) -> Iterator[str]:
    """The marks as text, a line for each."""
    found = marks(report)
    if found:
        yield "plausibility:"
    names = {field: plausibility.name(field) for field in found}
    widths = [
        max(map(len, words), default=0) for words in (names.values(), [m.declared for m in found.values()])
    ]
    for field, mark in found.items():
        said = f"{_SAID[mark.state]} {', '.join(mark.checks)}" if mark.checks else "declared only"
        yield f"    {names[field]:<{widths[0]}}  {clean(mark.declared):<{widths[1]}}  {said}"


def verification(report: Report) -> Verification:
    """A report of a rule, to be stored."""
    found, counts = report.subject.found, report.counts
    failed = list(dict.fromkeys(r.check for r in report.results if r.outcome == "failed"))
    commit, dirty = checkout()
    return Verification(
        rule=report.subject.name,
        rule_version=found.spec.version,
        rule_options=dict(report.options),
        changed=_changed(report),
        rule_plugin=Plugin(distribution=found.distribution, version=found.version or None),
        rule_code=code_of(found.spec.module),
        outcome=_outcome(report),
        passed=counts["passed"],
        failed=counts["failed"],
        skipped=len(report.results) - counts["passed"] - counts["failed"],
        failed_checks=failed,
        marks=marks(report),
        packages=packages("cpu"),
        commit=commit,
        dirty=dirty,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=report.seed,
        on=list(report.on),
    )


def _outcome(report: Report) -> Outcome:
    """A rule that skips every network has kept no promise that matters."""
    if report.counts["failed"]:
        return "failed"
    examined = any(result.net and result.outcome == "passed" for result in report.results)
    return "not examined" if report.counts["not examined"] or not examined else "passed"


def _changed(report: Report) -> list[str]:
    """The options that are not the author's default."""
    if not report.options:
        return []
    known = declared(report.subject.found.spec.load())
    return [
        name for name, value in report.options.items() if value != known[name].canonical(known[name].default)
    ]
