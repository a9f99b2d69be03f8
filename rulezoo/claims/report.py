"""The page of claims, in Markdown with figures: the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rulezoo.claims import theory_page
from rulezoo.claims.chart import Chart
from rulezoo.claims.design import PROFILES, Arm, Claim, Profile, Study, Table
from rulezoo.claims.evidence import Evidence
from rulezoo.claims.markdown import plain, table_lines
from rulezoo.claims.verdicts import Verdict
from rulezoo.discovery.plugins import foreign
from rulezoo.errors import PluginError
from rulezoo.leaderboard.names import machine
from rulezoo.results.records import Record

PAGE = "README.md"
THEORY, THEORY_FIGURE = "theory.md", "theory.svg"


class Judgement(NamedTuple):
    """What a criterion makes of the evidence."""

    verdict: Verdict
    tables: tuple[Table, ...]
    chart: Chart | None


@dataclass(frozen=True)
class Finding:
    """One profile of a claim, and what is stored of it.

    Attributes:
        claim: the claim.
        profile: the profile.
        evidence: what is stored.
        outdated: how many of the judged runs are not what the study would have now; see `rulezoo.claims.running.outdated`.
    """

    claim: Claim
    profile: Profile
    evidence: Evidence
    outdated: int = 0

    @property
    def study(self) -> Study:
        """The protocol."""
        return self.claim.study(self.profile)

    @cached_property
    def judgement(self) -> Judgement | PluginError | None:
        """The verdict with its numbers; ``None`` unless every run is stored; the error, if the claim's code fails."""
        if not self.evidence.complete:
            return None
        criterion = self.claim.criterion
        try:
            with foreign(f"claim {self.claim.name!r} cannot be judged"):
                verdict = criterion.judge(self.evidence)
                if not isinstance(verdict, Verdict):
                    raise TypeError(f"judge() must return a Verdict, got a {type(verdict).__name__}")
                tables = tuple(criterion.tables(self.evidence))
                return Judgement(verdict, tables, criterion.chart(self.evidence))
        except PluginError as error:
            return error

    @cached_property
    def picture(self) -> bytes | PluginError | None:
        """The figure as an SVG file; ``None`` if there is none; the error, if it cannot be drawn."""
        from rulezoo.claims.figures import draw

        if not isinstance(self.judgement, Judgement) or self.judgement.chart is None:
            return None
        try:
            with foreign(f"the figure of claim {self.claim.name!r} cannot be drawn"):
                return draw(self.judgement.chart)
        except PluginError as error:
            return error

    def problem(self, *, drawn: bool = False) -> str:
        """What the claim's code failed at; empty if it did not.

        Args:
            drawn: draw the figure, too.
        """
        if isinstance(self.judgement, PluginError):
            return str(self.judgement)
        return str(self.picture) if drawn and isinstance(self.picture, PluginError) else ""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict; ``None`` unless every run is stored."""
        return self.judgement.verdict if isinstance(self.judgement, Judgement) else None

    @property
    def crossovers(self) -> list[Table]:
        """The crossover of two series; none, if the claim's code fails at it."""
        try:
            with foreign(f"the crossovers of claim {self.claim.name!r} cannot be found"):
                found = getattr(
                    self.claim.criterion, "crossovers", None
                )  # of a criterion that is no subclass
                return list(found(self.evidence)) if found is not None else []
        except PluginError:
            return []

    @property
    def state(self) -> str:
        """``not run``, how much of it is stored, or the verdict with its parts."""
        if isinstance(self.judgement, PluginError):
            return "cannot be judged"
        return self.verdict.text() if self.verdict else self._progress

    @property
    def details(self) -> str:
        """The same; of a verdict, which of its parts hold."""
        return self.verdict.details() if self.verdict else self.state

    @property
    def caveat(self) -> str:
        """That runs are of older code, and how many; empty if none is."""
        if not self.outdated:
            return ""
        judged = len({record.asked.key for record in self.evidence.records})
        return f"{self.outdated} of {judged} judged runs are of older code"

    @property
    def _progress(self) -> str:
        done, planned = self.evidence.done, self.evidence.planned
        return f"{done} of {planned} runs, no verdict yet" if done else "not run"

    @property
    def figure(self) -> str:
        """File name of its figure."""
        return f"{self.claim.name}-{self.profile}.svg"


def write(findings: Iterable[Finding], root: Path) -> list[Path]:
    """Write the page and the figures into a folder; the files that are written."""
    files = render(findings)
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return [root / name for name in files]


def render(findings: Iterable[Finding]) -> dict[str, bytes]:
    """File name → content of the page and the figures."""
    findings = list(findings)
    pictures = {f.figure: f.picture for f in findings if isinstance(f.picture, bytes)}
    return {PAGE: page(findings).encode(), **pictures, **_theory(findings)}


def page(findings: Iterable[Finding]) -> str:
    """The whole page."""
    findings = list(findings)
    lines = [*_head(findings), *(line for one in _by_claim(findings) for line in _claim(one))]
    return "\n".join(lines).rstrip() + "\n"


@dataclass(frozen=True)
class Theory:
    """What the page on theory shows.

    Attributes:
        chart: measured angles over the closed form.
        crossovers: claim with its profile, and the crossover of two of its series.
        tables: predicted and measured angles, summarised and in full.
    """

    chart: Chart
    crossovers: tuple[tuple[str, Table], ...]
    tables: tuple[Table, ...]


def theory(findings: Iterable[Finding]) -> Theory | None:
    """The measured angles of complete studies, and what theory predicts; ``None`` until a study that perturbs is complete."""
    judged = [finding for finding in findings if isinstance(finding.judgement, Judgement)]
    found = [row for f in judged for row in theory_page.rows(f.claim.name, f.profile, f.evidence)]
    if not found:
        return None
    return Theory(
        chart=theory_page.chart(found),
        crossovers=tuple(
            (f"{f.claim.name} ({f.profile} profile)", table) for f in judged for table in f.crossovers
        ),
        tables=(theory_page.summary(found), theory_page.table(found)),
    )


def _theory(findings: Sequence[Finding]) -> dict[str, bytes]:
    """The page on theory with its figure."""
    from rulezoo.claims.figures import draw

    shown = theory(findings)
    if shown is None:
        return {}
    lines = [*_theory_head(), f"![{plain(shown.chart.description)}]({THEORY_FIGURE})"]
    lines += ["", "## Crossover: at which budget the order changes", "", CROSSOVER]
    for study, table in shown.crossovers:
        lines += ["", f"**{study}. {plain(table.title)}**", "", *table_lines(table)]
    lines += ["", "## Prediction and measurement", "", APART]
    for table in shown.tables:
        lines += ["", f"**{plain(table.title)}**", "", *table_lines(table)]
    return {THEORY: ("\n".join(lines) + "\n").encode(), THEORY_FIGURE: draw(shown.chart)}


CROSSOVER = (
    "Theory predicts the crossover of the angles: the number of perturbations up to which NMNC has the smaller angle, "
    "K\\* = \\[α((n+2)ρ − 1) − ((d+2)ρ − 1)]/(1 − α), divided by what the running average makes of one perturbation. It "
    "predicts nothing of scores; where their order changes is observed only."
)
APART = (
    "The prediction uses n, d, α, ρ and the ceiling, measured on the same networks after training. It leaves out that the "
    "feedback lags behind a network that learns, that noise of finite size meets a network that bends, and that NMNC finds "
    "its manifold from recent batches and not from the 1,024 examples on which α is measured. On recurrent networks it also "
    "takes each perturbation to inform every lag, and all time steps to have one Jacobian; there it is rough. Square brackets hold 95 % "
    "confidence intervals over seeds; a number without one is a mean over seeds."
)


OUTDATED = "The same command with `--retry stale` runs them again."
QUESTION = (
    "How many perturbations does a site need? `rulezoo theory` answers from the number of units n, the dimension d of the "
    "manifold, the share α of the gradient in it, and the spread ρ of gradients over examples: "
    "`rulezoo theory --units 8192 --rank 32 --alpha 0.45 --angle 80`, or `rulezoo theory --network cifar10-cnn` with what "
    "is measured. This page compares its equations with every angle that was measured for a claim whose study is "
    "complete."
)
CURVE = (
    "Of cos² of the smallest possible angle (α times cos² of the ceiling), an estimate from K perturbations reaches "
    "1/(1 + ((d+2)ρ − 1)/K), where d = n for noise in all units. So all sites have one curve:"
)


def _theory_head() -> Iterator[str]:
    yield from (
        "# Theory and measurements",
        "",
        f"{QUESTION} It is written by `rulezoo claims report`.",
        "",
        CURVE,
        "",
    )


def _by_claim(findings: Iterable[Finding]) -> list[list[Finding]]:
    """The findings of each claim; by name, as a foreign claim need not be hashable."""
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.claim.name, []).append(finding)
    return list(grouped.values())


def _head(findings: list[Finding]) -> Iterator[str]:
    yield "# Claims put to the test"
    yield ""
    yield (
        "Each claim is a study whose protocol and verdict rule are written down before it is run; a later change of "
        "either is reported with the claim. **Every number here comes from these runs**, and none from a paper. This page "
        "and its figures are written by `rulezoo claims report` from the stored runs."
    )
    yield ""
    yield (
        "Quick profiles are reduced in scale, for two CPU cores; standard ones take some hours there, and full ones are "
        "for a GPU. A verdict holds at the scale of its profile. It rests on the parts counted first; what is *also "
        "reported* is not judged."
    )
    yield ""
    if any(arm.noise for finding in findings for arm in finding.study.arms):
        yield (
            f"[Theory and measurements]({THEORY}) compares the measured angles with the closed forms, and shows at which "
            "number of perturbations the order of two rules changes."
        )
        yield ""
    shown = [p for p in PROFILES if any(f.profile == p for f in findings)]
    rows = []
    for group in _by_claim(findings):
        claim, states = group[0].claim, {f.profile: _with_caveat(f) for f in group}
        named = f"[{claim.name}](#{claim.name})"
        rows.append((named, claim.statement, *(states.get(p, "no such profile") for p in shown)))
    yield from table_lines(
        Table("", ("claim", "statement", *(f"{p} profile" for p in shown)), tuple(rows)), raw=1
    )


def _with_caveat(finding: Finding) -> str:
    return f"{finding.details} ({finding.caveat})" if finding.caveat else finding.details


def _claim(findings: list[Finding]) -> Iterator[str]:
    claim = findings[0].claim
    yield from (
        "",
        f"## {claim.name}",
        "",
        f"> {plain(claim.statement)}",
        "",
        f"Source: {plain(claim.source)}.",
        "",
    )
    yield f"**Verdict rule.** {plain(claim.criterion.verdict_rule)}"
    if claim.changes:
        yield from ("", f"**Changes.** {plain(claim.changes)}")
    for paragraph in filter(None, claim.remarks.split("\n\n")):
        yield from ("", plain(paragraph))
    for finding in findings:
        yield from _finding(finding)


def _finding(finding: Finding) -> Iterator[str]:
    claim, profile, study = finding.claim, finding.profile, finding.study
    command = f"`rulezoo claims run {claim.name} --profile {profile}`"
    yield from ("", f"### {claim.name}, {profile} profile: {finding.state}", "")
    yield f"Scale: {plain(study.scale)}. {study.runs} runs; {plain(study.duration)}. Run it with {command}."
    yield ""
    yield from table_lines(protocol(study))
    if problem := finding.problem(drawn=True):
        yield from ("", f"{plain(problem)}.")
    if isinstance(finding.judgement, Judgement):
        yield from _judgement(finding, finding.judgement)


def _judgement(finding: Finding, found: Judgement) -> Iterator[str]:
    evidence = finding.evidence
    yield ""
    yield (
        f"Computed on {plain(_machines(evidence))}; the judged runs took {duration(evidence.records)}, one after the other."
    )
    if finding.caveat:
        yield from ("", f"**{finding.caveat}**: the verdict is that of the code as it was. {OUTDATED}")
    yield from _failures(evidence)
    yield from ("", f"**Verdict ({finding.profile} profile): {found.verdict.text()}**", "")
    for part in found.verdict.parts:
        yield f"- {part.state}{'' if part.judged else ' (not judged)'}: {plain(part.text)}"
    for note in found.verdict.notes:
        yield from ("", plain(note))
    if found.chart and isinstance(finding.picture, bytes):
        yield from ("", f"![{plain(found.chart.description)}]({finding.figure})")
    for table in [*found.tables, *tuning(finding.study, evidence)]:
        yield from ("", f"**{plain(table.title)}**", "")
        yield from table_lines(table)
    yield from (
        "",
        "Square brackets hold 95 % confidence intervals over seeds; a number without one is a mean over seeds.",
    )


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


def duration(records: Iterable[Record]) -> str:
    """How long runs took, one after the other; seeds that were trained together count once."""
    spans = {(one.answered.started, one.answered.finished) for one in records}
    seconds = sum((datetime.fromisoformat(b) - datetime.fromisoformat(a)).total_seconds() for a, b in spans)
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"


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
            "Runs that failed or diverged count at chance level, and have no angles:",
            "",
            *map(plain, bad),
        )
