"""Charts of the arms: bars of one metric, and intervals of their differences to the baseline."""

from collections.abc import Collection, Mapping, Sequence
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


def draw_intervals(
    statistics: Mapping[str, Mapping[str, Any]], metrics: Sequence[str], arms: Sequence[str], controls: Collection[str]
) -> Curve:
    """For each metric and arm the mean difference to the baseline, a thick line for its interval over seeds, a thin one
    for that over seeds and images; adversaries in one colour, controls in another.

    Args:
        statistics: as in results.json.
        metrics: one panel each, side by side.
        arms: from top to bottom; those without a difference are left out.
        controls: those of them that are.
    """
    rows = [arm for arm in arms if any(_difference(statistics, metric, arm) for metric in metrics)]
    figure = Figure(figsize=(1.5 + 2.3 * len(metrics), 1.1 + 0.32 * max(2, len(rows))), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    said = []
    for axes, metric in zip(panels, metrics, strict=True):
        axes.axvline(0, color=INK, lw=0.8)
        for place, arm in enumerate(rows):
            found = _difference(statistics, metric, arm)
            if not found:
                continue
            colour = COLOURS[6] if arm in controls else COLOURS[1]
            for key, width in (("images", 1.2), ("interval", 3.5)):
                if found.get(key):
                    axes.plot(found[key], [place, place], color=colour, lw=width, solid_capstyle="butt")
            axes.plot(found["mean"], place, "o", ms=5, color=colour)
            said.append(f"{metric}, {arm}: {found['mean']:+.2f}")
        axes.set_title(metric, color=INK, fontsize=9)
        axes.tick_params(colors=INK)
        axes.grid(axis="x", color=INK, alpha=0.15)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(INK)
    panels[0].set_yticks(range(len(rows)), rows, color=INK)
    panels[0].invert_yaxis()
    figure.supxlabel("difference to the baseline, percent points", color=INK, fontsize=9)
    return Curve("Differences to the baseline", svg_of(figure), f"Differences to the baseline. {'; '.join(said)}.")


def _difference(statistics: Mapping[str, Mapping[str, Any]], metric: str, arm: str) -> Mapping[str, Any] | None:
    found = statistics.get(metric, {}).get(arm, {}).get("difference")
    return found if found and found["mean"] is not None else None


def _alt(metric: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [
        f"{arm}: mean {row['mean']:.2f}, deviation {'n/a' if row['std'] is None else format(row['std'], '.2f')}, "
        f"{row['n']} {'seed' if row['n'] == 1 else 'seeds'}"
        for arm, row in rows.items()
    ]
    return f"{metric}, bar chart: {'; '.join(parts)}."
