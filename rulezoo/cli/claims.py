"""``rulezoo claims``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import count, going_on_later, log, name_failed, print_table, registry
from rulezoo.cli.executor import ExecutorOptions, executor_options, executor_setup
from rulezoo.cli.help import HelpfulCommand, HelpfulGroup
from rulezoo.cli.output import echo
from rulezoo.cli.request import retry_option
from rulezoo.text import brief

if TYPE_CHECKING:
    from rulezoo.claims import Claim, Profile, Table
    from rulezoo.claims.report import Finding
    from rulezoo.claims.sharing import Shared
    from rulezoo.discovery.registry import Registry
    from rulezoo.evaluations.request import Requested
    from rulezoo.results.records import Record
    from rulezoo.results.store import Store

out_option = click.option(
    "--out",
    metavar="DIR",
    type=UserPath(file_okay=False, path_type=Path),
    default=Path("leaderboard/claims"),
    show_default=True,
    help="Folder of the claims' results; each profile of a claim has a store of its own in it.",
)


@click.group(
    cls=HelpfulGroup,
    examples=(
        ("The claims and what is known of each", "rulezoo claims list"),
        ("A small study of one claim", "rulezoo claims run alignment --profile quick"),
    ),
)
def claims() -> None:
    """Test claims: studies with a verdict rule."""


@claims.command(
    "list",
    cls=HelpfulCommand,
    examples=(("The claims and what is known of each", "rulezoo claims list"),),
)
@out_option
def listing(out: Path) -> None:
    """List the claims, and what is known of each."""
    from rulezoo.claims.installed import findings

    found, broken = findings(registry(), out)
    rows = [
        (
            f.claim.name,
            str(f.profile),
            str(f.study.runs),
            f.study.duration,
            f.state,
        )
        for f in found
    ]
    rows += [(one.name, "", "", "", f"cannot be loaded: {brief(one.reason)}") for one in broken]
    if not rows:
        log("no plugin offers a claim")
        return
    print_table(rows, ("claim", "profile", "runs", "duration", "state"))
    echo()
    print_table(list({f.claim.name: (f.claim.name, f.claim.statement) for f in found}.values()))
    name_problems(found)


@claims.command(
    cls=HelpfulCommand,
    examples=(("One claim", "rulezoo claims show alignment"),),
)
@click.argument("name")
@out_option
def show(name: str, out: Path) -> None:
    """Show a claim: its statement, verdict rule and protocol, and what is stored of it."""
    from rulezoo.claims.installed import of
    from rulezoo.claims.report import protocol

    zoo = registry()
    claim = _claim(zoo, name)
    found = of(claim, zoo, out, aged=True)
    facts = {"Claim": claim.statement, "Source": claim.source, "Verdict rule": claim.criterion.verdict_rule}
    for title, text in (facts | {"Changes": claim.changes, "Remarks": claim.remarks}).items():
        for paragraph in filter(None, text.split("\n\n")):
            echo(f"{title}: {paragraph}\n")
    for finding in found:
        study = finding.study
        echo(f"{finding.profile} profile: {study.scale}. {study.runs} runs; {study.duration}.")
        _print(protocol(study))
        echo(f"State: {finding.details}{'; ' + finding.caveat if finding.caveat else ''}\n")
    name_problems(found)


@claims.command(
    cls=HelpfulCommand,
    examples=(
        ("The reduced study", "rulezoo claims run alignment --profile quick"),
        ("What the full study takes", "rulezoo claims run alignment --profile full --dry-run"),
    ),
)
@click.argument("name")
@click.option("--profile", type=click.Choice(["quick", "standard", "full"]),
              help="quick: reduced, minutes on 2 CPU cores; standard: hours on 2 CPU cores; full: for one GPU.  "
              "[default: the smallest that the claim has]")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
              help="Device to compute on; auto is the CPU for quick and standard, and for full the GPU if there is "
              "one.")  # fmt: skip
@executor_options
@click.option("--data", "data_root", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets.")  # fmt: skip
@click.option("--download", is_flag=True, help="Download missing data sets into --data.")
@retry_option
@click.option("--dry-run", is_flag=True,
              help="Show the number of runs, and their expected computing time from stored runs of any claim; run nothing.")  # fmt: skip
@out_option
def run(
    name: str,
    profile: Profile | None,
    device: str,
    data_root: Path | None,
    download: bool,
    retry: tuple[str, ...],
    dry_run: bool,
    out: Path,
    execution: ExecutorOptions,
) -> None:
    """Run the study of a claim, and report its verdict.

    Stored runs are not repeated, so the same command resumes where it was stopped; runs that another claim has made with
    the same profile are copied. Exits with 1 when a run failed.
    """
    from rulezoo.claims import running, sharing
    from rulezoo.claims.report import Finding
    from rulezoo.cli.compare import listeners
    from rulezoo.cli.evaluate import carry_out
    from rulezoo.comparison.inspection import load
    from rulezoo.comparison.request import Request
    from rulezoo.results.store import Store
    from rulezoo.tuning import comparing

    with going_on_later():
        load(Request())
        zoo = registry()
        claim = _claim(zoo, name)
        profile = profile or claim.profiles[0]
        study = claim.study(profile)
        by = executor_setup(execution, "cpu" if profile != "full" and device == "auto" else device)
        log(f"{claim.name}, {profile} profile: {study.scale}; {study.duration}")
        request = Request(
            device=by.device, threads=by.threads, data=data_root, download=download, retry=retry
        )
        store = running.store_of(out, claim, profile)
        if dry_run:
            from rulezoo.cli.forecast import show_forecast_of_claim

            others = [Store(folder) for folder in sorted(out.glob("*/*/")) if folder != store.root]
            cells = running.planned(claim, profile, zoo, request, running.stored(out, claim, profile).chosen)
            show_forecast_of_claim(cells, request, store, others, execution)
            if found := list(sharing.shared(cells, store, sharing.others(store))):
                echo(f"To be copied and not run: {_copied(found)}.")
            return
        run_cells = comparing.runner(request, by.executor, listeners(zoo))

        def evaluate(store: Store, records: Sequence[Record], asked: Requested) -> None:
            carry_out(store, records, [asked], zoo, data=data_root, device=by.device)

        evidence = running.run(
            claim, profile, request, zoo, store, running.Runners(run_cells, evaluate, _name_copied)
        )
    finding = Finding(claim, profile, evidence, running.outdated(evidence, zoo))
    _print_finding(finding)
    name_problems([finding])
    if name_failed(evidence.records) or finding.problem():
        sys.exit(1)


def _name_copied(found: Sequence[Shared]) -> None:
    log(f"copied, not run: {_copied(found)}")


def _copied(found: Sequence[Shared]) -> str:
    holders = sorted({one.holder.root.parent.name for one in found})
    return f"{count(len(found), 'run')} that {' and '.join(holders)} {'has' if len(holders) == 1 else 'have'} in common with this claim"


@claims.command(
    cls=HelpfulCommand,
    examples=(("The page of all claims", "rulezoo claims report"),),
)
@out_option
def report(out: Path) -> None:
    """Write the page of all claims, with figures."""
    from rulezoo.claims.report import write

    found = known(registry(), out)
    for path in write(found, out):
        echo(path)
    name_problems(found, drawn=True)


def known(zoo: Registry, out: Path) -> list[Finding]:
    """Every profile of every claim with what is stored of it; claims that cannot be loaded are named on stderr."""
    from rulezoo.claims.installed import findings

    found, broken = findings(zoo, out, aged=True)
    for one in broken:
        log(brief(f"left out: {one.reason}"))
    return found


def name_problems(findings: Iterable[Finding], *, drawn: bool = False) -> None:
    """One line on stderr for each claim whose own code failed; ``drawn``: with its figure."""
    for finding in findings:
        if problem := finding.problem(drawn=drawn):
            log(brief(f"{finding.profile} profile: {problem}"))


def _print_finding(finding: Finding) -> None:
    from rulezoo.claims.report import Judgement

    judged = finding.judgement
    for table in judged.tables if isinstance(judged, Judgement) else ():
        echo(f"\n{table.title}")
        _print(table)
    echo(f"\nClaim: {finding.claim.statement}")
    echo(f"Verdict rule: {finding.claim.criterion.verdict_rule}")
    echo(f"Scale: {finding.study.scale}.")
    verdict = finding.verdict
    for part in verdict.parts if verdict else ():
        echo(f"  {part.state}{'' if part.judged else ' (not judged)'}: {part.text}")
    for note in verdict.notes if verdict else ():
        echo(note)
    echo(f"Verdict ({finding.profile} profile): {finding.state}")
    if finding.caveat:
        log(f"{finding.caveat}; the same command with --retry stale runs those of older code again")


def _print(table: Table) -> None:
    print_table(table.rows, table.head)


def _claim(zoo: Registry, name: str) -> Claim:
    from rulezoo.claims.installed import load

    return load(zoo, name)
