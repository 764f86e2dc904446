"""What a model finds in a picture, drawn over it; and two models side by side, with what they differ on enlarged."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.visualizer import Visualizer
from pycocotools import mask as rle_tools

from .close_up import outlined
from .panels import Instance, boundary_zoom, instance_from_mask, match, scale

# a pair that overlaps less is two objects, each of which one model alone has found
LEAST_IOU = 0.25
_COUNT, _TILE, _GAP = 4, 300, 6
_LINE = 24


class Pair(NamedTuple):
    """An object as two models see it; None of the one that has not found it.

    Attributes:
        first: of the first model.
        second: of the other.
        iou: how well their masks agree, in [0, 1].
    """

    first: Instance | None
    second: Instance | None
    iou: float

    @property
    def area(self) -> int:
        """Pixels of the larger one."""
        return max(int(rle_tools.area(one.rle)) for one in (self.first, self.second) if one is not None)


def confident(found: Instances, score: float) -> Instances:
    """Those that score `score` or more."""
    return found[found.scores >= score]


def overlay(pixels: np.ndarray, found: Instances, metadata: Metadata) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB under what was found, as Detectron2's Visualizer draws it."""
    return Visualizer(pixels, metadata).draw_instance_predictions(found).get_image()


def instances_of(found: Instances) -> list[Instance]:
    """The masks that a model has predicted; of one without masks its boxes."""
    labels, scores = found.pred_classes.tolist(), found.scores.tolist()
    if found.has("pred_masks"):
        masks = [mask.numpy() for mask in found.pred_masks]
    else:
        masks = []
        for x0, y0, x1, y1 in found.pred_boxes.tensor.round().int().tolist():
            masks.append(np.zeros(found.image_size, bool))
            masks[-1][y0:y1, x0:x1] = True
    return [instance_from_mask(*each) for each in zip(masks, labels, scores, strict=True)]


def most_different(first: Sequence[Instance], second: Sequence[Instance], count: int = _COUNT) -> list[Pair]:
    """The objects on which two models differ most, by 1 - IoU; what one alone has found differs by 1.

    Of equal ones the larger object comes first. Objects on which they agree in every pixel are left out.
    """
    matches = match(first, second, LEAST_IOU)
    pairs = [Pair(first[index], second[partner], iou) for index, (partner, iou) in matches.items()]
    pairs += [Pair(one, None, 0.0) for index, one in enumerate(first) if index not in matches]
    partners = {partner for partner, _ in matches.values()}
    pairs += [Pair(None, one, 0.0) for index, one in enumerate(second) if index not in partners]
    changed = [pair for pair in pairs if pair.iou < 1]
    return sorted(changed, key=lambda pair: (round(pair.iou, 9), -pair.area))[:count]


def side_by_side(
    pixels: np.ndarray,
    overlays: Sequence[np.ndarray],
    pairs: Sequence[Pair],
    names: Sequence[str],
    classes: Sequence[str],
) -> np.ndarray:
    """One picture: both overlays, and below them the pairs' outlines enlarged, of the first blue, of the second yellow.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        overlays: of both models.
        pairs: of `most_different`.
        names: of both models.
        classes: names of the labels.
    """
    width = _COUNT * _TILE + (_COUNT - 1) * _GAP
    half = (width - _GAP) // 2
    height, along = overlays[0].shape[:2]
    longest = max(half, round(half * height / along))
    upper = [_titled(scale(picture, longest), name) for picture, name in zip(overlays, names, strict=True)]
    rows = [_beside(upper, width)]
    if pairs:
        rows.append(_beside([_titled(_tile(pixels, pair), _title(pair, classes)) for pair in pairs], width))
    return np.concatenate(rows)


def _tile(pixels: np.ndarray, pair: Pair) -> np.ndarray:
    # an object of both where their outlines differ most, that of one alone as a whole
    first, second = (None if one is None else one.mask for one in pair[:2])
    if first is None or second is None:
        return outlined(pixels, first, second, _TILE)
    return boundary_zoom(pixels, first, second, _TILE)


def _title(pair: Pair, classes: Sequence[str]) -> str:
    label = next(one.label for one in (pair.first, pair.second) if one is not None)
    name = classes[label] if label < len(classes) else f"class {label}"
    alone = "left alone" if pair.second is None else "right alone" if pair.first is None else f"IoU {pair.iou:.2f}"
    return f"{name}, {alone}"


def _titled(picture: np.ndarray, text: str) -> np.ndarray:
    band = np.full((_LINE, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(band, text, (4, _LINE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([band, picture])


def _beside(pictures: Sequence[np.ndarray], width: int) -> np.ndarray:
    row = np.full((max(picture.shape[0] for picture in pictures) + _GAP, width, 3), 255, np.uint8)
    x = 0
    for picture in pictures:
        height, along = picture.shape[:2]
        row[:height, x : x + along] = picture
        x += along + _GAP
    return row
