"""An `rulezoo.leaderboard.overview.Overview` written down: for readers, and as CSV and JSON for machines.

The words of an overview are already on one line and free of control codes; each writer adds what its own format needs so
that a plugin's words stay words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rulezoo.leaderboard import documents, machines, terminal

if TYPE_CHECKING:
    from rulezoo.leaderboard.overview import Overview

Format = Literal["table", "md", "latex", "csv", "json"]


def render(
    overview: Overview,
    format: Format = "table",  # noqa: A002  the name of the command line's option
    *,
    width: int = 100,
    color: bool = False,
    long: bool = False,
) -> str:
    """Write the leaderboard; the same overview gives the same bytes.

    Args:
        overview: from `rulezoo.leaderboard.overview.build`.
        format: ``table``, ``md`` and ``latex`` for reading, scores in %; ``csv`` (one line for each setting and task) and
            ``json`` for machines, scores as fractions of 1.
        width: characters in a line of ``table``; columns that do not fit go into a second table below. Curves over
            options follow.
        color: whether ``table`` may use bold and colours; without it there is no control character.
        long: whether ``csv`` has one line for each run.

    Raises:
        ValueError: if the format is not known.
    """
    match format:
        case "table":
            return terminal.table(overview, width, color) + terminal.curves(overview)
        case "md":
            return documents.markdown(overview)
        case "latex":
            return documents.latex(overview)
        case "csv":
            return machines.runs(overview) if long else machines.csv(overview)
        case "json":
            return machines.json(overview)
    raise ValueError(f"format must be table, md, latex, csv or json, got {format!r}")
