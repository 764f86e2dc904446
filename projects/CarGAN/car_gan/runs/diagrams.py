"""How the parts work that an arm uses: drawn boxes and arrows, and the step of latent optimisation by its formula."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from car_gan.game import latent_step
from gan_plugin.visualization.curves import COLOURS, INK, Curve, draw_lines, svg_of

_BLUE, _ORANGE, _GREEN = COLOURS[:3]
# (x, y, text, colour) in inches from the lower left corner
Box = tuple[float, float, str, str]
# from box, to box, text at the arrow
Arrow = tuple[int, int, str]


def mask_rcnn() -> Curve:
    """What filters the crops (source document, figure 4)."""
    boxes = [
        (0.6, 1.5, "car on the\nkey colour", INK),
        (2.2, 1.5, "ResNet and\nfeature pyramid", _BLUE),
        (3.9, 2.4, "region\nproposals", _ORANGE),
        (5.2, 1.5, "RoIAlign", _ORANGE),
        (6.7, 2.4, "box head:\nclass, score, box", _GREEN),
        (6.7, 0.6, "mask head:\n28 x 28 mask", _GREEN),
    ]
    arrows = [(0, 1, ""), (1, 2, ""), (1, 3, "features"), (2, 3, "boxes"), (3, 4, ""), (3, 5, "")]
    return _drawn(
        "Mask R-CNN, which a crop is kept by: a car with a score of 0.9 or more, cut to the predicted box",
        "A picture of a car goes through backbone and feature pyramid; regions are proposed, cut out by RoIAlign, and "
        "given class, score, box and mask.",
        boxes,
        arrows,
        (7.6, 3.0),
    )


def self_attention() -> Curve:
    """The module as `SelfAttention` computes it (source document, figure 5; Zhang et al. 2018)."""
    boxes = [
        (0.5, 1.5, "x\nC x HW", INK),
        (1.9, 2.4, "f: 1x1\nC/8 x HW", _BLUE),
        (1.9, 1.5, "g: 1x1\nC/8 x HW", _BLUE),
        (1.9, 0.6, "h: 1x1\nC/2 x HW", _BLUE),
        (3.9, 1.95, "softmax of $g^T f$\nHW x HW", _ORANGE),
        (5.5, 1.2, "weighted\nsum of h", _ORANGE),
        (6.8, 1.2, "v: 1x1\nC x HW", _BLUE),
        (8.2, 1.2, "$\\gamma\\,o + x$", _GREEN),
    ]
    arrows = [(0, 1, ""), (0, 2, ""), (0, 3, ""), (1, 4, ""), (2, 4, ""), (4, 5, "")]
    arrows += [(3, 5, ""), (5, 6, ""), (6, 7, "o")]
    return _drawn(
        "Self-attention: every position gathers from all others; \u03b3 starts at 0, where the module changes nothing",
        "Three pointwise convolutions f, g and h of x; the softmax of g times f weighs the sum of h; v brings it back "
        "to C channels, and gamma times it is added to x.",
        boxes,
        arrows,
        (8.9, 3.0),
    )


def latent_scheme() -> Curve:
    """The order of a step with latent optimisation (source document, figure 6a; Wu et al. 2019)."""
    boxes = [
        (0.5, 2.3, "z", INK),
        (1.9, 2.3, "G", _BLUE),
        (3.3, 2.3, "D", _ORANGE),
        (5.2, 2.3, "$g = \\partial D(G(z)) / \\partial z$", INK),
        (5.2, 0.7, "$z' = z + \\frac{\\alpha}{\\beta + |g|^2}\\, g$", _GREEN),
        (3.3, 0.7, "G", _BLUE),
        (1.9, 0.7, "D", _ORANGE),
        (0.5, 0.7, "losses", INK),
    ]
    arrows = [(0, 1, ""), (1, 2, ""), (2, 3, ""), (3, 4, ""), (4, 5, ""), (5, 6, ""), (6, 7, "")]
    return _drawn(
        "Latent optimisation: z first moves towards what D takes for real; the losses' gradients pass through the move",
        "z goes through G and D; the gradient of the verdict moves z; the moved latent goes through G and D again, and "
        "gives the losses.",
        boxes,
        arrows,
        (6.6, 3.0),
    )


def latent_steps(alpha: float, beta: float) -> Curve:
    """How far z moves: equation 2 beside plain gradient ascent that agrees with it at small gradients."""
    norms = torch.linspace(0, 3 * math.sqrt(beta), 200)
    natural = latent_step(norms[:, None], alpha, beta)[:, 0]
    lines = {
        f"natural gradient: \u03b1 |g| / (\u03b2 + |g|\u00b2), \u03b1 = {alpha:g}, \u03b2 = {beta:g}": natural,
        "gradient: \u03b1/\u03b2 |g|": alpha / beta * norms,
    }
    points = {name: np.stack([norms.numpy(), values.numpy()], axis=1) for name, values in lines.items()}
    longest = alpha / (2 * math.sqrt(beta))
    title = f"How far z moves: at most {longest:.3g}, at |g| = {math.sqrt(beta):.3g}; steep places do not throw it far"
    return draw_lines(title, points, x_label="|g|", exact=True)


def _drawn(title: str, alt: str, boxes: Sequence[Box], arrows: Sequence[Arrow], size: tuple[float, float]) -> Curve:
    figure = Figure(figsize=size)
    FigureCanvasSVG(figure)
    axes: Axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.set_axis_off()
    patches = []
    for x, y, text, colour in boxes:
        frame = {"boxstyle": "round,pad=0.45", "facecolor": "none", "edgecolor": colour, "linewidth": 1.6}
        words = axes.text(x, y, text, color=INK, ha="center", va="center", fontsize=10, bbox=frame)
        patches.append(words)
    # arrows end at the frames, whose sizes are known once drawn
    figure.draw_without_rendering()
    for start, end, text in arrows:
        (xa, ya), (xb, yb) = boxes[start][:2], boxes[end][:2]
        look = {"arrowstyle": "-|>", "color": INK, "shrinkA": 2, "shrinkB": 2}
        ends = {"patchA": patches[start].get_bbox_patch(), "patchB": patches[end].get_bbox_patch()}
        axes.annotate("", xy=(xb, yb), xytext=(xa, ya), arrowprops={**look, **ends})
        if text:
            axes.text((xa + xb) / 2, (ya + yb) / 2 + 0.12, text, color=INK, ha="center", fontsize=9)
    return Curve(title, svg_of(figure), alt)
