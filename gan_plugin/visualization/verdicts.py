"""What the discriminator says to the masks of test images, and which parts of a mask its verdict hangs on."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data import transforms as T
from detectron2.utils.events import EventStorage
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from torchvision.ops import batched_nms

from gan_plugin.data.mappers import CheckedDatasetMapper
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.errors import UserError
from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.masks_of_some import train_without_updates
from gan_plugin.modeling.presenters import drawn_masks
from gan_plugin.modeling.samples import MaskSamples, mask_iou

from .curves import COLOURS
from .page import embed
from .run_files import load_run

# a window of a 28 x 28 mask is 4 x 4 pixels, and moves by 2
_WINDOWS_A_SIDE = 7
# masks that go through the discriminator at a time
_BATCH = 64
_NEARLY = 1e-6
# proposals that overlap more than this are taken to be of one object
_SAME_OBJECT = 0.4
_PER_IMAGE = 4
_CROP = 112
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


@torch.no_grad()
def occlusion_maps(adversary: Adversary, sample: MaskSamples) -> tuple[np.ndarray, np.ndarray]:
    """Which parts of two masks speak for "predicted" to a discriminator with one logit (Zeiler and Fergus 2014).

    A window slides over the mask. In the annotated mask it is blanked, in the predicted one replaced by the truth. The
    logit's rise is credited to every pixel of the window; where windows overlap, their mean. For a discriminator of
    features it is the fall of the distance instead, which only the predicted mask has.

    Args:
        adversary: with its discriminator in evaluation mode.
        sample: one annotated and one predicted mask, M x M.

    Returns:
        (M, M) of the annotated mask, and of the predicted one.
    """
    areas = _windows(sample.logits.shape[-1]).to(sample.logits.device)
    copies = take(sample, torch.zeros(len(areas), dtype=torch.long, device=areas.device))
    filled = copies.truth.clamp(_NEARLY, 1 - _NEARLY).logit().to(copies.logits.dtype)
    changed = replace(
        copies,
        logits=torch.where(areas, filled, copies.logits),
        truth=torch.where(areas, torch.zeros_like(copies.truth), copies.truth),
    )
    before = scores(adversary, sample)
    parts = [scores(adversary, part, take(copies, index)) for part, index in _batches(changed)]
    after = [torch.cat(side) for side in zip(*parts, strict=True)]
    sign = -1 if adversary.objective.judges == "features" else 1
    maps = [
        (sign * (now - then)[:, None, None] * areas).sum(0) / areas.sum(0)
        for now, then in zip(after, before, strict=True)
    ]
    return maps[0].cpu().numpy(), maps[1].cpu().numpy()


def scores(
    adversary: Adversary, samples: MaskSamples, truth: MaskSamples | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Verdicts on real and on fake, (R,) or (R, H, W); zeros and distances (R,) from a discriminator of features.

    Args:
        adversary: with its discriminator.
        samples: R masks.
        truth: R masks, where distances are measured from if not from the real side of `samples`.
    """
    pair = adversary.present(samples)
    fake = adversary.judge(pair.fake, pair)
    if adversary.objective.judges != "features":
        return adversary.judge(pair.real, pair), fake
    real = adversary.judge(adversary.present(truth or samples).real, pair)
    # as MultiLayerL1 has it, but for each sample by itself
    distances = torch.stack([(a - b).abs().sum(1) for a, b in zip(real, fake, strict=True)]).sum(0)
    distances = distances / sum(features.shape[1] for features in real)
    return torch.zeros_like(distances), distances


def take(samples: MaskSamples, index: torch.Tensor) -> MaskSamples:
    """Those at the places `index`, without what only training needs."""
    return replace(samples.at(index), loss=None, output=None, cut_from=None)


def _windows(side: int) -> torch.Tensor:
    """(W, side, side) bool: squares that cover everything, each overlapping the next by half."""
    window = max(1, side // _WINDOWS_A_SIDE)
    starts = sorted({*range(0, side - window, max(1, window // 2)), side - window})
    areas = torch.zeros(len(starts) ** 2, side, side, dtype=torch.bool)
    for number, area in enumerate(areas):
        top, left = starts[number // len(starts)], starts[number % len(starts)]
        area[top : top + window, left : left + window] = True
    return areas


def _batches(samples: MaskSamples) -> Iterator[tuple[MaskSamples, torch.Tensor]]:
    for index in torch.arange(len(samples), device=samples.logits.device).split(_BATCH):
        yield take(samples, index), index


@dataclass(frozen=True)
class JudgedPair:
    """An annotated mask and the predicted one of the same region of interest, both M x M.

    Attributes:
        image: (S, S, 3) uint8 RGB, the region.
        truth, drawn: (M, M) in [0, 1].
        iou: of the two masks, in [0, 1].
        on_truth, on_drawn: the verdicts; see `Verdicts.kind`.
        truth_map, drawn_map: (K, K) each; None where there is none.
    """

    image: np.ndarray
    truth: np.ndarray
    drawn: np.ndarray
    iou: float
    on_truth: float
    on_drawn: float
    truth_map: np.ndarray | None
    drawn_map: np.ndarray


@dataclass(frozen=True)
class Verdicts:
    """Some pairs, in the order of the verdict on the predicted mask.

    Attributes:
        kind: "patches": the discriminator judges patches; verdicts are probabilities of "annotated", averaged over the
                patches, maps hold 0.5 - probability of each.
            "occlusion": it gives one logit; verdicts are probabilities, maps hold by how much the logit rises when a
                window of the predicted mask is replaced by the truth, or one of the annotated mask is blanked.
            "distance": it compares features; the verdict on a predicted mask is the distance of its features to those
                of the truth (0 for the truth itself), maps hold by how much that falls in the same experiment.
            In every map, what is above 0 speaks for "predicted".
        pairs: the pairs.
    """

    kind: str
    pairs: list[JudgedPair]


def judge_masks(cfg: CfgNode, model: Any, records: Sequence[dict[str, Any]], count: int = 6, seed: int = 0) -> Verdicts:
    """Ask the mask discriminator of `model` about masks of `records`, in evaluation mode and without augmentation.

    The masks are made as in training: proposals of the model itself, the head's masks of the true class, the
    presenter's form. Of each object one proposal is taken by chance.

    Args:
        cfg: of the run.
        model: an AdversarialRCNN with its weights.
        records: with annotations; as many of them are used as it takes.
        count: pairs wanted; spread evenly over the verdicts on predicted masks, from the lowest to the highest.
        seed: of the choice.

    Raises:
        UserError: the model has no mask discriminator, or the images show it no object.
    """
    adversary: Adversary | None = model.adversaries["mask"] if "mask" in getattr(model, "adversaries", ()) else None
    if adversary is None:
        raise UserError("This run has no discriminator of masks.")
    # training alone makes samples
    train_without_updates(model)
    model.adversaries.eval()
    mapper = _mapper(cfg)
    seen: list[_Seen] = []
    iteration = max(cfg.SOLVER.MAX_ITER, cfg.MODEL.GAN.START_ITER + cfg.MODEL.GAN.WARMUP_ITERS) + 1
    with preserved_rng(seed), torch.no_grad(), EventStorage(iteration):
        for record in _spread([record for record in records if record.get("annotations")], 2 * count):
            item: Any = mapper(record)
            if not len(item["instances"]):
                continue
            samples = model.generator_forward([item])[1]["mask"].samples
            seen += [_Seen(take(samples, place), _pixels(cfg, item)) for place in _one_of_each(samples)]
        if not seen:
            raise UserError("No mask of the test images reached the discriminator.")
        return _judged(adversary, seen, count)


@dataclass(frozen=True)
class _Seen:
    """One pair of masks as samples, and the image (H, W, 3) that it is of."""

    sample: MaskSamples
    pixels: np.ndarray


def _judged(adversary: Adversary, seen: Sequence[_Seen], count: int) -> Verdicts:
    both = [scores(adversary, one.sample) for one in seen]
    real, fake = (torch.cat(side) for side in zip(*both, strict=True))
    of_features, of_patches = adversary.objective.judges == "features", real.ndim > 1
    if not of_features:
        # over all of them, since some objectives compare a sample with the mean of the other side
        real, fake = adversary.objective.probabilities(real, fake) or (real, fake)
    pairs = []
    verdicts = fake.flatten(1).mean(1).tolist() if of_patches else fake.tolist()
    for i in _spread(sorted(range(len(seen)), key=lambda i: verdicts[i]), count):
        if of_patches:
            maps = tuple(0.5 - side[i].cpu().numpy() for side in (real, fake))
        else:
            maps = occlusion_maps(adversary, seen[i].sample)
        sample = seen[i].sample
        pairs.append(
            JudgedPair(
                image=_crop(seen[i].pixels, sample.rois[0, 1:].tolist()),
                truth=sample.truth[0].cpu().numpy(),
                drawn=drawn_masks(sample, getattr(adversary.presenter, "fake", "soft"))[0].cpu().numpy(),
                iou=float(mask_iou(sample.logits, sample.truth)),
                on_truth=float(real[i].mean()),
                on_drawn=verdicts[i],
                truth_map=None if of_features else maps[0],
                drawn_map=maps[1],
            )
        )
    return Verdicts("distance" if of_features else "patches" if of_patches else "occlusion", pairs)


def _mapper(cfg: CfgNode) -> CheckedDatasetMapper:
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    return CheckedDatasetMapper(DatasetMapper(cfg, is_train=True, augmentations=[resize]))


def _pixels(cfg: CfgNode, item: dict[str, Any]) -> np.ndarray:
    pixels = item["image"].permute(1, 2, 0).numpy().astype(np.uint8)
    return pixels[..., ::-1] if cfg.INPUT.FORMAT == "BGR" else pixels


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly chosen."""
    if not items:
        return []
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


def _one_of_each(samples: MaskSamples) -> tuple[torch.Tensor, ...]:
    """The places of matched masks, by chance one of those that lie on the same object; (1,) each."""
    order = torch.randperm(len(samples)).to(samples.rois.device)
    order = order[samples.matched[order]]
    boxes = samples.rois[order, 1:].float()
    ranks = torch.linspace(1, 0, len(order), device=boxes.device)
    kept = batched_nms(boxes, ranks, samples.classes[order], _SAME_OBJECT)
    # one by one, for `split` makes an empty part of nothing
    return tuple(order[kept][:_PER_IMAGE].unsqueeze(1))


def _crop(pixels: np.ndarray, box: Sequence[float]) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top, right, bottom = (round(value) for value in box)
    rows = slice(min(max(0, top), height - 1), max(bottom, top + 1, 1))
    columns = slice(min(max(0, left), width - 1), max(right, left + 1, 1))
    return cv2.resize(np.ascontiguousarray(pixels[rows, columns]), (_CROP, _CROP), interpolation=cv2.INTER_AREA)


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
