"""The leaderboard as a value that shows itself in a terminal and in a notebook."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.leaderboard import documents, formats

if TYPE_CHECKING:
    from rulezoo.leaderboard.formats import Format
    from rulezoo.leaderboard.overview import Overview


@dataclass(frozen=True, repr=False)
class Leaderboard:
    """The table of results.

    Attributes:
        overview: its columns, lines and rankings; see `rulezoo.leaderboard.overview`.
    """

    overview: Overview

    def __str__(self) -> str:
        return formats.render(
            self.overview, "table", width=shutil.get_terminal_size((100, 24)).columns
        ).rstrip()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return documents.html_table(self.overview)

    def render(self, format: Format = "md", *, long: bool = False) -> str:  # noqa: A002  the name of the command line's option
        """The table as text: ``"table"``, ``"md"``, ``"latex"``, ``"csv"`` (``long``: one line for each run) or ``"json"``."""
        return formats.render(self.overview, format, long=long)
