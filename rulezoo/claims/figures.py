"""Draws the charts of claims. Every call of seaborn and matplotlib is here.

The same chart gives the same bytes: there is no date in the file, names within it come from a fixed salt, and the
intervals are those of the tables (Student's t), not a bootstrap's.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from rulezoo.claims.verdicts import t_interval

if TYPE_CHECKING:
    import pandas as pd

    from rulezoo.claims.chart import Chart

_ACROSS = 3  # panels in a row
_INCHES = (3.6, 2.9)  # of a panel
_MOST_TICKS = 12  # on an axis whose ticks are the measured values
_DASHES = (":", "--", "-.", (0, (1, 4)))  # of marks, by their text


def draw(chart: Chart) -> bytes:
    """The chart as an SVG file."""
    import matplotlib as mpl
    import pandas as pd
    import seaborn as sns

    data = pd.DataFrame(
        [(p.panel, p.series, p.x, p.y, p.row or p.series) for p in chart.points],
        columns=["panel", "series", "x", "y", "row"],
    )
    settings: Any = {
        "svg.hashsalt": "rulezoo",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "text.parse_math": False,
    }
    with sns.axes_style("whitegrid"), sns.plotting_context("paper"), mpl.rc_context(settings):
        return _drawn(chart, data)


def _drawn(chart: Chart, data: pd.DataFrame) -> bytes:
    # Not pyplot: it keeps every figure, and asks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(_ACROSS, len(chart.panels))
    down = -(-len(chart.panels) // across)
    width = _INCHES[0] * across * (1.6 if not chart.x else 1)
    figure = Figure(figsize=(width, _INCHES[1] * down + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    series = list(dict.fromkeys(data["series"]))
    for panel, ax in zip(chart.panels, axes, strict=False):
        _panel(chart, panel, data[data["panel"] == panel], series, ax)
    for ax in axes[len(chart.panels) :]:
        ax.set_visible(False)
    _share_limits(axes[: len(chart.panels)])
    drawn = [*series, *(mark.text for mark in chart.marks), *(curve.text for curve in chart.curves)]
    named = chart.x or any(point.row for point in chart.points)
    _legend(figure, axes, drawn if named else [])
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _panel(chart: Chart, panel: str, data: pd.DataFrame, series: Sequence[str], ax: Any) -> None:  # noqa: ANN401
    import seaborn as sns

    colours = sns.color_palette("colorblind", len(series))
    if chart.scatter:
        sns.scatterplot(
            data, x="x", y="y", hue="series", style="series", hue_order=series, style_order=series, palette=colours,
            ax=ax,
        )  # fmt: skip
        ax.set(xlabel=chart.x_of.get(panel, chart.x), ylabel=textwrap.fill(chart.y[panel], 26))
    elif chart.x:
        sns.lineplot(
            data, x="x", y="y", hue="series", style="series", hue_order=series, style_order=series,
            palette=colours, markers=True, dashes=False, errorbar=_ends, err_style="bars", ax=ax,
        )  # fmt: skip
        ax.set(xlabel=chart.x_of.get(panel, chart.x), ylabel=textwrap.fill(chart.y[panel], 26))
    else:
        sns.pointplot(
            data, x="y", y="row", hue="series", order=list(dict.fromkeys(data["row"])), hue_order=series, palette=colours,
            errorbar=_ends, linestyle="none", dodge=0.5 if set(data["row"]) != set(data["series"]) else False, ax=ax,
        )  # fmt: skip
        ax.set(xlabel=chart.y[panel], ylabel="")
    ax.set_title(textwrap.fill(panel, 44))
    _scales(chart, data, ax)
    for curve in chart.curves:
        if curve.panel == panel:
            ax.plot(*zip(*curve.points, strict=True), color="0.35", linewidth=1.2, zorder=1, label=curve.text)
    names = list(dict.fromkeys(mark.text for mark in chart.marks))
    for mark in chart.marks:
        if mark.panel == panel and math.isfinite(mark.value):
            line = ax.axhline if mark.axis == "y" else ax.axvline
            dashes = _DASHES[names.index(mark.text) % len(_DASHES)]
            line(mark.value, color="0.35", linestyle=dashes, linewidth=1.2, label=mark.text)


def _scales(chart: Chart, data: pd.DataFrame, ax: Any) -> None:  # noqa: ANN401
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, ScalarFormatter, StrMethodFormatter

    if chart.log:
        ax.set_xscale("log")
        few = len(set(data["x"])) <= _MOST_TICKS
        if few:
            ax.set_xticks(sorted(set(data["x"])))
        ax.xaxis.set_major_formatter(ScalarFormatter() if few else StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis="x", rotation=45)
    if chart.log == "xy":
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_locator(NullLocator())


def _share_limits(axes: Sequence[Any]) -> None:
    """The same scale for the panels whose vertical axis has the same label."""
    for label in {ax.get_ylabel() for ax in axes if ax.get_ylabel()}:
        same = [ax for ax in axes if ax.get_ylabel() == label]
        low, high = zip(*(ax.get_ylim() for ax in same), strict=True)
        for ax in same:
            ax.set_ylim(min(low), max(high))


def _legend(figure: Any, axes: Any, series: Sequence[str]) -> None:  # noqa: ANN401
    """One legend for all panels, below them."""
    found: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= {label: handle for label, handle in zip(labels, handles, strict=True) if label in series}
        if ax.get_legend():
            ax.get_legend().remove()
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=min(5, len(found)))


def _ends(values: Any) -> tuple[float, float]:  # noqa: ANN401  what seaborn hands on
    found = t_interval(float(value) for value in values)
    ends = found.low, found.high
    return ends if all(map(math.isfinite, ends)) else (math.nan, math.nan)
