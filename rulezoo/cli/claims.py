"""``rulezoo claims``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rulezoo.cli.arguments import UserPath
from rulezoo.cli.common import going_on_later, name_failed, print_table, registry, say
from rulezoo.cli.executor import Wanted, executor_options, workers
from rulezoo.cli.output import echo
from rulezoo.errors import unknown

if TYPE_CHECKING:
    from rulezoo.claims.design import Claim, Profile
    from rulezoo.claims.report import Finding

out_option = click.option(
    "--out",
    metavar="DIR",
    type=UserPath(file_okay=False, path_type=Path),
    default=Path("leaderboard/claims"),
    show_default=True,
    help="The folder of the claims' results; each profile of a claim has a store of its own there.",
)


@click.group()
def claims() -> None:
    """Put claims to the test: studies with a verdict rule."""


@claims.command("list")
@out_option
def listing(out: Path) -> None:
    """List the claims, and what is known of each."""
    rows = [
        (finding.claim.name, finding.profile, finding.study.runs, finding.study.takes, finding.state)
        for finding in _findings(out)
    ]
    print_table(rows, ("claim", "profile", "runs", "takes", "state"))
    echo()
    print_table([(claim.name, claim.statement) for claim in _catalogue().values()])


@claims.command()
@click.argument("name")
@click.option("--profile", type=click.Choice(["quick", "full"]), default="quick", show_default=True,
              help="quick: reduced, for 2 CPU cores; full: for one GPU.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
              help="Where to compute; auto is the CPU for quick, and for full the GPU when there is one.")  # fmt: skip
@executor_options
@click.option("--data", "data_root", metavar="DIR", envvar="RULEZOO_DATA", show_envvar=True,
              type=UserPath(file_okay=False, path_type=Path), help="Folder of data sets.")  # fmt: skip
@click.option(
    "--download", is_flag=True, help="Download data sets that are not there, into the folder of data sets."
)
@out_option
def run(
    name: str,
    profile: Profile,
    device: str,
    data_root: Path | None,
    download: bool,
    out: Path,
    wanted: Wanted,
) -> None:
    """Run the study of a claim, and say its verdict.

    What is stored is not run again, so the same command goes on where it was stopped. Exits with 1 when a run failed.
    """
    from rulezoo.claims import running
    from rulezoo.claims.report import Finding
    from rulezoo.cli.compare import listeners
    from rulezoo.comparison.inspection import load
    from rulezoo.comparison.request import Request
    from rulezoo.tuning import comparing

    claim = _claim(name)
    by = workers(wanted, "cpu" if profile == "quick" and device == "auto" else device)
    study = claim.studies[profile]
    say(f"{name}, {profile} profile: {study.scale}; {study.takes}")
    request = Request(device=by.device, threads=by.threads, data=data_root, download=download)
    with going_on_later():
        load(Request())
        found, store = registry(), running.store_of(out, claim, profile)
        run_cells = comparing.runner(request, by.executor, listeners(found))
        evidence = running.run(claim, profile, request, found, store, run_cells)
    _tell(Finding(claim, profile, evidence))
    if name_failed(evidence.records):
        sys.exit(1)


@claims.command()
@out_option
def report(out: Path) -> None:
    """Write the page of all claims, with figures."""
    from rulezoo.claims.report import write

    for path in write(_findings(out), out):
        echo(path)


def _tell(finding: Finding) -> None:
    for table in finding.claim.criterion.tables(finding.evidence):
        echo(f"\n{table.title}")
        print_table(table.rows, table.head)
    echo(f"\nClaim: {finding.claim.statement}")
    echo(f"Verdict rule: {finding.claim.criterion.words}")
    echo(f"Scale: {finding.study.scale}; the numbers are ours, not the paper's.")
    verdict = finding.verdict
    for part in verdict.parts if verdict else ():
        echo(f"  {part.state}: {part.words}")
    echo(f"Verdict: {finding.state}")


def _findings(out: Path) -> list[Finding]:
    from rulezoo.claims.design import PROFILES
    from rulezoo.claims.report import Finding
    from rulezoo.claims.running import stored

    return [
        Finding(claim, profile, stored(out, claim, profile))
        for claim in _catalogue().values()
        for profile in PROFILES
    ]


def _catalogue() -> dict[str, Claim]:
    from rulezoo.claims.catalogue import CLAIMS

    return CLAIMS


def _claim(name: str) -> Claim:
    known = _catalogue()
    if name not in known:
        raise unknown("claim", name, known, "rulezoo claims list")
    return known[name]
