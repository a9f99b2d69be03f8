"""The files of the report, made from records: the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.errors import UserError
from rulezoo.leaderboard import formats
from rulezoo.leaderboard.grid import arrange
from rulezoo.report import looks, pages
from rulezoo.report.findings import Findings
from rulezoo.results.files import dangling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulezoo.claims.report import Finding
    from rulezoo.discovery.registry import Registry
    from rulezoo.leaderboard.evaluated import Evaluations
    from rulezoo.leaderboard.overview import Overview
    from rulezoo.leaderboard.verified import Verifications
    from rulezoo.results.records import Record
    from rulezoo.tuning.records import Tuned

Files = Mapping[str, bytes]
"""Path within the folder, with ``/`` → content."""

GENERATOR = b'<meta name="generator" content="rulezoo">'  #: by which a page of ours is known
_STATIC = ("style.css", "report.js", "leaderboard.js", "figures.js")


def report(
    records: Iterable[Record],
    registry: Registry,
    *,
    tasks: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    tunings: Iterable[Tuned] = (),
    claims: Sequence[Finding] = (),
    verifications: Verifications | None = None,
    evaluations: Evaluations | None = None,
) -> Files:
    """Every file.

    Args:
        records: of any rules and tasks.
        registry: the rules and tasks there are; of others only the results are shown.
        tasks: names of the tasks to show, in this order; all, by kind of network and name, if not given.
        rules: names of the rules to show; all if not given.
        tunings: the winners of which get rows of their own.
        claims: with their evidence; there is no page of claims without them.
        verifications: what ``rulezoo verify`` has found of rules.
        evaluations: what was found of the trained networks.
    """
    grid = arrange(records, tasks=tasks, rules=rules, tunings=tunings, task_specs=registry.task_specs())
    found = Findings(grid, registry, claims, verifications, evaluations)
    here = Path(__file__).parent / "templates"
    static = {name: (here / name).read_bytes() for name in _STATIC}
    static["figures.css"] = looks.page_style().encode() + (here / "figures.css").read_bytes()
    return {**static, **_downloads(found.overview), **pages.render(found)}


def _downloads(overview: Overview) -> Files:
    if not overview.lines:
        return {}
    return {
        "leaderboard.csv": formats.render(overview, "csv").encode(),
        "runs.csv": formats.render(overview, "csv", long=True).encode(),
        "leaderboard.json": formats.render(overview, "json").encode(),
    }


def write(files: Files, folder: Path) -> None:
    """Write the files into a folder, over those of an older report.

    Raises:
        UserError: if there is a page in the folder that is not ours, or it cannot be written.
    """
    index = folder / "index.html"
    try:
        if index.exists() and GENERATOR not in index.read_bytes():
            raise UserError(
                f"{index} is not a page of rulezoo: name another folder with --html, or move it away"
            )
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        link = dangling(folder)
        why = (
            f"{link} is a link to {link.readlink()}, which does not exist"
            if link
            else error.strerror or error
        )
        raise UserError(f"The report cannot be written to {folder}: {why}.") from error
