"""Bars and histograms of a data set's statistics, as SVG (thesis 3.1.1 and figure 4.6)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gan_plugin.visualization.curves import COLOURS, INK, Curve, svg_of


def _axes(width: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 2.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    return figure, axes


def bars(title: str, groups: Mapping[str, Sequence[float]], names: Sequence[str], unit: str) -> Curve:
    """Bars side by side.

    Args:
        title: of the picture.
        groups: name in the legend -> a value for each of `names`.
        names: along the axis.
        unit: of the values.
    """
    figure, axes = _axes()
    width = 0.8 / len(groups)
    for place, ((group, values), colour) in enumerate(zip(groups.items(), COLOURS * 9, strict=False)):
        where = np.arange(len(names)) + (place - (len(groups) - 1) / 2) * width
        drawn = axes.bar(where, values, width=0.94 * width, color=colour, label=group)
        axes.bar_label(drawn, fmt="%g", fontsize=7, color=INK, padding=1)
    axes.set_xticks(range(len(names)), list(names), color=INK)
    axes.set_ylabel(unit, color=INK)
    axes.margins(y=0.12)
    if len(groups) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    words = "; ".join(f"{group}: {', '.join(f'{v:g}' for v in values)}" for group, values in groups.items())
    return Curve(title, svg_of(figure), f"{title}, bar chart over {', '.join(names)}. {words}.")


def histogram(title: str, values: Sequence[float], unit: str, bins: int = 30, log: bool = False) -> Curve | None:
    """How often values occur; None if there are none.

    Args:
        title: of the picture.
        values: all of them.
        unit: of the values.
        bins: number of bars.
        log: bars of equal width on a logarithmic axis; values are above 0.
    """
    data = np.asarray(values, float)
    if not len(data):
        return None
    low, high = float(data.min()), float(data.max())
    if log:
        edges = np.geomspace(low, max(high, low * 1.01), bins + 1)
    elif (data == np.round(data)).all() and high - low < bins:
        edges = np.arange(low - 0.5, high + 1)
    else:
        edges = np.linspace(low, max(high, low + 1e-9), bins + 1)
    figure, axes = _axes()
    # the geometric edges may miss the extremes by a rounding error
    axes.hist(np.clip(data, edges[0], edges[-1]), bins=edges.tolist(), color=COLOURS[0])
    if log:
        axes.set_xscale("log")
        axes.tick_params(which="minor", colors=INK)
    axes.set_xlabel(unit, color=INK)
    axes.set_ylabel("count", color=INK)
    alt = f"{title}, histogram of {len(data)} values from {low:g} to {high:g}, median {np.median(data):g}."
    return Curve(title, svg_of(figure), alt)


def scatter(title: str, points: Mapping[str, np.ndarray], x_label: str, y_label: str) -> Curve | None:
    """Points on logarithmic axes.

    Args:
        title: of the picture.
        points: name in the legend -> (N, 2), values above 0.
        x_label, y_label: of the axes.
    """
    shown = {name: own for name, own in points.items() if len(own)}
    if not shown:
        return None
    figure, axes = _axes()
    for (name, own), colour in zip(shown.items(), COLOURS * 9, strict=False):
        axes.plot(*own.T, "o", ms=3, mfc="none", color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.tick_params(which="both", colors=INK)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    counts = ", ".join(f"{name}: {len(own)}" for name, own in shown.items())
    return Curve(title, svg_of(figure), f"{title}, scatter plot; objects by class: {counts}.")
