"""A board as a table in a document: GitHub's Markdown, or LaTeX."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rulezoo.leaderboard import words

if TYPE_CHECKING:
    from rulezoo.leaderboard.board import Board

_TEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
}


def markdown(board: Board) -> str:
    """GitHub's Markdown: the table, its footnotes and its legend."""
    if not board.rows:
        return words.EMPTY
    head, *rows = _rows(board, _escaped, "**{}**".format)
    last = len(head) - 1 - _width(board)
    lines = [head, ["---"] + ["--:"] * _width(board) + ["---"] * last, *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return text + "".join(f"\n{line}\n" for line in _below(board, _escaped))


def html_table(board: Board) -> str:
    """The same as a table of HTML, for a notebook."""
    if not board.rows:
        return f"<p>{html.escape(words.EMPTY)}</p>"
    head, *rows = _rows(board, html.escape, "<b>{}</b>".format)
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    below = "<br>".join(_below(board, html.escape))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table><p><small>{below}</small></p>"


def _rows(board: Board, escape: Callable[[str], str], bold: Callable[[str], str]) -> Iterator[list[str]]:
    """The head and the lines of the table, escaped."""
    footnotes, fields = words.footnotes(board), words.fields(board)
    best = [words.best(board, i) for i in range(len(board.columns))]
    heads = [
        head
        for column in board.columns
        for head in (
            escape(f"{column.label}, {column.metric} %"),
            "cost",
            *(escape(f"{column.label}, {one.label}: {one.value}") for one in column.evaluations),
        )
    ]
    yield ["rule", *heads, *(field.replace("_", " ") for field in fields), *words.verified_head(board)]
    for r, row in enumerate(board.rows):
        line = [escape(row.label)]
        for i, cell in enumerate(row.cells):
            score = " ± ".join(filter(None, words.score(cell)))
            score = bold(score) if r in best[i] else score
            line += [f"{score} {words.suffix(cell, board.seeds, footnotes)}".strip(), words.cost(cell)]
            line += _evaluated(board, r, i, bold, " ± ")
        line += [escape(row.plausibility.get(field, "")) for field in fields]
        yield line + [escape(cell) for cell in words.verified_cell(board, row)]


def _below(board: Board, escape: Callable[[str], str] = str) -> list[str]:
    """Footnotes and legend."""
    notes = [f"[{number}] {escape(sentence)}" for sentence, number in words.footnotes(board).items()]
    return notes + [escape(line) for line in words.legend(board, bold=True, short=None)]


def _width(board: Board) -> int:
    """The number of columns with numbers: score, cost and evaluations of each task."""
    return sum(2 + len(column.evaluations) for column in board.columns)


def _evaluated(board: Board, r: int, i: int, bold: Callable[[str], str], spread: str) -> list[str]:
    """The evaluations of a cell, as cells of their own."""
    cell, found = board.rows[r].cells[i], []
    for j in range(len(board.columns[i].evaluations)):
        value = spread.join(filter(None, words.evaluated(cell, j)))
        value = bold(value) if r in words.best_evaluated(board, i, j) else value
        found.append(f"{value} {words.evaluated_suffix(cell, j)}".strip())
    return found


def latex(board: Board) -> str:
    r"""A ``tabular`` for ``booktabs``, with its legend and footnotes as comments."""
    if not board.rows:
        return f"% {words.EMPTY}"
    footnotes = words.footnotes(board)
    best = [words.best(board, i) for i in range(len(board.columns))]
    heads = [
        rf"\multicolumn{{{2 + len(column.evaluations)}}}{{c}}{{{_tex(column.label)}}}"
        for column in board.columns
    ]
    below = [
        cell
        for column in board.columns
        for cell in (
            rf"{_tex(column.metric)} \%",
            "cost",
            *(_tex(f"{one.label}: {one.value}") for one in column.evaluations),
        )
    ]
    last = words.verified_head(board)
    lines = [
        " & ".join(["", *heads, *("" for _ in last)]),
        " & ".join(["rule", *below, *last]) + r" \\ \midrule",
    ]
    lines[0] += r" \\"
    for r, row in enumerate(board.rows):
        line = [_tex(row.label)]
        for i, cell in enumerate(row.cells):
            score = r" $\pm$ ".join(filter(None, words.score(cell))).replace("–", "--")
            score = rf"\textbf{{{score}}}" if r in best[i] else score
            line += [
                f"{score} {_tex(words.suffix(cell, board.seeds, footnotes))}".strip(),
                _tex(words.cost(cell)),
                *(
                    one.replace("–", "--")
                    for one in _evaluated(board, r, i, r"\textbf{{{}}}".format, r" $\pm$ ")
                ),
            ]
        line += [_tex(cell) for cell in words.verified_cell(board, row)]
        lines.append(" & ".join(line) + r" \\")
    comments = [
        f"% {line}" for line in _below(board)
    ]  # on one line each, so that no word of a plugin can leave the comment
    columns = "l" + "r" * _width(board) + "l" * len(last)
    table = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*comments, *table]) + "\n"


def _tex(text: str) -> str:
    """Words as TeX prints them; none of them is a command."""
    return "".join(_TEX.get(c, c) for c in text)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))
