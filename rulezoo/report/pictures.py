"""Every picture of the report, drawn by seaborn and matplotlib as SVG. The same numbers give the same bytes.

Text and lines have the colours of variables that follow the reader's light or dark scheme; letters stay letters, in
the fonts of the page. Figures are made without pyplot, which keeps them all, and without automatic layouts, which
draw twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from rulezoo.text import brief, clean

if TYPE_CHECKING:
    from rulezoo.report.series import Series

_INK, _LINE = "#123450", "#123451"  # stand for the colours of the page
_STYLE = (
    ":root{--ink:#3b4351;--line:#c9d0d8}"
    "@media (prefers-color-scheme:dark){:root{--ink:#c3cad3;--line:#454d58}}"
)
_SETTINGS = {
    "svg.hashsalt": "rulezoo",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _LINE,
    "grid.color": _LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
_FONT = re.compile(r"font: ([^;\"']*?px) [^;\"]*")
_COLOURS, _SHAPES = 6, ("o", "s", "^", "D", "v")
MOST_MARKS = _COLOURS * len(_SHAPES)  #: series that a scatter can tell apart
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")


class Dot(NamedTuple):
    """A point with its name.

    Attributes:
        name: what it is.
        x: its place across.
        y: its place up.
        low: lower end of its interval along ``x``.
        high: upper end.
        series: what it belongs to; itself if empty.
        variant: which of its series it is, e.g. ``tuned-8``; empty for the plain one.
    """

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    series: str = ""
    variant: str = ""


@contextmanager
def style() -> Iterator[None]:
    """The style of all pictures: seaborn's, in the colours of the page. Entered once, as it takes its time."""
    import matplotlib as mpl
    import seaborn as sns

    settings: Any = _SETTINGS
    with sns.axes_style("whitegrid"), mpl.rc_context(settings):
        yield


def lines(
    groups: Sequence[Sequence[Series]], names: Sequence[str], x: str, y: str, *, log: bool = False
) -> bytes:
    """Lines with bands; a group has a colour, and within it each line a dash of its own.

    Args:
        groups: lines of one colour each.
        names: of the groups, for the legend.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        log: whether the horizontal axis is logarithmic.
    """
    figure, ax = _figure(7.2, 3.4, (0.09, 0.15, 0.6, 0.8))
    for colour, group in zip(_palette(len(groups)), groups, strict=True):
        for dash, one in zip(_DASHES * len(group), group, strict=False):
            marker = "o" if len(one.x) < 6 else ""
            ax.plot(one.x, one.mean, color=colour, linestyle=dash, marker=marker, markersize=4, linewidth=1.6)
            if one.low != one.high:
                ax.fill_between(one.x, one.low, one.high, color=colour, alpha=0.16, linewidth=0)
    ax.locator_params(nbins=5)  # ticks are what takes the time
    if log:
        from matplotlib.ticker import LogFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
    ax.set(xlabel=x, ylabel=clean(y))
    _legend(figure, groups, names)
    return _svg(figure, ax)


def scatter(dots: Sequence[Dot], x: str, y: str) -> bytes:
    """Points, cost across and score up; cost is logarithmic, as it is a ratio.

    Every series has a colour and a shape of its own, and its name in the legend beside the picture, from the best down; a
    variant of it is a hollow mark. Of more series than can be told apart, the rest are small and grey.
    """
    series = list(dict.fromkeys(dot.series or dot.name for dot in sorted(dots, key=lambda dot: -dot.y)))
    height = max(4.2, 0.6 + 0.2 * min(len(series), MOST_MARKS) + 0.5)
    figure, ax = _figure(8.2, height, (0.1, 0.55 / height, 0.54, 1 - 0.7 / height))
    looks = dict(zip(series, _looks(), strict=False))
    ax.set_xscale("log")
    ax.axvline(1, color=_LINE, linewidth=1.5)
    for dot in sorted(dots, key=lambda dot: dot.y):
        colour, shape = looks.get(dot.series or dot.name, (_LINE, "o"))
        fill = "none" if dot.variant else colour
        size = 7 if dot.series in looks or dot.name in looks else 3
        ax.plot(
            [dot.x], [dot.y], shape, color=colour, markerfacecolor=fill, markersize=size, markeredgewidth=1.6
        )
    low, high = min(d.x for d in dots), max(d.x for d in dots)
    ax.set_xlim(low / 1.25, high * 1.25)
    _ticks(ax, low, high)
    ax.set(xlabel=x, ylabel=clean(y))
    _marks(figure, looks, [dot.variant for dot in dots], len(series) - len(looks))
    return _svg(figure, ax)


def _looks() -> Iterator[tuple[Any, str]]:
    """A colour and a shape for each of `MOST_MARKS` series."""
    for shape in _SHAPES:
        for colour in _palette(_COLOURS):
            yield colour, shape


def _marks(figure: Any, looks: Mapping[str, tuple[Any, str]], variants: Sequence[str], rest: int) -> None:  # noqa: ANN401
    """The legend of `scatter`."""
    from matplotlib.lines import Line2D

    def key(colour: Any, shape: str, fill: Any) -> Line2D:  # noqa: ANN401
        return Line2D(
            [], [], color=colour, marker=shape, markerfacecolor=fill, linestyle="none", markeredgewidth=1.6
        )

    keys = [(key(colour, shape, colour), _label(name)) for name, (colour, shape) in looks.items()]
    if rest > 0:
        keys.append((key(_LINE, "o", _LINE), f"{rest} more"))
    if variants := list(dict.fromkeys(filter(None, variants))):
        keys += [
            (key(_INK, "o", _INK), "default"),
            *((key(_INK, "o", "none"), _label(one)) for one in variants),
        ]
    handles, labels = zip(*keys, strict=True)
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.66, 0.99), frameon=False, fontsize=9)


def intervals(dots: Sequence[Dot], x: str) -> bytes:
    """Named points below each other, each with its interval."""
    figure, ax = _figure(7.2, 0.9 + 0.27 * len(dots), None)
    left, top = 0.34, 0.05 / (0.9 + 0.27 * len(dots))
    ax.set_position(
        (left, 0.55 / (0.9 + 0.27 * len(dots)), 0.98 - left, 1 - top - 0.6 / (0.9 + 0.27 * len(dots)))
    )
    colour = _palette(1)[0]
    for k, dot in enumerate(dots):
        ax.plot([dot.low, dot.high], [k, k], color=colour, alpha=0.45, linewidth=5, solid_capstyle="round")
        ax.plot([dot.x], [k], "o", color=colour, markersize=7)
    ax.set_yticks(range(len(dots)), [_label(dot.name) for dot in dots])
    ax.set_ylim(len(dots) - 0.4, -0.6)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=x)
    ax.grid(visible=False, axis="y")
    return _svg(figure, ax)


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]], label: str
) -> bytes:
    """Numbers between 0 and 90 (degrees) as a table of colours; NaN stays empty."""
    import numpy as np
    import seaborn as sns

    height = 1.2 + 0.3 * len(rows)
    figure, ax = _figure(7.2, height, (0.42, 0.75 / height, 0.56, 1 - 0.85 / height))
    sns.heatmap(
        np.asarray(values), vmin=0, vmax=90, cmap="viridis_r", annot=True, fmt=".0f", linewidths=1.5,
        linecolor="none", cbar=False, xticklabels=[_label(column) for column in columns], yticklabels=[_label(row) for row in rows], ax=ax,
    )  # fmt: skip
    ax.set_xlabel(label)
    ax.tick_params(axis="x", rotation=0)
    ax.tick_params(axis="y", rotation=0)
    return _svg(figure, ax)


def _figure(width: float, height: float, box: tuple[float, float, float, float] | None) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure, figure.add_axes(box or (0.1, 0.1, 0.8, 0.8))


def _palette(n: int) -> Any:  # noqa: ANN401  seaborn has no types
    import seaborn as sns

    return list(islice(cycle(sns.color_palette("colorblind", _COLOURS)), n))


def _ticks(ax: Any, low: float, high: float) -> None:  # noqa: ANN401
    """Plain numbers on a logarithmic axis."""
    from matplotlib.ticker import FixedLocator, NullLocator

    places = [v for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low / 1.25 <= v <= high * 1.9]
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels([f"×{v:g}" for v in places])


def _legend(figure: Any, groups: Sequence[Sequence[Series]], names: Sequence[str]) -> None:  # noqa: ANN401
    from matplotlib.lines import Line2D

    keys = []
    for colour, group, name in zip(_palette(len(groups)), groups, names, strict=True):
        for dash, one in zip(_DASHES * len(group), group, strict=False):
            label = one.name if one.name == name or not name else f"{name}: {one.name}" if one.name else name
            keys.append((Line2D([], [], color=colour, linestyle=dash, linewidth=1.6), _label(label)))
    shown = keys[:16]
    if len(shown) > 1:
        handles, labels = zip(*shown, strict=True)
        figure.legend(
            handles, labels, loc="upper left", bbox_to_anchor=(0.7, 0.97), frameon=False, fontsize=9
        )


def _label(text: str) -> str:
    """A name as it is drawn: on one line, without control characters, which XML cannot hold, and cut."""
    return brief(text, 34)


def _svg(figure: Any, ax: Any) -> bytes:  # noqa: ANN401
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue().decode()
    text = text.replace(_INK, "var(--ink)").replace(_LINE, "var(--line)")
    text = text.replace('<style type="text/css">', f'<style type="text/css">{_STYLE}', 1)
    return _FONT.sub(r"font: \1 system-ui, sans-serif", text).encode()
