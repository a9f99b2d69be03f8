"""The leaderboard as a value that shows itself in a terminal and in a notebook."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulezoo.leaderboard import documents, formats

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Board
    from rulezoo.leaderboard.formats import Format


@dataclass(frozen=True, repr=False)
class Leaderboard:
    """The table of results.

    Attributes:
        board: its columns, rows and cells.
    """

    board: Board

    def __str__(self) -> str:
        return formats.render(self.board, "table", width=shutil.get_terminal_size((100, 24)).columns).rstrip()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return documents.html_table(self.board)

    def render(self, format: Format = "md") -> str:  # noqa: A002  the name of the command line's option
        """The table as text: ``"table"``, ``"md"``, ``"latex"``, ``"csv"`` or ``"json"``."""
        return formats.render(self.board, format)
