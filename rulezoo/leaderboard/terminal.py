"""A board for a terminal: tables as wide as it is, in colours if it has them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from rulezoo.leaderboard import words
from rulezoo.leaderboard.option_curves import option_curves
from rulezoo.options import as_text

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from rulezoo.leaderboard.board import Board
    from rulezoo.leaderboard.option_curves import OptionCurve

NAME_WIDTH = 32  # a longer label of a rule goes on in the next line, a longer head is cut
MOST_CURVES = 12  # curves over options; a product of grids has many
GAP = 2  # blanks between a score and its cost, and after a task


@dataclass(frozen=True, eq=False)
class _Written:
    """One column of a terminal's table: its head and its cells, which may have several lines."""

    head: Text
    cells: list[Text]

    @cached_property
    def width(self) -> int:
        return max(line.cell_len for text in (self.head, *self.cells) for line in text.split())


def table(board: Board, width: int, color: bool) -> str:
    """For a terminal of ``width`` characters."""
    from rich.console import Console
    from rich.text import Text

    if not board.rows:
        return words.EMPTY
    footnotes = words.footnotes(board)
    names = _Written(Text("rule"), [Text(row.label) for row in board.rows])
    groups = [
        [_task(board, i, footnotes), *(_evaluated(board, i, j) for j in range(len(column.evaluations)))]
        for i, column in enumerate(board.columns)
    ]
    tasks = [column for group in groups for column in group]
    room = width - min(NAME_WIDTH, names.width) - GAP
    full, letters = (_plausibility(board, short=short) for short in (False, True))
    one_table = _total([*tasks, *letters]) <= room < _total([*tasks, *full])
    short = one_table or _total(full) > room  # letters only where they help
    packed = _packed([*groups, letters if short else full], room)

    out = io.StringIO()
    widest = width - room + max(map(_total, packed))  # rather a long line than a number cut off
    system: Literal["standard"] | None = "standard" if color else None
    console = Console(
        file=out, width=max(width, widest), force_terminal=color, color_system=system, legacy_windows=False
    )
    for columns in packed:
        console.print(_drawn([names, *columns]), Text(), sep="")
    for sentence, number in footnotes.items():
        console.print(Text(f"[{number}] {sentence}"), width=width)
    for line in words.legend(board, bold=color, short=short):
        console.print(Text(line, style="dim"), width=width)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().split("\n")[:-1])


def curves(board: Board) -> str:
    """A small table for each curve of the score over an option; empty where there is none."""
    found = option_curves(board)
    parts = ["\n".join(["", *_curve(board, one)]) + "\n" for one in found[:MOST_CURVES]]
    if len(found) > MOST_CURVES:
        parts.append(f"\n{len(found) - MOST_CURVES} more curves over options are in the report (--html).\n")
    return "".join(parts)


def _curve(board: Board, curve: OptionCurve) -> list[str]:
    column = board.columns[curve.column]
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
    """As few tables as hold every group of columns, a group never torn."""
    tables: list[list[_Written]] = [[]]
    for group in groups:
        if tables[-1] and _total([*tables[-1], *group]) > room:
            tables.append([])
        tables[-1] += group
    return [columns for columns in tables if columns]


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


def _task(board: Board, i: int, footnotes: dict[str, int]) -> _Written:
    from rich.text import Text

    column, cells, best = board.columns[i], [row.cells[i] for row in board.rows], words.best(board, i)
    scores = _aligned([words.score(cell) for cell in cells])
    suffixes = [words.suffix(cell, board.seeds, footnotes) for cell in cells]
    costs = [words.cost(cell) for cell in cells]
    metric = f"{_cut(column.metric)} %"
    left = max(len(metric), *(len(f"{a} {b}".rstrip()) for a, b in zip(scores, suffixes, strict=True)))
    right = max(map(len, [*costs, "cost"])) if any(costs) else 0
    written = []
    for r, (cell, score, suffix, cost) in enumerate(zip(cells, scores, suffixes, costs, strict=True)):
        style = "bold green" if r in best else "red" if cell and cell.failed else ""
        after = f"{f' {suffix}' if suffix else '':<{left - len(score)}}{' ' * GAP}{cost:>{right}} "
        written.append(Text.assemble((score, style), after))
    last = f"{metric:<{left}}{' ' * GAP}{'cost' if right else '':>{right}}"
    return _Written(Text("\n".join(filter(None, [column.task, _cut(column.detail), last]))), written)


def _evaluated(board: Board, i: int, j: int) -> _Written:
    """One evaluation, which stands to the right of its task."""
    from rich.text import Text

    head, cells = board.columns[i].evaluations[j], [row.cells[i] for row in board.rows]
    best = words.best_evaluated(board, i, j)
    values = _aligned([words.evaluated(cell, j) for cell in cells])
    written = []
    for r, (cell, value) in enumerate(zip(cells, values, strict=True)):
        suffix = words.evaluated_suffix(cell, j)
        after = f"{f' {suffix}' if suffix else ''} "
        written.append(Text.assemble((value, "bold green" if r in best else ""), after))
    return _Written(Text(f"{_cut(head.label)}\n{_cut(head.value)}"), written)


def _cut(text: str) -> str:
    return text if len(text) <= NAME_WIDTH else text[: NAME_WIDTH - 1] + "…"


def _plausibility(board: Board, *, short: bool) -> list[_Written]:
    from rich.text import Text

    return [
        _Written(
            Text(words.head_of(field).letter if short else words.head_of(field).word),
            [Text(words.SHORT.get(mark := words.narrow_mark(row, field), mark)) for row in board.rows],
        )
        for field in words.narrow_fields(board)
    ] + [
        _Written(Text(head), [Text(cell) for row in board.rows for cell in words.verified_cell(board, row)])
        for head in words.verified_head(board)
    ]


def _aligned(scores: Sequence[tuple[str, str]]) -> list[str]:
    """Means with their decimal points below each other, and spreads likewise."""
    left, right = (max(map(len, parts)) for parts in zip(*scores, strict=True))
    return [
        f"{mean:>{left}}" + (f" ± {sd:>{right}}" if sd else " " * (right + 3 if right else 0))
        for mean, sd in scores
    ]
