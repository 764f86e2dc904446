"""Pictures of instance masks: the truth, the predictions, where they differ, and how their outlines run.

Images are (H, W, 3) uint8 RGB arrays, masks (H, W) boolean arrays of the same size. The colours are those of Okabe and
Ito and white, which stay apart under the common kinds of colour blindness (https://jfly.uni-koeln.de/color/).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as rle_tools

Colour = tuple[int, ...]

_HEX = "e69f00 56b4e9 009e73 f0e442 d55e00 cc79a7 0072b2"
INSTANCE_COLOURS: list[Colour] = [tuple(bytes.fromhex(colour)) for colour in _HEX.split()]
AGREEMENT, MISSED, INVENTED, CONFUSED = 1, 2, 3, 4
# value of `difference` -> what it means, and its colour
DIFFERENCE_LEGEND: dict[int, tuple[str, Colour]] = {
    AGREEMENT: ("agreement (true positive)", (0, 114, 178)),
    MISSED: ("missed (false negative)", (240, 228, 66)),
    INVENTED: ("invented (false positive)", (213, 94, 0)),
    CONFUSED: ("missed and invented: no match, or the wrong class", (255, 255, 255)),
}
OUTLINE_LEGEND: dict[str, Colour] = {"truth": (86, 180, 233), "prediction": (240, 228, 66)}


@dataclass(frozen=True)
class Instance:
    """One object: its mask as COCO run-length code, its class (0-based), and the score in [0, 1] of a prediction."""

    rle: dict[str, Any]
    label: int
    score: float = 1.0

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool."""
        return rle_tools.decode(self.rle).astype(bool)


def instance_from_mask(mask: np.ndarray, label: int, score: float = 1.0) -> Instance:
    """An instance from a (H, W) mask; non-zero is inside."""
    return Instance(rle_tools.encode(np.asfortranarray(mask != 0, dtype=np.uint8)), label, score)


def instances_of_record(record: dict[str, Any]) -> list[Instance]:
    """The truth of one record of a Detectron2 data set: polygons or run-length code; crowds and boxes are left out."""
    height, width = record["height"], record["width"]
    return [
        Instance(_as_rle(annotation["segmentation"], height, width), annotation["category_id"])
        for annotation in record.get("annotations", ())
        if annotation.get("segmentation") and not annotation.get("iscrowd", 0)
    ]


def read_predictions(path: Path, classes: Mapping[Any, int]) -> dict[Any, list[Instance]]:
    """Predicted masks by image_id from a coco_instances_results.json, `classes` mapping its category_id to the label.

    Raises:
        OSError, ValueError, KeyError or TypeError: the file is missing, or not what COCOEvaluator writes for masks.
    """
    found: dict[Any, list[Instance]] = {}
    # ids may be texts, or have become texts in a JSON file
    labels = {str(identity): label for identity, label in classes.items()}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        identity = entry["category_id"]
        label = labels[str(identity)] if labels else int(identity)
        height, width = entry["segmentation"]["size"]
        rle = {"size": [int(height), int(width)], "counts": str(entry["segmentation"]["counts"])}
        found.setdefault(entry["image_id"], []).append(Instance(rle, label, float(entry["score"])))
    return found


def _as_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    if isinstance(segmentation, list):
        return rle_tools.merge(rle_tools.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return rle_tools.frPyObjects(segmentation, height, width)
    return segmentation


def confident(instances: Sequence[Instance], threshold: float = 0.5, at_least: int = 3) -> tuple[list[Instance], bool]:
    """The instances that score `threshold` or more, best first, and True; if there is none, the best few and False."""
    ranked = sorted(instances, key=lambda instance: -instance.score)
    above = [instance for instance in ranked if instance.score >= threshold]
    return (above, True) if above else (ranked[:at_least], False)


def match(truth: Sequence[Instance], predicted: Sequence[Instance], least_iou: float = 0.5) -> dict[int, tuple]:
    """Which prediction found which object: one to one, within a class, best score first, by the largest mask IoU.

    Returns:
        {index in truth: (index in predicted, IoU)} with IoU >= `least_iou`.
    """
    if not truth or not predicted:
        return {}
    ious = rle_tools.iou([p.rle for p in predicted], [t.rle for t in truth], [0] * len(truth))
    ious[[[p.label != t.label for t in truth] for p in predicted]] = -1
    matches = {}
    for index in sorted(range(len(predicted)), key=lambda i: -predicted[i].score):
        best = int(ious[index].argmax())
        if ious[index, best] >= least_iou:
            matches[best] = (index, float(ious[index, best]))
            ious[:, best] = -1
    return matches


def image_iou(truth: Sequence[Instance], predicted: Sequence[Instance]) -> float | None:
    """The mean mask IoU of an image in [0, 1]: matched pairs count their IoU, everything missed or invented counts 0.

    None where there is nothing to find and nothing was found.
    """
    matches = match(truth, predicted)
    count = len(truth) + len(predicted) - len(matches)
    return sum(iou for _, iou in matches.values()) / count if count else None


def difference(truth: Sequence[Instance], predicted: Sequence[Instance], shape: tuple[int, ...]) -> np.ndarray:
    """Where prediction and truth differ, pixel by pixel and by instance.

    A pixel agrees where an object and the prediction matched with it (see `match`) both cover it. What else the truth
    covers is missed, what else the predictions cover is invented; a pixel can be both, for example where the class is
    wrong or the overlap is too small for a match.

    Returns:
        (H, W) uint8 of `shape`: 0 for background, else AGREEMENT, MISSED, INVENTED or CONFUSED (the last two at once).
    """
    agrees, missed, invented = (np.zeros(shape, bool) for _ in range(3))
    for index, (partner, _) in match(truth, predicted).items():
        agrees |= truth[index].mask & predicted[partner].mask
    for covered, instances in ((missed, truth), (invented, predicted)):
        for instance in instances:
            covered |= instance.mask
        covered &= ~agrees
    return np.select([agrees, missed & invented, missed, invented], [AGREEMENT, CONFUSED, MISSED, INVENTED], 0).astype(
        np.uint8
    )


def scale(picture: np.ndarray, longest: int) -> np.ndarray:
    """Resize an image (smoothly) or a mask or map (to the nearest pixel) to `longest` pixels on its longer side."""
    height, width = picture.shape[:2]
    factor = longest / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if picture.ndim == 2:
        return cv2.resize(picture.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(picture.dtype)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def draw_instances(
    image: np.ndarray, masks: Sequence[np.ndarray], texts: Sequence[str], colours: Sequence[Colour]
) -> np.ndarray:
    """Each mask as a translucent area with an outline and a text beside it; the result is a new image.

    Large masks are drawn first. A text is left out where it is empty or would cover another text or small masks.
    """
    picture = image.copy()
    order = sorted(range(len(masks)), key=lambda i: -int(masks[i].sum()))
    for index in order:
        area = masks[index]
        picture[area] = (0.55 * picture[area] + 0.45 * np.array(colours[index])).astype(np.uint8)
    for index in order:
        draw_outline(picture, masks[index], colours[index], width=2)
    return _write_texts(picture, [(masks[i], texts[i], colours[i]) for i in order if masks[i].any() and texts[i]])


def draw_difference(image: np.ndarray, difference_map: np.ndarray) -> np.ndarray:
    """The image in dim grey under the colours of DIFFERENCE_LEGEND."""
    grey = 0.55 * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    for value, (_, colour) in DIFFERENCE_LEGEND.items():
        area = difference_map == value
        grey[area] = 0.3 * grey[area] + 0.7 * np.array(colour)
    return grey.astype(np.uint8)


def boundary_zoom(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, side: int = 420) -> np.ndarray:
    """A square close-up of where two outlines of one object differ most, in the colours of OUTLINE_LEGEND.

    The outlines follow the edges of the pixels. The window is 0.6 times as wide as the object, and at least 24 pixels.

    Returns:
        (side, side, 3).
    """
    height, width = truth.shape
    x, y, w, h = cv2.boundingRect((truth | predicted).astype(np.uint8))
    window = min(max(24, round(0.6 * max(w, h))), height, width)
    density = cv2.GaussianBlur((truth ^ predicted).astype(np.float32), (0, 0), window / 4)
    row, column = np.unravel_index(density.argmax(), density.shape) if density.any() else (y, x + w // 2)
    top, left = (
        min(max(0, int(centre) - window // 2), limit - window) for centre, limit in ((row, height), (column, width))
    )
    # a margin is drawn and cut off again, or the outlines would run along the window's border
    margin = 1 + window * 8 // side
    zoom = side / window
    frame, cut = round(side + 2 * margin * zoom), round(margin * zoom)
    rows, columns = slice(top, top + window + 2 * margin), slice(left, left + window + 2 * margin)
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    picture = cv2.resize(padded[rows, columns], (frame, frame), interpolation=cv2.INTER_CUBIC)
    for mask, colour, thickness in ((truth, OUTLINE_LEGEND["truth"], 5), (predicted, OUTLINE_LEGEND["prediction"], 2)):
        enlarged = scale(np.pad(mask, margin)[rows, columns], frame)
        draw_outline(picture, enlarged, (0, 0, 0), thickness + 2)
        draw_outline(picture, enlarged, colour, thickness)
    return picture[cut : cut + side, cut : cut + side]


def draw_outline(picture: np.ndarray, mask: np.ndarray, colour: Colour, width: int) -> None:
    """Draw the outline of a mask into a picture of its size, `width` pixels wide."""
    # a frame of background keeps the outline off the picture's own border
    framed = np.pad(mask.astype(np.uint8), 1)
    contours, _ = cv2.findContours(framed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(-1, -1))
    cv2.drawContours(picture, contours, -1, colour, width, cv2.LINE_AA)


def _write_texts(picture: np.ndarray, items: Sequence[tuple[np.ndarray, str, Colour]]) -> np.ndarray:
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(12, max(canvas.size) // 44))
    taken: list[tuple[int, int, int, int]] = []
    occupied = np.any([mask for mask, _, _ in items] or [np.zeros(picture.shape[:2], bool)], axis=0)
    for mask, text, colour in items:
        left, top, right, bottom = (round(v) for v in draw.textbbox((0, 0), text, font=font))
        width, height = right - left + 6, bottom - top + 6
        place = _free_place(mask, width, height, occupied, taken)
        if place is None:
            continue
        taken.append((*place, place[0] + width, place[1] + height))
        draw.rectangle(taken[-1], fill=colour)
        ink = (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
        draw.text((place[0] + 3 - left, place[1] + 3 - top), text, fill=ink, font=font)
    return np.asarray(canvas)


def _free_place(
    mask: np.ndarray, width: int, height: int, occupied: np.ndarray, taken: Sequence[Sequence[int]]
) -> tuple[int, int] | None:
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    beside = ((x + w, y + h // 2), (x - width, y + h // 2))
    # a text may cover masks only inside an object that is much larger than the text
    inside = [(x + w // 2 - width // 2, y + h // 2)] if mask.sum() > 10 * width * height else []
    for left, top in ((x, y - height), (x, y + h), *beside, (x, y - 2 * height), (x, y + h + height), *inside):
        left, top = min(max(0, left), mask.shape[1] - width), min(max(0, top), mask.shape[0] - height)
        clashes = (left <= r and x0 <= left + width and top <= b and t <= top + height for x0, t, r, b in taken)
        covers = occupied[max(0, top) : top + height, max(0, left) : left + width].mean()
        if left >= 0 and top >= 0 and not any(clashes) and (covers <= 0.1 or inside[-1:] == [(left, top)]):
            return left, top
    return None
