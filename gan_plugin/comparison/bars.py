"""Bars of one metric over the arms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gan_plugin.visualization.curves import COLOURS, INK, Curve, svg_of


def draw_bars(metric: str, rows: Mapping[str, Mapping[str, Any]]) -> Curve:
    """A bar at each arm's mean, with its sample standard deviation as an error bar and every seed as a dot.

    Args:
        metric: the title.
        rows: arm -> "values" (seed -> value), "mean", "std", as in results.json; arms without a value are left out.
    """
    shown = {arm: row for arm, row in rows.items() if row["values"]}
    figure = Figure(figsize=(1.6 + 0.9 * max(3, len(shown)), 3.0), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for place, (row, colour) in enumerate(zip(shown.values(), COLOURS * 9, strict=False)):
        axes.bar(place, row["mean"], width=0.6, color=colour, alpha=0.75)
        if row["std"] is not None:
            axes.errorbar(place, row["mean"], row["std"], color=INK, capsize=5, lw=1.4)
        values = list(row["values"].values())
        # side by side, or equal seeds would hide one another
        beside = place + np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [place]
        axes.plot(beside, values, "o", ms=4, mfc="none", mec=INK)
    axes.set_xticks(range(len(shown)), list(shown), color=INK)
    axes.set_ylabel(metric, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    return Curve(metric, svg_of(figure), _alt(metric, shown))


def _alt(metric: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [
        f"{arm}: mean {row['mean']:.2f}, deviation {'n/a' if row['std'] is None else format(row['std'], '.2f')}, "
        f"{row['n']} {'seed' if row['n'] == 1 else 'seeds'}"
        for arm, row in rows.items()
    ]
    return f"{metric}, bar chart: {'; '.join(parts)}."
