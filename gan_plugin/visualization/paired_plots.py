"""All objects at once: baseline against GAN, and how their differences are spread."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .curves import COLOURS, INK, Curve, svg_of
from .paired import MEASURES, PairedObject

GAIN, LOSS = COLOURS[0], COLOURS[1]
_SAME = COLOURS[6]
# more points than this are drawn as pixels, or the file would grow with the data set
_MANY = 500
_BINS = 21


def draw_pairs(objects: Sequence[PairedObject], measure: str, who: str) -> Curve:
    """Left a point for each object, the baseline's value against the GAN's; right the number of objects by difference.

    Args:
        objects: one or more; each counts with the means over its seeds.
        measure: a key of MEASURES.
        who: the GAN's name.
    """
    base = np.array([np.mean([fate[measure] for fate in paired.baseline]) for paired in objects])
    gan = np.array([np.mean([fate[measure] for fate in paired.gan]) for paired in objects])
    figure = Figure(figsize=(7.6, 3.5), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    _scatter(left, base, gan)
    left.set_xlabel(f"baseline: {MEASURES[measure]}", color=INK)
    left.set_ylabel(f"{who}: {MEASURES[measure]}", color=INK)
    _histogram(right, gan - base)
    right.set_xlabel(f"{who} minus baseline", color=INK)
    right.set_ylabel("objects", color=INK)
    for axes in (left, right):
        axes.tick_params(colors=INK)
        axes.grid(color=INK, alpha=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
    title = f"{MEASURES[measure]} of each object, {who} against the baseline"
    alt = (
        f"Scatter plot and histogram of the {MEASURES[measure]} of {len(base)} objects: mean {base.mean():.3f} with "
        f"the baseline, {gan.mean():.3f} with {who}; {(gan > base).sum()} gain, {(gan < base).sum()} lose."
    )
    return Curve(title, svg_of(figure), alt)


def _scatter(axes: Axes, base: np.ndarray, gan: np.ndarray) -> None:
    axes.plot([0, 1], [0, 1], color=INK, lw=1, alpha=0.6)
    # another shape for each, so that colour is not all that tells them apart
    for chosen, colour, marker in ((gan == base, _SAME, "o"), (gan > base, GAIN, "^"), (gan < base, LOSS, "v")):
        look: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5, "alpha": 0.65, "mec": "none", "ls": "none"}
        axes.plot(base[chosen], gan[chosen], rasterized=len(base) > _MANY, clip_on=False, **look)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")


def _histogram(axes: Axes, gains: np.ndarray) -> None:
    reach = max(0.05, float(np.abs(gains).max()))
    counts, edges = np.histogram(gains, _BINS, (-reach, reach))
    centres = (edges[1:] + edges[:-1]) / 2
    middle = _BINS // 2
    colours = [LOSS if i < middle else GAIN if i > middle else _SAME for i in range(_BINS)]
    axes.bar(centres, counts, width=0.9 * (edges[1] - edges[0]), color=colours)
    axes.axvline(0, color=INK, lw=1, alpha=0.6)
    axes.axvline(gains.mean(), color=INK, lw=1.6, ls="--")
    axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
