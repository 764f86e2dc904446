"""A figure as bytes, whichever library has drawn it; and the drawings that explain, which do not depend on a study."""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from gan_plugin.evaluation.per_image_ap import average_precision
from gan_plugin.visualization.curves import COLOURS, INK, svg_of
from gan_plugin.visualization.page import data_uri, jpeg

# slides, section 7: five objects; -1 is a prediction without a match
EXAMPLE_MATCHES, EXAMPLE_OBJECTS = (4, 3, 2, 1, -1, 0), 5
# inches in a legend beside a text: the line and the gaps
_HANDLE = 0.55
# a logarithmic axis shows values of which the greatest is so many times the least
_DECADE = 10.0
_MEDIA = {"svg": "image/svg+xml", "jpg": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """A figure of the report, which is also a file of its own.

    Attributes:
        name: of the file, without suffix.
        caption: a sentence that a stranger understands.
        content: the file.
        suffix: "svg" or "jpg".
    """

    name: str
    caption: str
    content: bytes
    suffix: str = "svg"

    @property
    def src(self) -> str:
        """As a data URI."""
        return data_uri(self.content, _MEDIA[self.suffix])


def new_axes(width: float = 5.4, height: float = 3.0) -> tuple[Figure, Any]:
    """A figure without pyplot, and its axes in the report's look."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.tick_params(colors=INK, which="both")
    axes.grid(color=INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def plot(name: str, caption: str, figure: Figure, *, legend: bool = False) -> Picture:
    """The figure as SVG.

    Args:
        name, caption: of the picture.
        figure: from `new_axes`.
        legend: whether there is a legend above the axes, in as many columns as its longest text allows.
    """
    if legend:
        texts = figure.axes[0].get_legend_handles_labels()[1]
        widest = _HANDLE + max((TextPath((0, 0), text, size=8).get_extents().width / 72 for text in texts), default=1)
        figure.set_figwidth(max(figure.get_figwidth(), widest))
        columns = int(figure.get_figwidth() // widest)
        look = {"frameon": False, "labelcolor": INK, "fontsize": 8, "handlelength": 1.4}
        figure.legend(loc="outside upper left", ncols=max(1, min(columns, len(texts))), **look)
    return Picture(name, caption, svg_of(figure).encode())


def fit_axis(axes: Any, values: Iterable[float]) -> None:
    """Make the value axis logarithmic where positive `values` span a decade or more."""
    known = [value for value in values if math.isfinite(value)]
    if known and min(known) > 0 and max(known) >= _DECADE * min(known):
        axes.set_yscale("log")


def photo(name: str, caption: str, pixels: np.ndarray) -> Picture:
    """An (H, W, 3) uint8 RGB image as JPEG."""
    return Picture(name, caption, jpeg(pixels), "jpg")


def side_by_side(images: Sequence[np.ndarray], columns: int = 2, width: int = 620) -> np.ndarray:
    """(H, W, 3) images of one shape as a grid, each `width` pixels wide, with white between."""
    scaled = []
    for image in images:
        height = round(image.shape[0] * width / image.shape[1])
        shrinks = image.shape[1] > width
        scaled.append(
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)
        )
    blank = np.full_like(scaled[0], 255)
    scaled += [blank] * (-len(scaled) % columns)
    gap = 6
    rows = []
    for start in range(0, len(scaled), columns):
        parts: list[np.ndarray] = []
        for image in scaled[start : start + columns]:
            parts += [image, np.full((image.shape[0], gap, 3), 255, np.uint8)]
        rows += [np.hstack(parts[:-1]), np.full((gap, width * columns + gap * (columns - 1), 3), 255, np.uint8)]
    return np.vstack(rows[:-1])


def colour(number: int) -> str:
    """The report's colours in turn; they stay apart under the common kinds of colour blindness."""
    return COLOURS[number % len(COLOURS)]


def diagrams() -> list[Picture]:
    """All of them; they do not depend on a study."""
    return [*map(_explained, ("mask_rcnn", "multi_task", "iou")), precision_recall()]


def _explained(name: str) -> Picture:
    """A drawing that is a file, whose title is the caption."""
    svg = (Path(__file__).parent / f"drawings/{name}.svg").read_text(encoding="utf-8")
    return Picture(name, html.unescape(svg[svg.index("<title>") + 7 : svg.index("</title>")]), svg.encode())


def precision_recall() -> Picture:
    """The slides' worked example."""
    matches = np.array(EXAMPLE_MATCHES)
    right = np.cumsum(matches >= 0)
    precisions, recalls = right / np.arange(1, len(matches) + 1), right / EXAMPLE_OBJECTS
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    figure, axes = new_axes()
    axes.plot(recalls, precisions, "o-", color=colour(0), label="measured")
    axes.step([0, *recalls], [envelope[0], *envelope], where="pre", color=colour(1), ls="--", label="VOC envelope")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    caption = (
        "The slides' example: five objects, six predictions by falling score, the fifth without a match. The area "
        f"under the envelope is the image's AP, {average_precision(matches, EXAMPLE_OBJECTS):.4f}."
    )
    return plot("precision_recall", caption, figure, legend=True)
