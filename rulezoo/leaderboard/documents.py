"""A leaderboard as a table in a document: GitHub's Markdown, LaTeX, or HTML for a notebook."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rulezoo.leaderboard import summary, tables, words

if TYPE_CHECKING:
    from rulezoo.leaderboard.overview import Overview
    from rulezoo.leaderboard.tables import Parts, TableColumn

_TEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "−": r"$-$",
    "Δ": r"$\Delta$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "●": r"$\bullet$",
    "○": r"$\circ$",
    "✓": r"\checkmark{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "–": "--",
}


def markdown(overview: Overview) -> str:
    """GitHub's Markdown: the sentence, the table, its footnotes and its legend."""
    if not overview.lines:
        return words.EMPTY
    columns = tables.columns(overview)
    head = [_escaped(_head(column)) for column in columns]
    rows = list(_rows(columns, _escaped, "**{}**".format))
    marks = ["--:" if column.is_numeric else "---" for column in columns]
    text = "".join(f"| {' | '.join(line)} |\n" for line in (head, marks, *rows))
    below = "".join(f"\n{line}\n" for line in _below(overview, _escaped))
    return f"{_escaped(summary.sentence(overview))}\n\n{text}{below}"


def html_table(overview: Overview) -> str:
    """The same as a table of HTML, for a notebook."""
    if not overview.lines:
        return f"<p>{html.escape(words.EMPTY)}</p>"
    columns = tables.columns(overview)
    heads = "".join(f"<th>{html.escape(_head(column))}</th>" for column in columns)
    rows = _rows(columns, html.escape, "<b>{}</b>".format)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    below = "<br>".join(_below(overview, html.escape))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f"<p>{html.escape(summary.sentence(overview))}</p>{table}<p><small>{below}</small></p>"


def latex(overview: Overview) -> str:
    r"""A ``tabular`` for ``booktabs`` and ``amssymb``, with its sentence, legend and footnotes as comments."""
    if not overview.lines:
        return f"% {words.EMPTY}"
    columns = tables.columns(overview)
    groups = [(group, len(list(of))) for group, of in groupby(columns, key=lambda column: column.group)]
    above = [
        rf"\multicolumn{{{n}}}{{c}}{{{_tex(group)}}}" if group else " & " * (n - 1) for group, n in groups
    ]
    head = [_tex(column.head) for column in columns]
    rows = [" & ".join(line) + r" \\" for line in _rows(columns, _tex, r"\textbf{{{}}}".format)]
    lines = [" & ".join(above) + r" \\", " & ".join(head) + r" \\ \midrule", *rows]
    layout = "".join("r" if column.is_numeric else "l" for column in columns)
    # Each on one line, so that no word of a plugin can leave the comment.
    comments = [f"% {line}" for line in (summary.sentence(overview), *_below(overview))]
    table = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*comments, *table]) + "\n"


def _head(column: TableColumn) -> str:
    """The head of a column that stands alone."""
    has_group = column.group and column.group != tables.PLAUSIBILITY
    return f"{column.group}, {column.head}" if has_group else column.head


def _rows(
    columns: Sequence[TableColumn], escape: Callable[[str], str], bold: Callable[[str], str]
) -> Iterator[list[str]]:
    for cells in zip(*(column.cells for column in columns), strict=True):
        yield [_cell(parts, escape, bold) for parts in cells]


def _cell(parts: Parts, escape: Callable[[str], str], bold: Callable[[str], str]) -> str:
    written = []
    for is_bold, some in groupby((part for part in parts if part.text), key=lambda part: part.is_bold):
        text = " ".join(escape(part.text) for part in some)
        written.append(bold(text) if is_bold else text)
    return " ".join(written)


def _below(overview: Overview, escape: Callable[[str], str] = str) -> list[str]:
    """Footnotes and legend."""
    notes = [f"[{number}] {escape(sentence)}" for sentence, number in words.footnotes(overview).items()]
    return notes + [escape(line) for line in words.legend(overview, bold=True, letters=False)]


def _tex(text: str) -> str:
    """Words as TeX prints them; none of them is a command."""
    return "".join(_TEX.get(c, c) for c in text)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(text, quote=False))
