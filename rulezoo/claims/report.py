"""The page of claims, in Markdown with figures: the same records give the same bytes."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rulezoo.claims.design import PROFILES, Arm, Claim, Profile, Study, Table
from rulezoo.claims.evidence import Evidence
from rulezoo.claims.verdicts import Verdict
from rulezoo.leaderboard.names import machine

PAGE = "README.md"


class Finding(NamedTuple):
    """One profile of a claim, and what is stored of it."""

    claim: Claim
    profile: Profile
    evidence: Evidence

    @property
    def study(self) -> Study:
        """The protocol."""
        return self.claim.studies[self.profile]

    @property
    def verdict(self) -> Verdict | None:
        """The verdict; ``None`` unless every run is stored."""
        return self.claim.criterion.judge(self.evidence) if self.evidence.complete else None

    @property
    def state(self) -> str:
        """``not run``, how much of it is, or the verdict."""
        done, planned = self.evidence.done, self.evidence.planned
        if self.verdict:
            return self.verdict.text()
        return f"{done} of {planned} runs, no verdict yet" if done else "not run"

    @property
    def details(self) -> str:
        """The same; of a verdict, which of its conditions hold."""
        return self.verdict.details() if self.verdict else self.state

    @property
    def figure(self) -> str:
        """File name of its figure."""
        return f"{self.claim.name}-{self.profile}.svg"


def write(findings: Iterable[Finding], root: Path) -> list[Path]:
    """Write the page and the figures into a folder; the files that are written."""
    findings = list(findings)
    files: dict[str, bytes] = {PAGE: page(findings).encode()}
    for finding in findings:
        if finding.evidence.complete:
            from rulezoo.claims.figures import draw

            files[finding.figure] = draw(finding.claim.criterion.chart(finding.evidence))
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return [root / name for name in files]


def page(findings: Iterable[Finding]) -> str:
    """The whole page."""
    findings = list(findings)
    return (
        "\n".join([*_head(findings), *(line for claim in _claims(findings) for line in claim)]).rstrip()
        + "\n"
    )


def _head(findings: list[Finding]) -> Iterator[str]:
    yield "# Claims put to the test"
    yield ""
    yield (
        "Each claim is a study whose protocol and verdict rule were written down before it was run. **Every number here "
        "is ours**: the paper's numbers and set-ups are not known to us, so none of them can be compared with the "
        "paper's. This page and its figures are written by `rulezoo claims report` from the stored runs."
    )
    yield ""
    rows = []
    for claim in dict.fromkeys(finding.claim for finding in findings):
        states = {f.profile: f.details for f in findings if f.claim == claim}
        rows.append(
            (f"[{claim.name}](#{claim.name})", claim.statement, *(states.get(p, "") for p in PROFILES))
        )
    yield from _table(
        Table("", ("claim", "statement", *(f"{p} profile" for p in PROFILES)), tuple(rows)), raw=1
    )


def _claims(findings: list[Finding]) -> Iterator[Iterator[str]]:
    for claim in dict.fromkeys(finding.claim for finding in findings):
        yield _claim(claim, [f for f in findings if f.claim == claim])


def _claim(claim: Claim, findings: list[Finding]) -> Iterator[str]:
    yield from (
        "",
        f"## {claim.name}",
        "",
        f"> {_text(claim.statement)}",
        "",
        f"Source: {_text(claim.source)}.",
        "",
    )
    yield f"**Verdict rule.** {_text(claim.criterion.verdict_rule)}"
    for paragraph in claim.remarks.split("\n\n"):
        yield from ("", _text(paragraph))
    for finding in findings:
        yield from _finding(finding)


def _finding(finding: Finding) -> Iterator[str]:
    claim, profile, evidence, study = finding.claim, finding.profile, finding.evidence, finding.study
    command = f"`rulezoo claims run {claim.name} --profile {profile}`"
    yield from ("", f"### {claim.name}, {profile} profile: {finding.state}", "")
    yield f"Scale: {_text(study.scale)}. {study.runs} runs; {_text(study.duration)}. Run it with {command}."
    yield ""
    yield from _table(protocol(study))
    if not finding.verdict:
        return
    yield ""
    yield f"Computed on {_text(_machines(evidence))}."
    yield from _failures(evidence)
    yield from ("", f"**Verdict: {finding.verdict.word}**", "")
    for part in finding.verdict.parts:
        yield f"- {part.state}: {_text(part.text)}"
    chart = claim.criterion.chart(evidence)
    yield from ("", f"![{_text(chart.description)}]({finding.figure})")
    for table in [*claim.criterion.tables(evidence), *tuning(study, evidence)]:
        yield from ("", f"**{_text(table.title)}**", "")
        yield from _table(table)
    yield from ("", "Brackets hold 95 % intervals over seeds; a number without one is a mean over seeds.")


def protocol(study: Study) -> Table:
    """What is run: one row for each series on each task."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[Arm]] = {}
    for arm in study.arms:
        groups.setdefault((arm.label, arm.task, arm.seeds), []).append(arm)
    by_name = {tuning.name: tuning for tuning in study.tunings}
    rows = []
    for (label, task, seeds), arms in groups.items():
        tuned = [f"{by_name[name].option} tuned" for name in dict.fromkeys(a.tuned for a in arms) if name]
        rows.append(
            (
                label,
                ", ".join([arms[0].rule, *_options([a.options for a in arms]), *tuned]),
                ", ".join([task, *_options([a.task_options for a in arms])]),
                "the task's" if arms[0].epochs is None else str(arms[0].epochs),
                _seeds(seeds),
            )
        )
    return Table("Protocol", ("series", "rule and options", "task", "epochs", "seeds"), tuple(rows))


def _options(given: list[Mapping[str, str]]) -> list[str]:
    """``name=value`` where all agree, ``name=a/b/c`` where they do not."""
    names = dict.fromkeys(name for options in given for name in options)
    return [f"{name}={'/'.join(dict.fromkeys(o[name] for o in given if name in o))}" for name in names]


def tuning(study: Study, evidence: Evidence) -> list[Table]:
    """What was tried before, and what won."""
    if not study.tunings:
        return []
    rows = []
    for one in study.tunings:
        tried = evidence.tried.get(one.name, {})
        grid = ", ".join(f"{value}: {100 * score:.1f}" for value, score in tried.items())
        chosen = evidence.chosen.get(one.name, "")
        edge = " (an end of the grid)" if chosen in (one.values[0], one.values[-1]) else ""
        rows.append((one.name, one.option, grid, chosen + edge))
    title = f"Tuning: mean validation score in percent, seed {_seeds(study.tunings[0].arm.seeds)}"
    return [Table(title, ("rule", "option", "tried", "chosen"), tuple(rows))]


def _seeds(seeds: tuple[int, ...]) -> str:
    consecutive = len(seeds) > 1 and seeds == tuple(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}-{seeds[-1]}" if consecutive else ", ".join(map(str, seeds))


def _machines(evidence: Evidence) -> str:
    return "; ".join(sorted({machine(record.answered.hardware) for record in evidence.records}))


def _failures(evidence: Evidence) -> Iterator[str]:
    bad = [
        f"- {arm.label} on {arm.task}, {arm.at:g}, seed {seed}: {record.status}, {record.reason}"
        for arm, runs in evidence.runs.items()
        for seed, record in runs.items()
        if record.status != "ok"
    ]
    if bad:
        yield from (
            "",
            "Runs that did not end well count at chance level, and have no angles:",
            "",
            *map(_text, bad),
        )


def _table(table: Table, raw: int = 0) -> Iterator[str]:
    """A Markdown table; the first ``raw`` columns are Markdown already."""
    yield "| " + " | ".join(map(_cell, table.head)) + " |"
    yield "|" + "---|" * len(table.head)
    for row in table.rows:
        yield "| " + " | ".join([*row[:raw], *map(_cell, row[raw:])]) + " |"


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(words: str) -> str:
    """Words that stay words in Markdown."""
    return html.escape(" ".join(words.split()), quote=False).replace("*", "\\*").replace("[", "\\[")
