"""The parts of training and what goes from one to another, with pictures of a sample (thesis figure 4.2)."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gan_plugin.visualization.curves import COLOURS, INK, Curve, svg_of

from . import pictures

_WIDTH, _HEIGHT = 11.0, 5.6
_SIDE = 1.25
Point = tuple[float, float]
_ALT = (
    "Diagram. The base image and the noisy masks go into the generator, which gives the painted image. That goes into "
    "the smooth masked L1 and perceptual losses together with the base image and the masks; cut by the masks "
    "into the discriminator of defects, beside real defects; and whole into the reference discriminator, beside a "
    "training tile. The losses send their gradients back to the generator, the discriminators learn from their own."
)


def draw_pipeline(sample: dict[str, torch.Tensor], painted: torch.Tensor) -> Curve:
    """The diagram.

    Args:
        sample: of the loader.
        painted: (3, S, S) in [0, 1], what stands for the generator's result.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    masks = sample["gen_input"][3:].amax(0)
    _picture(axes, 0.9, 4.2, pictures.coloured(sample["base"]), "base image")
    _picture(axes, 0.9, 2.0, pictures.grey(masks), "noisy masks")
    _box(axes, 3.0, 3.1, "generator", COLOURS[0])
    _picture(axes, 5.2, 3.1, pictures.coloured(painted), "painted image")
    _picture(axes, 7.2, 2.0, pictures.coloured(painted * sample["gen_input_union_mask"]), "painted defects")
    _picture(axes, 9.6, 3.4, _overlaid(sample["disc_input"]), "real defects")
    _box(axes, 9.6, 1.7, "discriminator\nof defects", COLOURS[1])
    _box(axes, 3.0, 5.1, "smooth masked\nL1, perceptual", COLOURS[2])
    if "ref" in sample:
        _picture(axes, 9.6, 5.2, pictures.coloured(sample["ref"]), "training tile")
        _box(axes, 7.2, 5.1, "reference\ndiscriminator", COLOURS[1])
    for start, end in _tensors("ref" in sample):
        _arrow(axes, start, end)
    for start, end, bend in _gradients("ref" in sample):
        _arrow(axes, start, end, bend, gradient=True)
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, _HEIGHT + 0.4)
    return Curve("Tensors and gradients of training", svg_of(figure), _ALT)


def _tensors(reference: bool) -> list[tuple[Point, Point]]:
    """Start and end of what goes forward."""
    found = [
        ((1.6, 4.1), (2.3, 3.3)),
        ((1.6, 2.1), (2.3, 2.9)),
        ((3.7, 3.1), (4.5, 3.1)),
        ((5.9, 2.8), (6.5, 2.2)),
        ((7.9, 1.95), (8.8, 1.75)),
        ((9.6, 2.5), (9.6, 2.15)),
        ((1.6, 4.5), (2.2, 5.0)),
        ((4.9, 3.8), (3.75, 4.8)),
    ]
    return [*found, ((8.9, 5.1), (8.0, 5.1)), ((5.7, 3.8), (6.8, 4.7))] if reference else found


def _gradients(reference: bool) -> list[tuple[Point, Point, float]]:
    """Start, end and bend of what goes back to the generator."""
    found = [((3.0, 4.65), (3.0, 3.5), 0.0), ((9.2, 1.25), (3.0, 2.7), -0.3)]
    return [*found, ((6.35, 5.05), (3.5, 3.45), 0.1)] if reference else found


def _overlaid(canvases: torch.Tensor) -> np.ndarray:
    return pictures.coloured(canvases.unflatten(0, (-1, 3)).amax(0))


def _picture(axes: Axes, x: float, y: float, pixels: np.ndarray, title: str) -> None:
    half = _SIDE / 2
    axes.imshow(pixels, extent=(x - half, x + half, y - half, y + half), aspect="auto", interpolation="nearest")
    axes.text(x, y - half - 0.05, title, ha="center", va="top", fontsize=9, color=INK)


def _box(axes: Axes, x: float, y: float, title: str, colour: str) -> None:
    look = {"boxstyle": "round,pad=0.5", "facecolor": "none", "edgecolor": colour, "linewidth": 2}
    axes.text(x, y, title, ha="center", va="center", fontsize=10, color=INK, bbox=look)


def _arrow(axes: Axes, start: Point, end: Point, bend: float = 0.0, gradient: bool = False) -> None:
    look = {
        "arrowstyle": "->",
        "color": COLOURS[3] if gradient else INK,
        "linestyle": "--" if gradient else "-",
        "linewidth": 1.4,
        "connectionstyle": f"arc3,rad={bend}",
    }
    axes.annotate("", end, start, arrowprops=look)
