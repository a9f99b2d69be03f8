"""The files of the report, made from records: the same records give the same bytes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rulezoo.errors import UserError
from rulezoo.leaderboard.grid import arrange
from rulezoo.report import looks, pages
from rulezoo.report.findings import Findings
from rulezoo.results.files import dangling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulezoo.claims.report import Finding
    from rulezoo.discovery.registry import Registry
    from rulezoo.leaderboard.evaluated import Evaluations
    from rulezoo.leaderboard.verified import Verifications
    from rulezoo.results.records import Record
    from rulezoo.tuning.records import Tuned

Files = Mapping[str, bytes]
"""Path within the folder, with ``/`` → content."""

GENERATOR = b'<meta name="generator" content="rulezoo">'  #: by which a page of ours is known
_STATIC = ("style.css", "board.js", "figures.js")
_EXPORT = re.compile(r"\bexport\s*\{([^{}]*)\};?")


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
    return {**static, "tables.js": _tables(), **pages.render(found)}


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


def _tables() -> bytes:
    """DataTables as itables ships it, made a classic script: browsers load no module from ``file://``."""
    package = importlib.util.find_spec("itables")  # not imported: it would ask for IPython
    if package is None or not package.submodule_search_locations:
        raise UserError("the report's tables need itables: run `pip install itables`")
    script = Path(package.submodule_search_locations[0], "html", "dt_bundle.js").read_text(encoding="utf-8")
    exports = list(_EXPORT.finditer(script))
    if len(exports) != 1:
        raise UserError("the script of this itables is not as expected: run `pip install 'itables>=2.9,<3'`")
    pairs = [part.split(" as ") for part in exports[0][1].split(",")]
    names = ",".join(f"{pair[-1].strip()}:{pair[0].strip()}" for pair in pairs)
    before, after = script[: exports[0].start()], script[exports[0].end() :]
    return f"{{{before}\nwindow.rulezooTables={{{names}}};{after}}}\n".encode()
