"""Pairs of masks with the discriminator's verdicts, as one picture with its caption."""

import io
import math
from pathlib import Path

import matplotlib
import numpy as np
from detectron2.data import DatasetCatalog
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from .curves import COLOURS
from .embed import embed
from .run_files import load_run
from .verdicts import JudgedPair, Verdicts, judge_masks

# blue speaks for "annotated", orange for "predicted"; both are of Okabe and Ito
_MAP = LinearSegmentedColormap.from_list("verdict", [COLOURS[0], "#f7f7f7", COLOURS[1]])
_TILE = 1.5
_WORDS = {
    "patches": (
        "D judges each patch of a mask. The maps show its verdict on each: blue for “annotated”, orange for "
        "“predicted”, white where it cannot tell. The number below a mask is the mean probability of “annotated” over "
        "its patches, from 0 to 1.",
        "D's probability of “annotated” (blue: “annotated”, orange: “predicted”)",
    ),
    "occlusion": (
        "The number below a mask is D's probability that it is annotated, from 0 to 1. D gives one verdict for the "
        "whole mask; which parts it hangs on is found by experiment (an occlusion map, not something that D itself "
        "says): a small window of the predicted mask is replaced by the truth, or one of the annotated mask is "
        "blanked, and the change of D's logit is noted there. Orange: the logit rises, so this part spoke for "
        "“predicted”. Blue: it falls, so this part spoke for “annotated”.",
        "rise of D's logit (blue: speaks for “annotated”, orange: for “predicted”)",
    ),
    "distance": (
        "This D gives no verdict. It computes features of the predicted mask and of the truth, and their distance is "
        "what the two players fight over; it is the number below the predicted mask (0 would be the truth). The map "
        "is found by experiment (an occlusion map): a small window of the predicted mask is replaced by the truth. "
        "Orange: the distance falls, so this part gave the mask away. Blue: it grows.",
        "fall of the distance to the truth (orange: this part gives the mask away)",
    ),
}


def verdict_picture(folder: Path, name: str) -> dict[str, str]:
    """What the mask discriminator of the run in `folder` says to masks of the test set `name`.

    Raises:
        UserError: the run has no such discriminator, no weights, or another config than ours.
    """
    cfg, model = load_run(folder)
    verdicts = judge_masks(cfg, model, DatasetCatalog.get(name))
    pairs = verdicts.pairs
    caption = (
        f"What D, the discriminator after the last iteration, says to {len(pairs)} pairs of masks of test images: "
        "each is an annotated mask and the one that the trained model draws in the same region of the image, as D sees "
        "them. "
        f"Sorted by what D says to the predicted mask. {_WORDS[verdicts.kind][0]}"
    )
    alt = (
        "Rows of small pictures: the region of the image, the annotated mask, the predicted mask, and maps. "
        + "; ".join(f"mask IoU {pair.iou:.2f}, D {pair.on_truth:.2f} and {pair.on_drawn:.2f}" for pair in pairs)
    )
    return embed(draw_verdicts(verdicts), "image/png", alt, caption)


def draw_verdicts(verdicts: Verdicts) -> bytes:
    """A PNG file with a row for each pair, and a scale of the maps' colours."""
    pairs, has_truth_maps = verdicts.pairs, verdicts.pairs[0].truth_map is not None
    by_patch = verdicts.kind == "patches"
    of_map = "D's verdict map" if by_patch else "occlusion map"
    titles = ["image", "annotated mask", *([of_map] if has_truth_maps else []), "predicted mask", of_map]
    figure = Figure(figsize=(_TILE * len(titles), 1.17 * _TILE * len(pairs) + 0.9), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(pairs), len(titles), squeeze=False)
    reach = 0.5 if by_patch else _reach(pairs)
    scale = Normalize(-reach, reach)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    for row, pair in zip(grid, pairs, strict=True):
        _fill(row, pair, scale, verdicts.kind)
    bar = figure.colorbar(
        matplotlib.cm.ScalarMappable(scale, _MAP), ax=grid, location="bottom", aspect=40, shrink=0.8, pad=0.01
    )
    bar.set_label(_WORDS[verdicts.kind][1], fontsize=9)
    bar.ax.tick_params(labelsize=8)
    if by_patch:
        bar.set_ticks([-0.5, -0.25, 0, 0.25, 0.5], labels=["1", "0.75", "0.5", "0.25", "0"])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _fill(row: np.ndarray, pair: JudgedPair, scale: Normalize, kind: str) -> None:
    cells = iter(row)
    _show(next(cells), pair.image, f"mask IoU {pair.iou:.2f}")
    _show(next(cells), pair.truth, "" if kind == "distance" else f"D: {pair.on_truth:.2f}", "gray", Normalize(0, 1))
    if pair.truth_map is not None:
        _map(next(cells), pair.truth_map, pair.truth, scale)
    drawn = f"distance {pair.on_drawn:.3f}" if kind == "distance" else f"D: {pair.on_drawn:.2f}"
    _show(next(cells), pair.drawn, drawn, "gray", Normalize(0, 1))
    _map(next(cells), pair.drawn_map, pair.drawn, scale)


def _show(axes: Axes, picture: np.ndarray, text: str, colours: object = None, scale: Normalize | None = None) -> None:
    axes.imshow(picture, cmap=colours, norm=scale, interpolation="nearest")  # type: ignore[arg-type]
    axes.set_xlabel(text, fontsize=9, labelpad=2)
    axes.set_xticks([])
    axes.set_yticks([])


def _map(axes: Axes, values: np.ndarray, mask: np.ndarray, scale: Normalize) -> None:
    side = mask.shape[-1]
    axes.imshow(values, cmap=_MAP, norm=scale, interpolation="nearest", extent=(0, side, side, 0))
    if (mask > 0.5).any() and not (mask > 0.5).all():
        centres = np.arange(side) + 0.5
        axes.contour(centres, centres, mask, levels=[0.5], colors="black", linewidths=0.8)
    axes.set_xticks([])
    axes.set_yticks([])


def _reach(pairs: list[JudgedPair]) -> float:
    maps = [np.abs(found).max() for pair in pairs for found in (pair.truth_map, pair.drawn_map) if found is not None]
    return max(max(maps), math.ulp(1.0))
