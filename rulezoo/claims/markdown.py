"""Tables and words in Markdown."""

from __future__ import annotations

import html
from collections.abc import Iterator

from rulezoo.claims.design import Table


def table_lines(table: Table, raw: int = 0) -> Iterator[str]:
    """A Markdown table; the first ``raw`` columns are Markdown already."""
    yield "| " + " | ".join(map(_cell, table.head)) + " |"
    yield "|" + "---|" * len(table.head)
    for row in table.rows:
        yield "| " + " | ".join([*row[:raw], *map(_cell, row[raw:])]) + " |"


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


def plain(words: str) -> str:
    """Words that stay words in Markdown."""
    return html.escape(" ".join(words.split()), quote=False).replace("*", "\\*").replace("[", "\\[")
