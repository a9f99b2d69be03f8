"""What a stored verification says of a row: whether the rule, as it made these runs, has passed the conformance suite.

A verification is of a rule's code, version and options. It counts as such where all three are those of the row. A row
with other options is shown with the verification of the author's defaults, and marked, if the options change no mark of
plausibility. Where the code or the version is another, or is not known, the verification is stale: it says nothing of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from rulezoo.discovery.former_fingerprints import as_today
from rulezoo.results import verifications
from rulezoo.results.freshness import code_of
from rulezoo.results.records import whole
from rulezoo.text import clean

if TYPE_CHECKING:
    from rulezoo.discovery.registry import Registry
    from rulezoo.options import Value
    from rulezoo.results.records import Record
    from rulezoo.results.store import Damage, Store
    from rulezoo.results.verifications import Verification

State = Literal["verified", "failed", "not examined", "stale"]


@dataclass(frozen=True)
class Verified:
    """A verification as a row shows it.

    Attributes:
        state: ``verified`` only if every check passed or did not apply, and code, version and marks are those of the row.
        reason: why it is stale, or which checks failed; empty where it is verified.
        passed: number of checks that passed.
        failed: number of checks that failed.
        skipped: number of checks that did not apply.
        version: of the rule, as it was verified.
        own_options: whether it was verified with the options of the row, and not with the author's defaults.
        marks: field of plausibility that was verified → names of the checks; empty unless the state is ``verified``.
        rulezoo: version of rulezoo that ran the checks.
        torch: version of torch that ran the checks.
        date: of the verification, ISO 8601.
    """

    state: State
    reason: str
    passed: int
    failed: int
    skipped: int
    version: int
    own_options: bool
    marks: dict[str, tuple[str, ...]]
    rulezoo: str
    torch: str
    date: str


class Verifications:
    """The verifications of a store, to ask for that of a row.

    Args:
        stored: verifications of any rules.
        code: name of a rule → fingerprint of its code as it is installed; ``None`` where it is not known.
        as_today: name of a rule and a stored fingerprint → the same by today's definition, see
            `rulezoo.discovery.former_fingerprints`.
    """

    def __init__(
        self,
        stored: Iterable[Verification] = (),
        code: Callable[[str], str | None] = lambda rule: None,
        as_today: Callable[[str, str], str] = lambda rule, code: code,
    ) -> None:
        self._code, self._as_today = code, as_today
        self._of: dict[str, list[Verification]] = {}
        for one in sorted(stored, key=lambda one: (one.finished, one.key)):
            self._of.setdefault(one.rule, []).append(one)

    def of(self, runs: Sequence[Record], marks: Mapping[str, str]) -> Verified | None:
        """What is known of a row.

        Args:
            runs: of the row; they have one rule and version, and may differ in its options.
            marks: the row's marks of plausibility.
        """
        asked = runs[0].asked
        options = {_identity(run.asked.rule_options): None for run in runs}
        one = self._best(asked.rule, asked.rule_version, list(options), marks)
        if one is None:
            return None
        codes = {self._today(asked.rule, run.answered.rule_code) for run in runs} | {self._code(asked.rule)}
        return self._shown(
            one, asked.rule_version, list(options) == [_identity(one.rule_options)], codes, marks
        )

    def of_defaults(self, rule: str, version: int, marks: Mapping[str, str]) -> Verified | None:
        """What is known of a rule as it is installed, with the author's defaults."""
        one = self._best(rule, version, [], marks)
        return None if one is None else self._shown(one, version, True, {self._code(rule)}, marks)

    def _shown(
        self, one: Verification, version: int, own: bool, codes: set[str | None], marks: Mapping[str, str]
    ) -> Verified:
        today = msgspec.structs.replace(one, rule_code=self._today(one.rule, one.rule_code))
        return _shown(today, version, own, codes, marks)

    def _today(self, rule: str, code: str | None) -> str | None:
        return None if code is None else self._as_today(rule, code)

    def _best(
        self, rule: str, version: int, options: list[str], marks: Mapping[str, str]
    ) -> Verification | None:
        """That of the same version rather than another, and of the same options rather than the defaults; the latest of equals."""
        candidates = [
            (one.rule_version == version, own, place, one)
            for place, one in enumerate(self._of.get(rule, ()))
            if (own := options == [_identity(one.rule_options)]) or (not one.changed and _agree(one, marks))
        ]
        return max(candidates, key=lambda c: c[:3], default=(False, False, 0, None))[3]


def stored(store: Store, registry: Registry) -> tuple[Verifications, list[Damage]]:
    """The verifications of a store, for the rules as they are installed, and the files that could not be read."""

    def module(rule: str) -> str | None:
        return registry.rules[rule].spec.module if rule in registry.rules else None

    def code(rule: str) -> str | None:
        return code_of(of) if (of := module(rule)) else None

    found = verifications.read(store)
    known = Verifications(found.found, code, lambda rule, code: as_today(code, module(rule)))
    return known, found.damaged


def _shown(
    one: Verification, version: int, own: bool, codes: set[str | None], marks: Mapping[str, str]
) -> Verified:
    reason, state = _stale(one, version, codes, marks), "stale"
    if not reason:
        state = "verified" if one.outcome == "passed" else one.outcome
        reason = f"failed: {', '.join(one.failed_checks)}" if one.failed else ""
        reason = "the rule skipped every network of the suite" if state == "not examined" else reason
    verified = {
        clean(name): tuple(map(clean, mark.checks))
        for name, mark in one.marks.items()
        if state == "verified" and mark.state == "verified" and marks.get(name) == mark.declared
    }
    return Verified(
        state=state,  # type: ignore[arg-type]  # one of the words above
        reason=clean(reason),
        passed=one.passed,
        failed=one.failed,
        skipped=one.skipped,
        version=one.rule_version,
        own_options=own,
        marks=verified,
        rulezoo=clean(one.packages.get("rulezoo", "")),
        torch=clean(one.packages.get("torch", "")),
        date=clean(one.finished),
    )


def _stale(one: Verification, version: int, codes: set[str | None], marks: Mapping[str, str]) -> str:
    """Why the verification says nothing of a row; of the fingerprints of its code, some may not be known."""
    if one.rule_version != version:
        return f"version {one.rule_version} of the rule was verified, and this is version {version}"
    known = codes - {None}
    if one.rule_code is None or not known:
        return "it is not known whether the code of the rule is the one that was verified"
    if known != {one.rule_code}:
        return "the code of the rule is not the one that was verified"
    return (
        "" if not marks or _agree(one, marks) else "the plausibility that is declared is not the one verified"
    )


def _agree(one: Verification, marks: Mapping[str, str]) -> bool:
    """Whether a row has the marks that were declared; those that were measured in their place do not count against it."""
    return all(
        marks.get(name) == mark.declared or marks.get(name, "").startswith("within blocks")
        for name, mark in one.marks.items()
    )


def _identity(options: Mapping[str, Value]) -> str:
    return repr(sorted((name, whole(value)) for name, value in options.items()))
