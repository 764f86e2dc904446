"""A figure as bytes, whichever library has drawn it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gan_plugin.visualization.curves import COLOURS, INK, svg_of
from gan_plugin.visualization.embed import data_uri, jpeg

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


def plot(name: str, caption: str, figure: Figure, legend: int = 0) -> Picture:
    """The figure as SVG.

    Args:
        name, caption: of the picture.
        figure: from `new_axes`.
        legend: columns of a legend above the axes; 0 for none.
    """
    if legend:
        figure.legend(
            loc="outside upper left", ncols=legend, frameon=False, labelcolor=INK, fontsize=8, handlelength=1.4
        )
    return Picture(name, caption, svg_of(figure).encode())


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
