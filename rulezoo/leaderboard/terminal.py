"""A leaderboard for a terminal: tables as wide as it is, in colours if it has them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from rulezoo.leaderboard import summary, tables, words
from rulezoo.options import as_text

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from rulezoo.leaderboard.option_curves import OptionCurve
    from rulezoo.leaderboard.overview import Overview
    from rulezoo.leaderboard.tables import Part, TableColumn

NAME_WIDTH = 32  # a longer label of a rule goes on in the next line, a longer head is cut
MOST_CURVES = 12  # curves over options; a product of grids has many
GAP = 2  # blanks after a column


@dataclass(frozen=True, eq=False)
class _Written:
    """One column of a terminal's table: its head and its cells, which may have several lines."""

    head: Text
    cells: list[Text]

    @cached_property
    def width(self) -> int:
        return max(line.cell_len for text in (self.head, *self.cells) for line in text.split())


def table(overview: Overview, width: int, color: bool) -> str:
    """For a terminal of ``width`` characters."""
    from rich.console import Console
    from rich.text import Text

    if not overview.lines:
        return words.EMPTY
    first, *rest = tables.columns(overview)
    names = _written(first)
    groups = [list(map(_written, group)) for _, group in groupby(rest, key=lambda column: column.group)]
    room = width - min(NAME_WIDTH, names.width) - 1
    packed = _packed(groups, room)

    out = io.StringIO()
    widest = width - room + max(map(_total, packed))  # rather a long line than a number cut off
    system: Literal["standard"] | None = "standard" if color else None
    console = Console(
        file=out, width=max(width, widest), force_terminal=color, color_system=system, legacy_windows=False
    )
    console.print(Text(summary.sentence(overview)), width=width)
    console.print()
    for columns in packed:
        console.print(_drawn([names, *columns]), Text(), sep="")
    for sentence, number in words.footnotes(overview).items():
        console.print(Text(f"[{number}] {sentence}"), width=width)
    for line in words.legend(overview, bold=color, letters=True):
        console.print(Text(line, style="dim"), width=width)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().split("\n")[:-1])


def curves(overview: Overview) -> str:
    """A small table for each curve of the score over an option; empty where there is none."""
    found = overview.curves
    parts = ["\n".join(["", *_curve(overview, one)]) + "\n" for one in found[:MOST_CURVES]]
    if len(found) > MOST_CURVES:
        parts.append(f"\n{len(found) - MOST_CURVES} more curves over options are in the report (--html).\n")
    return "".join(parts)


def _curve(overview: Overview, curve: OptionCurve) -> list[str]:
    column = overview.columns[curve.column]
    where = column.task if curve.owner == column.task else column.label
    rule = " ".join(filter(None, [curve.rule, curve.fixed]))
    sizes = sorted({point.n for point in curve.points})
    n = f"n = {sizes[0]}" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]}"
    head = f"{rule} on {where}: {curve.metric} % against {curve.owner}.{curve.option}, mean ± 95 % CI, {n}"
    values = [as_text(point.value) for point in curve.points]
    means = [f"{100 * point.mean:.1f}" for point in curve.points]
    widths = ["" if p.half_width is None else f" ± {100 * p.half_width:.1f}" for p in curve.points]
    left, right = max(map(len, values)), max(map(len, means))
    rows = zip(values, means, widths, strict=True)
    return [head, *(f"  {value:>{left}}  {mean:>{right}}{width}" for value, mean, width in rows)]


def _total(columns: Sequence[_Written]) -> int:
    return sum(column.width + 1 for column in columns)  # 1: the box's own divider


def _packed(groups: Sequence[list[_Written]], room: int) -> list[list[_Written]]:
    """As few tables as hold every group of columns; a group is torn only where it is wider than the terminal."""
    packed: list[list[_Written]] = [[]]
    for group in groups:
        pieces = [group] if _total(group) <= room else [[column] for column in group]
        for piece in pieces:
            if packed[-1] and _total([*packed[-1], *piece]) > room:
                packed.append([])
            packed[-1] += piece
    return [columns for columns in packed if columns]


def _drawn(columns: Sequence[_Written]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style="bold")
    height = max(len(column.head.split()) for column in columns)
    for i, column in enumerate(columns):
        head = Text("\n" * (height - len(column.head.split()))).append_text(column.head)
        width = column.width if i else min(NAME_WIDTH, column.width) + 1
        drawn.add_column(head, width=width, no_wrap=i > 0, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        drawn.add_row(*row)
    return drawn


def _written(column: TableColumn) -> _Written:
    """A column with the parts of its cells below each other."""
    from rich.text import Text

    blank = " " * GAP if column.is_numeric else ""
    widths = [max(len(part.text) for part in parts) for parts in zip(*column.cells, strict=True)]
    cells = []
    for parts in column.cells:
        cell = Text(" ").join(
            _aligned(part, width) for part, width in zip(parts, widths, strict=True) if width
        )
        cells.append(cell.append(blank))
    head = column.short or column.head
    group = "" if column.short or column.group == tables.PLAUSIBILITY else column.group
    return _Written(Text("\n".join(_cut(line) for line in (group, head) if line)), cells)


def _aligned(part: Part, width: int) -> Text:
    from rich.text import Text

    text = f"{part.text:>{width}}" if part.is_number else f"{part.text:<{width}}"
    return Text(text, "bold green" if part.is_bold else "")


def _cut(text: str) -> str:
    return text if len(text) <= NAME_WIDTH else text[: NAME_WIDTH - 1] + "…"
