"""How often the intervals of a comparison hold the truth, in comparisons that are drawn from known spreads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gan_plugin.visualization.curves import COLOURS, INK, Curve, svg_of

from .plan import MAIN, MAIN_IN_TRUTH_BOXES
from .resampling import hierarchical_interval, image_weights, variances
from .statistics import CONFIDENCE, t_interval

# what an interval has to hold in
REQUIRED = 0.93
OVER_BOTH = "seeds and images; the truth of all such images"
OVER_SEEDS = "seeds; the truth of these images"
ASKED_TOO_MUCH = "seeds; the truth of all such images, which it does not promise"
INTERVALS = (OVER_BOTH, OVER_SEEDS, ASKED_TOO_MUCH)


@dataclass(frozen=True)
class Spreads:
    """What makes the difference of two arms vary: standard deviations in percent points.

    Attributes:
        seeds: of what a seed adds on all images.
        images: of what an image adds for all seeds.
        both: of what a seed adds on one image.
    """

    seeds: float
    images: float
    both: float


# PennFudan with EfficientNet-Lite0, 300 and 200 iterations, against the baseline. Over seeds: the deviation of 5 paired
# differences on 40 images, root mean square of six arms; over images: a bootstrap of 35 held-out images with seed 0, of
# lsgan, lsgan-frozen and rec. One seed cannot tell `images` from `both`, so their squares are taken to be equal.
MEASURED: Mapping[str, Spreads] = {
    MAIN[0]: Spreads(seeds=1.33, images=3.87, both=3.87),
    MAIN[1]: Spreads(seeds=0.72, images=4.21, both=4.21),
    MAIN_IN_TRUTH_BOXES[0]: Spreads(seeds=0.39, images=1.86, both=1.86),
    MAIN_IN_TRUTH_BOXES[1]: Spreads(seeds=0.38, images=1.90, both=1.90),
}

_Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# of deviation 1: what seeds and images add
TAILS: Mapping[str, _Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "long-tailed (Laplace)": lambda rng, shape: rng.laplace(scale=np.sqrt(0.5), size=shape),
}


def spreads_of(gaps: np.ndarray, images: int) -> Spreads | None:
    """The spreads that a comparison shows; arguments, and None, as of `variances`."""
    found = variances(gaps, images)
    if found is None:
        return None
    squares = (max(0.0, found.seeds - found.own) * len(gaps), found.images * images, found.own * len(gaps) * images)
    return Spreads(*(square**0.5 for square in squares))


def coverage(
    spreads: Spreads,
    *,
    seeds: int,
    images: int,
    comparisons: int,
    draw: _Draw = TAILS["normal"],
    first: int = 0,
) -> dict[str, float]:
    """The share of simulated comparisons in which each of INTERVALS holds the true difference.

    Of an interval over seeds alone the truth is the mean difference on the images that were drawn, since it speaks of
    no others; ASKED_TOO_MUCH is what happens to it if it is taken for the other one.

    Args:
        spreads: what the comparisons are drawn from.
        seeds, images: of each comparison.
        comparisons: how many.
        draw: what a spread of 1 means.
        first: of all random numbers.
    """
    rng, held = np.random.default_rng(first), dict.fromkeys(INTERVALS, 0)
    weights = np.vstack([np.ones((1, images)), image_weights(images)]).T / images
    for _ in range(comparisons):
        of_images = spreads.images * draw(rng, (1, images))
        effects = spreads.seeds * draw(rng, (seeds, 1)) + of_images + spreads.both * draw(rng, (seeds, images))
        means = effects.mean(axis=1)
        both = hierarchical_interval(effects @ weights, images)
        alone = t_interval(means.tolist())
        for name, interval, truth in (
            (OVER_BOTH, both, 0.0),
            (OVER_SEEDS, alone, float(of_images.mean())),
            (ASKED_TOO_MUCH, alone, 0.0),
        ):
            held[name] += interval is not None and interval[0] <= truth <= interval[1]
    return {name: count / comparisons for name, count in held.items()}


def draw_coverage(found: Mapping[str, Mapping[int, Sequence[float]]], comparisons: int) -> Curve:
    """Lines of the share over the number of seeds, each in the band of all metrics and tails.

    Args:
        found: interval -> number of seeds -> shares.
        comparisons: that each share is of.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for (name, by_seeds), colour in zip(found.items(), COLOURS, strict=False):
        x, shares = sorted(by_seeds), [np.array(by_seeds[n]) * 100 for n in sorted(by_seeds)]
        axes.fill_between(x, [s.min() for s in shares], [s.max() for s in shares], color=colour, alpha=0.2, lw=0)
        axes.plot(x, [s.mean() for s in shares], "o-", color=colour, ms=4, label=name)
    axes.axhline(100 * CONFIDENCE, color=INK, lw=1)
    axes.axhline(100 * REQUIRED, color=INK, lw=1, ls=":")
    axes.set_xticks(sorted({n for by_seeds in found.values() for n in by_seeds}))
    axes.set_xlabel("seeds", color=INK)
    axes.set_ylabel("intervals that hold the truth, %", color=INK)
    axes.tick_params(colors=INK)
    axes.grid(color=INK, alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    figure.legend(loc="outside upper left", frameon=False, labelcolor=INK, fontsize=9, title="interval over ...")
    ends = [
        f"{name}: {100 * min(s for shares in by_seeds.values() for s in shares):.1f} to "
        f"{100 * max(s for shares in by_seeds.values() for s in shares):.1f} %"
        for name, by_seeds in found.items()
    ]
    title = f"How often an interval of {100 * CONFIDENCE:.0f} % holds the truth"
    return Curve(title, svg_of(figure), f"{title}, {comparisons} comparisons a point: {'; '.join(ends)}.")
