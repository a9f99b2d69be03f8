"""A `rulezoo.board.Board` written down: for a terminal, in Markdown, in LaTeX, as CSV and as JSON.

The words of a board are already on one line and free of control codes; each writer here adds what its own
format needs so that a plugin's words stay words.
"""

from __future__ import annotations

import csv as csv_
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from rulezoo import board_words as words

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from rulezoo.board import Board, Cell

EMPTY = "No runs are stored yet. Run `rulezoo compare` to make some.\n"
NAME_WIDTH = 32  # a longer label of a rule goes on in the next line, a longer head is cut
GAP = 2  # blanks between a score and its cost, and after a task
CSV = (
    *("rule", "rule_version", "label", "options", "ruleset", "setting"),
    *("task", "detail", "conditions", "metric", "chance"),
    *("n", "failed", "skipped", "mean", "sd", "cost", "mixed_hardware", "notes"),
)
_TEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
}
MARKS = {"yes": "●", "no": "·"}


class _Written(NamedTuple):
    """One column of a terminal's table: its head and its cells, which may have several lines."""

    head: Text
    cells: list[Text]

    @property
    def width(self) -> int:
        return max(line.cell_len for text in (self.head, *self.cells) for line in text.split())


def table(board: Board, width: int, color: bool) -> str:
    """For a terminal of ``width`` characters."""
    from rich.console import Console
    from rich.text import Text

    if not board.rows:
        return EMPTY
    footnotes = words.footnotes(board)
    names = _Written(Text("rule"), [Text(row.label) for row in board.rows])
    tasks = [_task(board, i, footnotes) for i in range(len(board.columns))]
    room = width - min(NAME_WIDTH, names.width) - GAP
    full, letters = (_plausibility(board, short=short) for short in (False, True))
    one_table = _total([*tasks, *letters]) <= room < _total([*tasks, *full])
    short = one_table or _total(full) > room  # letters only where they help
    packed = _packed([*([task] for task in tasks), letters if short else full], room)

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
    scores = _aligned([_score(cell) for cell in cells])
    suffixes = [_suffix(cell, board.seeds, footnotes) for cell in cells]
    costs = [_cost(cell) for cell in cells]
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


def _cut(text: str) -> str:
    return text if len(text) <= NAME_WIDTH else text[: NAME_WIDTH - 1] + "…"


def _plausibility(board: Board, *, short: bool) -> list[_Written]:
    from rich.text import Text

    return [
        _Written(
            Text(words.head_of(field).letter if short else words.head_of(field).word),
            [Text(MARKS.get(mark := row.plausibility.get(field, ""), mark)) for row in board.rows],
        )
        for field in words.fields(board)
    ]


def _aligned(scores: Sequence[tuple[str, str]]) -> list[str]:
    """Means with their decimal points below each other, and spreads likewise."""
    left, right = (max(map(len, parts)) for parts in zip(*scores, strict=True))
    return [
        f"{mean:>{left}}" + (f" ± {sd:>{right}}" if sd else " " * (right + 3 if right else 0))
        for mean, sd in scores
    ]


def markdown(board: Board) -> str:
    """GitHub's Markdown: the table, its footnotes and its legend."""
    if not board.rows:
        return EMPTY
    footnotes, fields = words.footnotes(board), words.fields(board)
    best = [words.best(board, i) for i in range(len(board.columns))]
    head = ["rule"]
    for column in board.columns:
        head += [_escaped(f"{column.label}, {column.metric} %"), "cost"]
    head += [field.replace("_", " ") for field in fields]
    lines = [head, ["---"] + ["--:"] * (2 * len(board.columns)) + ["---"] * len(fields)]
    for r, row in enumerate(board.rows):
        line = [_escaped(row.label)]
        for i, cell in enumerate(row.cells):
            score = " ± ".join(filter(None, _score(cell)))
            score = f"**{score}**" if r in best[i] else score
            line += [f"{score} {_suffix(cell, board.seeds, footnotes)}".strip(), _cost(cell)]
        lines.append(line + [_escaped(row.plausibility.get(field, "")) for field in fields])
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = [f"[{number}] {_escaped(sentence)}" for sentence, number in footnotes.items()]
    legend = [_escaped(line) for line in words.legend(board, bold=True, short=None)]
    return text + "".join(f"\n{line}\n" for line in [*notes, *legend])


def latex(board: Board) -> str:
    r"""A ``tabular`` for ``booktabs``, with its legend and footnotes as comments."""
    if not board.rows:
        return f"% {EMPTY}"
    footnotes = words.footnotes(board)
    best = [words.best(board, i) for i in range(len(board.columns))]
    heads = [rf"\multicolumn{{2}}{{c}}{{{_tex(column.label)}}}" for column in board.columns]
    below = [cell for column in board.columns for cell in (rf"{_tex(column.metric)} \%", "cost")]
    lines = [" & ".join(["", *heads]), " & ".join(["rule", *below]) + r" \\ \midrule"]
    lines[0] += r" \\"
    for r, row in enumerate(board.rows):
        line = [_tex(row.label)]
        for i, cell in enumerate(row.cells):
            score = r" $\pm$ ".join(filter(None, _score(cell))).replace("–", "--")
            score = rf"\textbf{{{score}}}" if r in best[i] else score
            line += [f"{score} {_tex(_suffix(cell, board.seeds, footnotes))}".strip(), _tex(_cost(cell))]
        lines.append(" & ".join(line) + r" \\")
    said = [f"[{number}] {sentence}" for sentence, number in footnotes.items()]
    said += words.legend(board, bold=True, short=None)
    comments = [
        f"% {line}" for line in said
    ]  # on one line each, so that no word of a plugin can leave the comment
    columns = "l" + "rr" * len(board.columns)
    table = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*comments, *table]) + "\n"


def csv(board: Board) -> str:
    """One line for each cell; scores are fractions of 1."""
    fields = words.fields(board)
    out = io.StringIO()
    writer = csv_.writer(out, lineterminator="\n")
    writer.writerow([*CSV, *fields])
    for row in board.rows:
        for column, cell in zip(board.columns, row.cells, strict=True):
            if cell is None:
                continue
            variant = (row.rule, row.version, row.label, _json(row.options), row.ruleset, cell.setting)
            asked = (column.task, column.detail, _json(column.conditions), column.metric, column.chance)
            came = (cell.n, cell.failed, cell.skipped, cell.mean, cell.sd, cell.cost, cell.mixed)
            marks = (row.plausibility.get(field, "") for field in fields)
            writer.writerow(map(_no_formula, (*variant, *asked, *came, "; ".join(cell.notes), *marks)))
    return out.getvalue()


def json(board: Board) -> str:
    """Everything; scores are fractions of 1."""
    return msgspec.json.format(msgspec.json.encode(board), indent=2).decode() + "\n"


def _json(values: object) -> str:
    return msgspec.json.encode(values).decode()


def _no_formula(value: object) -> object:
    """Spreadsheets run text that begins like a formula; an apostrophe keeps it text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _tex(text: str) -> str:
    """Words as TeX prints them; none of them is a command."""
    return "".join(_TEX.get(c, c) for c in text)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))


def _score(cell: Cell | None) -> tuple[str, str]:
    """Mean and spread in %; ``–`` where a rule was run or skipped without a score."""
    if cell is None:
        return "", ""
    if cell.mean is None:
        return "–", ""
    return f"{100 * cell.mean:.1f}", "" if cell.sd is None else f"{100 * cell.sd:.1f}"


def _cost(cell: Cell | None) -> str:
    if cell is None or (cell.cost is None and not cell.mixed):
        return ""
    return "mixed" if cell.mixed else f"×{cell.cost:.2f}"


def _suffix(cell: Cell | None, usual: int, footnotes: dict[str, int]) -> str:
    if cell is None:
        return ""
    parts = [f"(n={cell.n})"] if cell.mean is not None and cell.n != usual else []
    parts += [f"[{','.join(str(footnotes[note]) for note in cell.notes)}]"] if cell.notes else []
    return " ".join(parts)
