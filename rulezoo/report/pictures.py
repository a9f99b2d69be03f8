"""Every picture of the report, drawn by seaborn and matplotlib as SVG. The same numbers give the same bytes.

A picture is drawn once and used twice: as a file, which opens by itself and follows the reader's light or dark scheme, and
within a page, where it has the colours of the page and tells the name and the numbers of what the pointer is on. Letters stay
letters, in the fonts of the page. Figures are made without pyplot, which keeps them all, and without automatic layouts, which
draw twice. A unit of length is a point; pictures are 430 wide or less, so that their text can be read on a phone, except for
`scatter`, which has a form for each.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from rulezoo.report import labels, looks
from rulezoo.report.looks import COLOURS, Look
from rulezoo.text import brief, clean

if TYPE_CHECKING:
    from rulezoo.report.series import Series

WIDE, NARROW, USUAL = 860, 380, 430
_STAND_IN = {
    f"#fe12{i:02x}": name for i, name in enumerate(COLOURS)
}  # colours that matplotlib writes → variables
_OF = {name: colour for colour, name in _STAND_IN.items()}
_INK, _SOFT, _LINE = _OF["ink"], _OF["soft"], _OF["line"]
_SIZE = 13.0
_SETTINGS = {
    "svg.hashsalt": "rulezoo",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": _SIZE,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": _SIZE,
    "axes.labelsize": _SIZE,
    "legend.fontsize": _SIZE,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": _SIZE,
    "ytick.labelsize": _SIZE,
    "axes.edgecolor": _LINE,
    "grid.color": _LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
#: What matplotlib writes and a page does not need: fonts, as letters have those of the page; turns by nothing; space.
_NEEDLESS = (
    (re.compile(r"<!DOCTYPE[^>]*>|<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r"font-family: [^;\"]*; ?"), ""),
    (re.compile(r"font: ([^;\"']*?px) [^;\"]*"), r"font-size: \1"),
    (re.compile(r' transform="rotate\(-?0 [^)]*\)"'), ""),
    (re.compile(r">\s+<"), "><"),
    (re.compile(r" *\n *(?=[LMCQz\"])"), ""),
)
_LONG = re.compile(r"(?<![\w#.])-?\d+\.\d{3,}")  # numbers with more digits than can be seen
_ROW = 19.0  # height of a line of a legend
_MARKS = 7  # on a line, at most


class Dot(NamedTuple):
    """A point with its name.

    Attributes:
        name: what it is.
        x: position along the horizontal axis.
        y: position along the vertical axis.
        look: how its rule is drawn.
        low: lower end of its interval, along ``y`` in `scatter` and along ``x`` in `intervals`.
        high: upper end.
        tip: its numbers in words.
    """

    name: str
    x: float
    y: float
    look: Look = Look()
    low: float | None = None
    high: float | None = None
    tip: str = ""


class Line(NamedTuple):
    """A series with its look.

    Attributes:
        of: the numbers, and the name in the legend.
        look: how its rule is drawn.
        is_hollow: whether its markers are hollow, which tells the default setting of a rule from the tuned one.
    """

    of: Series
    look: Look
    is_hollow: bool = False


class Drawing(NamedTuple):
    """A picture: what matplotlib wrote, with the names of what can be pointed at."""

    svg: str
    tips: Mapping[str, tuple[str, str]]

    def file(self) -> bytes:
        """As a file."""
        content = _titled(self.svg, self.tips, lambda name, tip: f"<title>{tip}</title>")
        style = f'<style type="text/css">{looks.style("svg")}text{{font-family:system-ui,sans-serif}}'
        return content.replace('<style type="text/css">', style, 1).encode()

    def inline(self, name: str, alt: str, kind: str = "") -> Markup:
        """As a part of a page.

        Args:
            name: with which its identifiers begin, so that no two pictures of a page share one.
            alt: what there is to see, in words.
            kind: further classes.
        """
        content = self.svg[self.svg.index("<svg") :]
        content = re.sub(r"<style type=\"text/css\">.*?</style>", "", content, count=1, flags=re.DOTALL)
        content = _titled(content, self.tips, lambda one, tip: "")
        content = re.sub(r'\bid="|url\(#|href="#', lambda found: f"{found[0]}{name}-", content)
        box = re.search(r'viewBox="[^"]*"', content)
        head = f'<svg class="figure {kind}" role="img" aria-label="{html.escape(clean(alt))}" {box[0] if box else ""}>'
        return Markup(re.sub(r"<svg[^>]*>", lambda _: head, content, count=1))


def _titled(svg: str, tips: Mapping[str, tuple[str, str]], inner: Any) -> str:  # noqa: ANN401
    """With names in place of the identifiers of what can be pointed at."""

    def named(found: re.Match[str]) -> str:
        name, tip = (html.escape(clean(text)) for text in tips[found[1]])
        return f'<g class="tip" data-name="{name}" data-tip="{tip}">{inner(name, tip)}'

    return re.sub(r'<g id="(tip-\d+)">', named, svg)


class _Sheet:
    """A figure that is being drawn."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self.figure)
        self.tips: dict[str, tuple[str, str]] = {}

    def axes(self, left: float, bottom: float, right: float, top: float) -> Any:  # noqa: ANN401
        """Axes between margins, in points."""
        width, height = self.width, self.height
        box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
        ax = self.figure.add_axes(box)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        return ax

    def tip(self, artist: Any, name: str, text: str = "") -> None:  # noqa: ANN401
        """Let a reader point at an artist."""
        key = f"tip-{len(self.tips)}"
        artist.set_gid(key)
        self.tips[key] = (name, text or name)

    def done(self) -> Drawing:
        """The picture."""
        file = BytesIO()
        self.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = file.getvalue().decode()
        for colour, name in _STAND_IN.items():
            text = text.replace(colour, f"var(--{name})")
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) | set(self.tips)
        text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
        text = _LONG.sub(lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), text)
        for pattern, instead in _NEEDLESS:
            text = pattern.sub(instead, text)
        return Drawing(text, self.tips)


@contextmanager
def style() -> Iterator[None]:
    """The style of all pictures: seaborn's, in the colours of the page. Entered once, as it takes its time."""
    import matplotlib as mpl
    import seaborn as sns

    settings: Any = _SETTINGS
    with sns.axes_style("whitegrid"), mpl.rc_context(settings):
        yield


def _colour(look: Look) -> str:
    return _OF[look.colour]


# ---------------------------------------------------------------------------------------------------------------------
# Lines


def lines(shown: Sequence[Line], x: str, y: str, *, log: bool = False) -> Drawing:
    """Lines with bands, and a legend below them.

    Args:
        shown: the lines.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        log: whether the horizontal axis is logarithmic.
    """
    keys = _keys(shown)
    sheet, below = _with_legend(USUAL, 270, keys)
    ax = sheet.axes(58, 46 + below, 14, 10)
    _draw(sheet, ax, shown)
    ax.locator_params(nbins=5)  # ticks are what takes the time
    if log:
        from matplotlib.ticker import LogFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
    ax.set(xlabel=clean(x), ylabel=clean(y))
    return sheet.done()


def panels(shown: Mapping[str, Sequence[Line]], x: str, y: str) -> Drawing:
    """Lines in a panel for each group, two panels in a row, with one legend.

    Args:
        shown: title of a panel → its lines; lines of one name are drawn alike in all panels.
        x: label of the horizontal axes.
        y: what the vertical axes show.
    """
    alike = {line.of.name: line for group in shown.values() for line in group}
    down = -(-len(shown) // 2)
    each = 150.0
    sheet, below = _with_legend(USUAL, down * each + 40, _keys(list(alike.values())))
    for i, (title, group) in enumerate(shown.items()):
        row, column = divmod(i, 2)
        left = 46.0 + column * 212
        bottom = below + 42 + (down - 1 - row) * each
        ax = sheet.axes(left, bottom, USUAL - left - 166, sheet.height - bottom - each + 56)
        _draw(sheet, ax, group)
        ax.locator_params(nbins=4)
        ax.set_title(brief(title, 24), loc="left", pad=5)
        if row == down - 1 or i + 2 >= len(shown):
            ax.set_xlabel(x)
    sheet.figure.text(4 / USUAL, 1 - 14 / sheet.height, clean(y), va="center")
    return sheet.done()


def _draw(sheet: _Sheet, ax: Any, shown: Sequence[Line]) -> None:  # noqa: ANN401
    for k, line in enumerate(shown):
        one, colour = line.of, _colour(line.look)
        every = max(1, -(-len(one.x) // _MARKS))
        first = k * every // len(shown)  # so that markers of lines on top of each other can be seen
        (drawn,) = ax.plot(
            one.x, one.mean, color=colour, linestyle=line.look.dash, marker=line.look.marker, markevery=(first, every),
            markersize=6, linewidth=1.8, markerfacecolor="none" if line.is_hollow else colour, markeredgewidth=1.4,
        )  # fmt: skip
        sheet.tip(drawn, one.name, f"{one.name}: {one.mean[0]:.1f} → {one.mean[-1]:.1f}")
        if one.low != one.high:
            ax.fill_between(one.x, one.low, one.high, color=colour, alpha=0.13, linewidth=0)


def _keys(shown: Sequence[Line]) -> list[tuple[Any, str]]:
    """Entries of a legend."""
    from matplotlib.lines import Line2D

    found = []
    for line in shown:
        colour = _colour(line.look)
        key = Line2D(
            [], [], color=colour, linestyle=line.look.dash, marker=line.look.marker, markersize=6, linewidth=1.8,
            markerfacecolor="none" if line.is_hollow else colour, markeredgewidth=1.4,
        )  # fmt: skip
        found.append((key, line.of.name))
    return found


def _with_legend(width: float, height: float, keys: Sequence[tuple[Any, str]]) -> tuple[_Sheet, float]:
    """A figure with a legend at its lower end, and the height of that."""
    if not keys:
        return _Sheet(width, height), 0.0
    across = 2 if width >= USUAL and all(len(name) <= 24 for _, name in keys) else 1
    below = _ROW * -(-len(keys) // across) + 8
    sheet = _Sheet(width, height + below)
    handles, names = zip(*keys, strict=True)
    sheet.figure.legend(
        handles, [_label(name) for name in names], loc="lower left", ncols=across, frameon=False, handlelength=3.2,
        bbox_to_anchor=(0, 0), borderaxespad=0.2, labelspacing=0.45, columnspacing=1.2,
    )  # fmt: skip
    return sheet, below


# ---------------------------------------------------------------------------------------------------------------------
# Score against cost


def scatter(dots: Sequence[Dot], families: Mapping[str, str], x: str, y: str, *, width: float) -> Drawing:
    """Points with names and whiskers, cost across and score up; cost is logarithmic, as it is a ratio.

    A line leads over the points that no other beats in both. Of names that do not fit, the rest are left out: a reader can point
    at the dot, and the table has all.

    Args:
        dots: the points.
        families: family → key of its colour, for the legend.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        width: `WIDE` or `NARROW`.
    """
    sheet, ax = _scatter_axes(dots, families, width)
    ax.set_xscale("log")
    low, high = min(d.x for d in dots), max(d.x for d in dots)
    ax.set_xlim(low / 1.5, high * (1.6 if width == WIDE else 1.9))
    ends = [v for d in dots for v in (d.y, d.low, d.high) if v is not None]
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    ax.set_ylim(min(ends) - room, max(ends) + room)
    _ticks(ax, *ax.get_xlim())
    ax.axvline(1, color=_SOFT, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    front = pareto(dots)
    ax.step(
        [d.x for d in front],
        [d.y for d in front],
        where="post",
        color=_SOFT,
        linewidth=1.3,
        alpha=0.7,
        zorder=1.5,
    )
    for dot in sorted(dots, key=lambda dot: dot.y):
        _dot(sheet, ax, dot)
    ax.set(xlabel=clean(x), ylabel=clean(y))
    _name(sheet, ax, dots, front)
    return sheet.done()


def pareto(dots: Sequence[Dot]) -> list[Dot]:
    """The dots that no other beats in cost and score, from the cheapest on."""
    front: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.x, -dot.y)):
        if not front or dot.y > front[-1].y:
            front.append(dot)
    return front


def _dot(sheet: _Sheet, ax: Any, dot: Dot) -> None:  # noqa: ANN401
    colour = _colour(dot.look)
    if dot.low is not None and dot.high is not None and dot.high > dot.low:
        (whisker,) = ax.plot(
            [dot.x, dot.x], [dot.low, dot.high], color=colour, linewidth=1.6, alpha=0.6, zorder=2
        )
        sheet.tip(whisker, dot.name, dot.tip)
    (drawn,) = ax.plot(
        [dot.x], [dot.y], dot.look.marker, color=colour, markersize=8.5, markeredgewidth=0, zorder=3
    )
    sheet.tip(drawn, dot.name, dot.tip)


def _scatter_axes(dots: Sequence[Dot], families: Mapping[str, str], width: float) -> tuple[_Sheet, Any]:
    """A figure with the legend of colours and markers: at the side of the wide form, below the narrow one."""
    from matplotlib.lines import Line2D

    used = {dot.look.colour for dot in dots}
    keys: list[tuple[Any, str]] = [
        (
            Line2D([], [], color=_OF[colour], marker="o", linestyle="none", markersize=9, markeredgewidth=0),
            family,
        )
        for family, colour in families.items()
        if colour in used
    ]
    shapes = {dot.look.plausibility for dot in dots}
    keys += [
        (
            Line2D([], [], color=_INK, marker=one.marker, linestyle="none", markersize=8, markeredgewidth=0),
            one.name,
        )
        for one in looks.CLASSES
        if one in shapes
    ]
    keys.append((Line2D([], [], color=_SOFT, linewidth=1.3), "best score up to this cost"))
    handles, names = zip(*keys, strict=True)
    if width == WIDE:
        sheet = _Sheet(
            width, max(430, _ROW * len(keys) + 40, 250 + 8 * len(dots))
        )  # more dots need more room
        place: dict[str, Any] = {
            "loc": "upper left",
            "bbox_to_anchor": (1 - 258 / width, 1 - 8 / sheet.height),
        }
        ax = sheet.axes(60, 50, 270, 12)
    else:
        below = _ROW * len(keys) + 12
        sheet = _Sheet(width, max(400, 250 + 8 * len(dots)) + below)
        place = {"loc": "lower left", "bbox_to_anchor": (0, 0)}
        ax = sheet.axes(52, 46 + below, 8, 10)
    sheet.figure.legend(
        handles, [brief(name, 46) for name in names], frameon=False, handlelength=1.6, borderaxespad=0.2,
        labelspacing=0.45, **place,
    )  # fmt: skip
    return sheet, ax


def _name(sheet: _Sheet, ax: Any, dots: Sequence[Dot], front: Sequence[Dot]) -> None:  # noqa: ANN401
    """Write names at dots, where there is room."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    size = _SIZE - 1
    measure, font = TextToPath(), FontProperties(size=size)
    points = []
    for dot in dots:
        (x, y), width = ax.transData.transform((dot.x, dot.y)), _width(measure, font, dot.name)
        low, high = (
            ax.transData.transform((dot.x, y if e is None else e))[1]
            for e, y in ((dot.low, dot.y), (dot.high, dot.y))
        )
        points.append(labels.Point(x, y, width, size, low, high))
    frame = ax.get_window_extent()
    inside = labels.Box(
        frame.x0 + 2, frame.y0 + 2, sheet.width - 2 if sheet.width < WIDE else frame.x1 + 8, frame.y1 + 6
    )
    corners = [ax.transData.transform((dot.x, dot.y)) for dot in front]
    steps = [
        piece
        for (x0, y0), (x1, y1) in pairwise(corners)
        for piece in (labels.Box(x0, y0 - 1, x1, y0 + 1), labels.Box(x1 - 1, y0, x1 + 1, y1))
    ]
    back = ax.transData.inverted()
    for dot, point, box in zip(dots, points, labels.place(points, inside, steps), strict=True):
        if box is None:
            continue
        nearest = (min(max(point.x, box.left), box.right), min(max(point.y, box.bottom), box.top))
        if (nearest[0] - point.x) ** 2 + (nearest[1] - point.y) ** 2 > 14**2:
            ends = back.transform([point[:2], nearest])
            ax.plot(ends[:, 0], ends[:, 1], color=_SOFT, linewidth=0.7, alpha=0.8, zorder=1.6, clip_on=False)
        x, y = back.transform((box.middle[0], box.bottom + 0.18 * size))
        written = ax.text(x, y, _label(dot.name), size=size, ha="center", va="baseline", zorder=4)
        sheet.tip(written, dot.name, dot.tip)


def _width(measure: Any, font: Any, name: str) -> float:  # noqa: ANN401
    return float(measure.get_text_width_height_descent(_label(name), font, False)[0])


def _ticks(ax: Any, low: float, high: float) -> None:  # noqa: ANN401
    """Plain numbers on a logarithmic axis."""
    from matplotlib.ticker import FixedLocator, NullLocator

    steps = (1, 2, 5) if high / low < 100 else (1,)
    places = [m * 10.0**e for e in range(-3, 5) for m in steps if low <= m * 10.0**e <= high]
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([f"×{v:g}" for v in places])


# ---------------------------------------------------------------------------------------------------------------------
# Others


def intervals(dots: Sequence[Dot], x: str) -> Drawing:
    """Named points below each other, each with its interval."""
    sheet = _Sheet(USUAL, 60 + 22 * len(dots))
    ax = sheet.axes(170, 46, 14, 6)
    for k, dot in enumerate(dots):
        colour = _colour(dot.look)
        (bar,) = ax.plot(
            [dot.low, dot.high], [k, k], color=colour, alpha=0.45, linewidth=4, solid_capstyle="butt"
        )
        (drawn,) = ax.plot([dot.x], [k], dot.look.marker, color=colour, markersize=8, markeredgewidth=0)
        sheet.tip(bar, dot.name, dot.tip)
        sheet.tip(drawn, dot.name, dot.tip)
    ax.set_yticks(range(len(dots)), [brief(dot.name, 24) for dot in dots])
    ax.set_ylim(len(dots) - 0.4, -0.6)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=x)
    ax.grid(visible=False, axis="y")
    return sheet.done()


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], label: str
) -> Drawing:
    """Numbers between 0 and 90 (degrees) as a table of colours; NaN stays empty."""
    import numpy as np
    import seaborn as sns

    sheet = _Sheet(USUAL, 64 + 24 * len(rows))
    ax = sheet.axes(170, 54, 8, 6)
    sns.heatmap(
        np.asarray(values), vmin=0, vmax=90, cmap="viridis_r", annot=True, fmt=".0f", linewidths=1.5,
        linecolor="none", cbar=False, xticklabels=[brief(column, 14) for column in columns],
        yticklabels=[brief(row, 24) for row in rows], ax=ax,
    )  # fmt: skip
    ax.set_xlabel(label)
    ax.tick_params(axis="x", rotation=0 if len(columns) <= 3 else 20)
    ax.tick_params(axis="y", rotation=0)
    return sheet.done()


def _label(text: str) -> str:
    """A name as it is drawn: on one line, without control characters, which XML cannot hold, and cut."""
    return brief(text, 34)
