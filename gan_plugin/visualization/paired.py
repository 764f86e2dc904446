"""The same annotated objects in the predictions of two kinds of runs: how well each found them, and where they differ.

An object is found by the prediction that `panels.match` gives it: one to one, within a class, best score first. What
nobody found counts 0 by either measure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from pycocotools import mask as rle_tools

from gan_plugin.evaluation.truth_boxes import boundary_iou

from .curves import COLOURS, INK, Curve, svg_of
from .panels import Instance, instances_of_record, match

# The least overlap of a prediction that is taken for a try at the object. Lower than the 0.5 of COCO's AP: an object
# whose mask slips from 0.51 to 0.49 has not got worse by half.
LEAST_IOU = 0.25
MEASURES = {"iou": "mask IoU", "boundary_iou": "boundary IoU"}
GAIN, LOSS = COLOURS[0], COLOURS[1]
_SAME = COLOURS[6]
# more points than this are drawn as pixels, or the file would grow with the data set
_MANY = 500
_BINS = 21


@dataclass(frozen=True)
class Fate:
    """What one run made of one object: both measures in [0, 1], and the prediction; None where it was missed."""

    iou: float = 0.0
    boundary_iou: float = 0.0
    prediction: Instance | None = None

    def __getitem__(self, measure: str) -> float:
        return {"iou": self.iou, "boundary_iou": self.boundary_iou}[measure]


@dataclass(frozen=True)
class PairedObject:
    """One annotated object.

    Attributes:
        record: the number of its image.
        index: its own number among the annotations of that image.
        truth: the annotation.
        baseline, gan: its fates, one a seed, the same seeds in the same order.
    """

    record: int
    index: int
    truth: Instance
    baseline: tuple[Fate, ...]
    gan: tuple[Fate, ...]

    def gains(self, measure: str) -> list[float]:
        """GAN minus baseline for each seed, in [-1, 1]."""
        return [gan[measure] - base[measure] for base, gan in zip(self.baseline, self.gan, strict=True)]

    def gain(self, measure: str) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.gains(measure)))

    def telling_seed(self, measure: str) -> int:
        """The place of the seed to show; see `telling`."""
        return telling(self.gains(measure))


def telling(gains: Sequence[float]) -> int:
    """The place of the seed to show: of those that change at least half as much as the mean, the nearest to it.

    The others would show nothing of what the mean says, which may be due to one seed. Of equal ones the first.
    """
    mean = float(np.mean(gains))
    visible = [i for i, gain in enumerate(gains) if gain * np.sign(mean) >= abs(mean) / 2]
    return min(visible, key=lambda i: round(abs(gains[i] - mean), 9))


def fates(truth: Sequence[Instance], predicted: Sequence[Instance]) -> list[Fate]:
    """What became of each annotated object of one image."""
    matches = match(truth, predicted, LEAST_IOU)
    found = [Fate() for _ in truth]
    for index, (partner, iou) in matches.items():
        prediction = predicted[partner]
        found[index] = Fate(iou, boundary_iou(truth[index].mask, prediction.mask), prediction)
    return found


@dataclass(frozen=True)
class RunOnImages:
    """One run on the images of a test set, in their order.

    Attributes:
        found: its predictions on each image.
        fates: what it made of each annotated object of each image; crowds are left out.
    """

    found: list[list[Instance]]
    fates: list[list[Fate]]


def judge_run(
    records: Sequence[dict[str, Any]], predictions: Mapping[Any, Sequence[Instance]], threshold: float
) -> RunOnImages:
    """Compare a run's predictions with the truth.

    Args:
        records: of one test set, as Detectron2 keeps them.
        predictions: by image_id.
        threshold: predictions that score less, in [0, 1], are not there.
    """
    found = [[p for p in predictions.get(record["image_id"], ()) if p.score >= threshold] for record in records]
    pairs = zip(records, found, strict=True)
    return RunOnImages(found, [fates(instances_of_record(record), predicted) for record, predicted in pairs])


def pair_objects(
    records: Sequence[dict[str, Any]], baseline: Sequence[RunOnImages], gan: Sequence[RunOnImages]
) -> list[PairedObject]:
    """Every annotated object of `records` with its fates on both sides, one run a seed, as many of either."""
    return [
        PairedObject(
            number, index, truth, *(tuple(run.fates[number][index] for run in side) for side in (baseline, gan))
        )
        for number, record in enumerate(records)
        for index, truth in enumerate(instances_of_record(record))
    ]


def greatest(objects: Sequence[PairedObject], measure: str, count: int, *, losses: bool = False) -> list[PairedObject]:
    """The objects that gain most by `measure`, or lose most, at most `count` of them and the greatest first.

    Only those that do gain (or lose). Of equal ones the larger object comes first, then the order of the images.
    """
    sign = -1 if losses else 1
    # rounded, or the last bit would decide between equal ones
    changed = [(round(sign * found.gain(measure), 9), found) for found in objects]
    changed = [(size, found) for size, found in changed if size > 0]
    changed.sort(
        key=lambda entry: (-entry[0], -int(rle_tools.area(entry[1].truth.rle)), entry[1].record, entry[1].index)
    )
    return [found for _, found in changed[:count]]


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
