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


def draw(chart: Chart) -> bytes:
    """The chart as an SVG file."""
    import matplotlib as mpl
    import pandas as pd
    import seaborn as sns

    data = pd.DataFrame(
        [(p.panel, p.series, p.x, p.y) for p in chart.points], columns=["panel", "series", "x", "y"]
    )
    settings: Any = {"svg.hashsalt": "rulezoo", "svg.fonttype": "path", "font.family": "DejaVu Sans"}
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
    axes = figure.subplots(down, across, squeeze=False).flatten()
    series = list(dict.fromkeys(data["series"]))
    for panel, ax in zip(chart.panels, axes, strict=False):
        _panel(chart, panel, data[data["panel"] == panel], series, ax)
    for ax in axes[len(chart.panels) :]:
        ax.set_visible(False)
    _legend(figure, axes, [*series] if chart.x else [])
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _panel(chart: Chart, panel: str, data: pd.DataFrame, series: Sequence[str], ax: Any) -> None:  # noqa: ANN401
    import seaborn as sns

    colours = sns.color_palette("colorblind", len(series))
    if chart.x:
        sns.lineplot(
            data, x="x", y="y", hue="series", style="series", hue_order=series, style_order=series,
            palette=colours, markers=True, dashes=False, errorbar=_ends, err_style="bars", ax=ax,
        )  # fmt: skip
        ax.set(xlabel=chart.x, ylabel=chart.y[panel])
    else:
        sns.pointplot(
            data, x="y", y="series", hue="series", order=series, hue_order=series, palette=colours, errorbar=_ends,
            linestyle="none", ax=ax,
        )  # fmt: skip
        ax.set(xlabel=chart.y[panel], ylabel="")
    ax.set_title(textwrap.fill(panel, 44))
    _scales(chart, data, ax)
    for mark in chart.marks:
        if mark.panel == panel and math.isfinite(mark.value):
            _mark(mark.axis, mark.value, mark.text, ax)


def _scales(chart: Chart, data: pd.DataFrame, ax: Any) -> None:  # noqa: ANN401
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    if chart.log:
        ax.set_xscale("log")
        ax.set_xticks(sorted(set(data["x"])))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(axis="x", rotation=45)
    if chart.log == "xy":
        ax.set_yscale("log")


def _mark(axis: str, value: float, text: str, ax: Any) -> None:  # noqa: ANN401
    style = {"color": "0.35", "linestyle": ":", "linewidth": 1.2}
    words = {"color": "0.35", "fontsize": "small"}
    if axis == "y":
        ax.axhline(value, **style)
        ax.annotate(text, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", **words)
    else:
        ax.axvline(value, **style)
        ax.annotate(text, (value, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="right", **words)


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
