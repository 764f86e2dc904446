"""Bars and histograms of a data set's statistics as SVG (thesis 3.1.1, figure 4.6), and the page that shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from coigan.data.images import encode_png
from gan_plugin.visualization.curves import COLOURS, INK, Curve, svg_of
from gan_plugin.visualization.page import drawing, embed, save_page, template


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


def histogram(
    title: str,
    values: Sequence[float],
    unit: str,
    bins: int = 30,
    log: bool = False,
    span: tuple[float, float] | None = None,
) -> Curve | None:
    """How often values occur; None if there are none.

    Args:
        title: of the picture.
        values: all of them.
        unit: of the values.
        bins: number of bars.
        log: bars of equal width on a logarithmic axis; values are above 0.
        span: least and greatest value that can be, which the axis then shows; by default those that occur.
    """
    data = np.asarray(values, float)
    if not len(data):
        return None
    low, high = float(data.min()), float(data.max())
    if span:
        edges = np.linspace(*span, bins + 1)
    elif log:
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
        _plain_ticks(axes.xaxis)
    elif not span and (data == np.round(data)).all():
        axes.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel(unit, color=INK)
    axes.set_ylabel("count", color=INK)
    alt = f"{title}, histogram of {len(data)} values from {low:g} to {high:g}, median {np.median(data):g}."
    return Curve(title, svg_of(figure), alt)


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, ... along a logarithmic axis; 1, 10, ... along a long one."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,), numticks=9))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(ticker.NullFormatter())
    axis.set_tick_params(which="minor", color=INK)


def scatter(title: str, points: Mapping[str, np.ndarray], x_label: str, y_label: str, log: bool = True) -> Curve | None:
    """Points on two axes.

    Args:
        title: of the picture.
        points: name in the legend -> (N, 2); one name is not shown.
        x_label, y_label: of the axes.
        log: logarithmic axes; values are above 0.
    """
    shown = {name: own for name, own in points.items() if len(own)}
    if not shown:
        return None
    figure, axes = _axes()
    for (name, own), colour in zip(shown.items(), COLOURS * 9, strict=False):
        axes.plot(*own.T, "o", ms=3, mfc="none", color=colour, label=name)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_ticks(axes.xaxis)
        _plain_ticks(axes.yaxis)
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    if len(points) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=8)
    counts = ", ".join(f"{name}: {len(own)}" for name, own in shown.items())
    return Curve(title, svg_of(figure), f"{title}, scatter plot; points: {counts}.")


def class_charts(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[Curve | None]:
    """What the thesis shows of a data set in 3.1.1, of the rows of `objects.measure`."""
    counts = np.array([row["counts"] for row in rows], int).reshape(len(rows), len(classes))
    totals = counts.sum(1)
    with_objects = int((totals > 0).sum())
    areas = {name: [a for row in rows for a in row["areas"][label]] for label, name in enumerate(classes)}
    aspects = {name: [a for row in rows for a in row["aspects"][label]] for label, name in enumerate(classes)}
    area_of_image = np.array([sum(sum(own) for own in row["areas"]) for row in rows])
    points = {name: np.array(list(zip(areas[name], aspects[name], strict=True))) for name in classes}
    charts: list[Curve | None] = [
        bars("Images", {"images": [with_objects, len(rows) - with_objects]}, ["with defects", "without"], "images"),
        bars("Objects by class", {"objects": counts.sum(0).tolist()}, classes, "objects"),
        histogram("Objects in an image that has any", totals[totals > 0].tolist(), "objects"),
        histogram(
            "Area of all objects in an image that has any", area_of_image[totals > 0].tolist(), "pixels", log=True
        ),
        scatter("Size and shape of the objects", points, "area in pixels", "width / height"),
    ]
    for label, name in enumerate(classes):
        own = counts[:, label]
        charts.append(histogram(f"Class {name}: objects in an image that has any", own[own > 0].tolist(), "objects"))
        charts.append(histogram(f"Class {name}: area", areas[name], "pixels", log=True))
        charts.append(histogram(f"Class {name}: aspect ratio", aspects[name], "width / height", log=True))
    return charts


_HERE = Path(__file__).parent


@dataclass
class Section:
    """A heading, a text, and pictures with captions.

    Attributes:
        wide: one picture a row, as large as it is; else several, small ones.
    """

    title: str
    text: str
    pictures: list[dict[str, str]] = field(default_factory=list)
    wide: bool = True


def photo(pixels: np.ndarray, caption: str) -> dict[str, str]:
    """(H, W, 3) uint8 RGB as a picture of a section."""
    return embed(encode_png(np.ascontiguousarray(pixels)), "image/png", caption, caption)


def write_page(
    path: Path,
    title: str,
    intro: str,
    charts: Sequence[Curve | None],
    sections: Sequence[Section],
    report: dict[str, Any] | None = None,
) -> Path:
    """Write the page; its folder is made if need be.

    Args:
        path: of the file.
        title: name of the data set.
        intro: a paragraph.
        charts: those that are None are left out.
        sections: those without pictures are left out.
        report: of `objects.brief`, whose classes become a table.

    Returns:
        `path`.

    Raises:
        UserError: it cannot be written.
    """
    page = template("data.html.j2", [_HERE]).render(
        title=title,
        intro=intro,
        report=report,
        charts=[drawing(chart) for chart in charts if chart],
        sections=[section for section in sections if section.pictures],
    )
    return save_page(page, path)
