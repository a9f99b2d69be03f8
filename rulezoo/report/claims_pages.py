"""What the pages of claims and theory show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from rulezoo.claims import report as claims

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rulezoo.claims.design import Table
    from rulezoo.claims.report import Finding

_CODE = re.compile(r"`([^`]*)`")
_MARKDOWN = re.compile(r"\\([\\*\[\]_])")  # an escaped character


class Row(NamedTuple):
    """A row of the summary: a claim at one scale."""

    claim: str
    statement: str
    profile: str
    verdict: str
    word: str
    parts: str
    caveat: str
    runs: str
    hours: str


class Profile(NamedTuple):
    """A claim at one scale: its verdict with the parts, its figure and its tables."""

    finding: Finding
    problem: str
    tables: Sequence[Table]
    picture: str
    words: str


def summary(findings: Iterable[Finding]) -> list[Row]:
    """A row for each profile that has runs; a claim without any has one row."""
    by_claim: dict[str, list[Finding]] = {}
    for one in findings:
        by_claim.setdefault(one.claim.name, []).append(one)
    return [
        _row(one)
        for group in by_claim.values()
        for one in ([one for one in group if one.evidence.done or one.problem()] or group[:1])
    ]


def _row(one: Finding) -> Row:
    verdict, evidence = one.verdict, one.evidence
    return Row(
        claim=one.claim.name,
        statement=one.claim.statement,
        profile=one.profile,
        verdict=verdict.word if verdict else one.state,
        word=verdict.word.replace(" ", "-") if verdict else "",
        parts=verdict.counts() if verdict else "",
        caveat=one.caveat,
        runs=f"{evidence.done} of {evidence.planned}"
        if evidence.done < evidence.planned
        else f"{evidence.done}",
        hours=claims.duration(evidence.records) if evidence.done else f"planned: {one.study.duration}",
    )


def profiles(findings: Iterable[Finding]) -> tuple[list[tuple[Any, list[Profile]]], dict[str, bytes]]:
    """Each claim with its profiles, and the pictures by file name."""
    grouped: dict[str, tuple[Any, list[Profile]]] = {}
    pictures: dict[str, bytes] = {}
    for one in findings:
        tables, picture, words = [claims.protocol(one.study)], "", ""
        if isinstance(one.judgement, claims.Judgement):
            tables += [*one.judgement.tables, *claims.tuning(one.study, one.evidence)]
            if one.judgement.chart and isinstance(one.picture, bytes):
                picture, words = one.figure, one.judgement.chart.description
                pictures[picture] = one.picture
        shown = Profile(one, one.problem(drawn=True), tables, picture, words)
        grouped.setdefault(one.claim.name, (one.claim, []))[1].append(shown)
    return list(grouped.values()), pictures


def theory(findings: Sequence[Finding]) -> tuple[dict[str, Any], bytes] | None:
    """What the page on theory is given, and its picture; ``None`` where no complete study perturbs."""
    from rulezoo.claims.figures import draw

    found = claims.theory(findings)
    if found is None:
        return None
    context = {
        "theory": found,
        "question": _marked(claims.QUESTION),
        "curve": _marked(claims.CURVE),
        "crossover": _marked(claims.CROSSOVER),
        "apart": _marked(claims.APART),
        "picture": claims.THEORY_FIGURE,
    }
    return context, draw(found.chart)


def _marked(text: str) -> Markup:
    """Words of our own in Markdown: code and escaped characters are all that they hold."""
    plain = _MARKDOWN.sub(r"\1", text)
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(plain))))
