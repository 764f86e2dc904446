"""Masks of single objects as pixels: pictures of them in whatever form they were saved, and annotations made of them.

Masks become polygons along the pixel edges, so that rasterising them gives back every pixel. Polygons, unlike run
lengths, work with both values of INPUT.MASK_FORMAT and take memory by their outline, not by the picture;
COCOEvaluator still measures against the exact masks.
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pycocotools.mask as mask_util
from detectron2.structures import BoxMode
from PIL import Image
from scipy import ndimage

from gan_plugin.data.pictures import read_upright
from gan_plugin.data.shapes import run_lengths
from gan_plugin.errors import UserError

# grey values from 0 to 255: what is darker is surely outside, what is as bright surely inside, the rest are edges
_OUTSIDE, _INSIDE, _HALF = 64, 192, 128
# by how much colours inside may differ, at equal brightness
_HUE = 64
# a mask with no more values than these may be a map of labels, and has hardly a pixel amidst others of the same grey
_FEW_VALUES, _FEW_FLAT = 8, 8
_MOST_FLAT, _MOST_GREY = 0.05, 0.5
# labels up to here are looked for one by one; larger ones are numbered anew
_FEW_LABELS = 1 << 16


def read_mask(path: str | Path, forms: Counter[str] | None = None) -> np.ndarray:
    """The mask at `path`, (H, W) bool, turned as its EXIF orientation says.

    It may have 1, 8, 16 or 32 bits a value or floats, black (0) outside and one other value inside, or with grey edges,
    which are cut at the half; a palette or a colour, black outside; or it may be transparent outside.

    Args:
        path: of the file.
        forms: counts what was understood, in words.

    Raises:
        UserError: the file cannot be read, or what is inside is not clear.
    """
    try:
        mask, form = understood(read_upright(path))
        if forms is not None:
            forms[form if mask.any() else "black throughout"] += 1
        return mask
    except ValueError as error:
        raise UserError(
            f"The mask {path} {error}, so that it is not clear what is inside; save it with 0 outside and 255 inside."
        ) from error


def understood(image: Image.Image) -> tuple[np.ndarray, str]:
    """As `read_mask`, of a picture that is open: the mask, and in words what was taken for inside.

    Raises:
        ValueError: what is inside is not clear; the text says what the mask has.
    """
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return _inside(_brightness(image))
    pixels = np.array(image.convert("RGBA"))
    if np.ptp(pixels[..., 3]) == 0 and pixels[0, 0, 3]:
        return _inside(_brightness(image.convert("RGB")))
    visible, _ = _inside(pixels[..., 3])
    if not visible.any() or np.ptp(pixels[visible][:, :3], axis=0).max() <= _HUE:
        return visible, "transparent outside"
    # black is drawn as well as left out
    return _inside(_one_colour(pixels[..., :3] * visible[..., None]))


def _brightness(image: Image.Image) -> np.ndarray:
    """(H, W) of any type: how bright each pixel is, 0 where it is black."""
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "I", "F") or image.mode.startswith("I;16"):
        return np.array(image)
    return _one_colour(np.array(image.convert("RGB")))


def _one_colour(pixels: np.ndarray) -> np.ndarray:
    brightness = pixels.max(axis=2)
    bright = brightness > brightness.max() // 2
    hues = pixels[bright] * (255 / brightness[bright, None])
    if len(hues) and np.ptp(hues, axis=0).max() > _HUE:
        raise ValueError("has several colours")
    return brightness


def _inside(values: np.ndarray) -> tuple[np.ndarray, str]:
    found = np.unique(values)
    listed = f"has the values {', '.join(f'{value:g}' for value in found[:_FEW_VALUES].tolist())}"
    if len(found) > _FEW_VALUES:
        listed = f"has {len(found)} values from {found[0]:g} to {found[-1]:g}"
    if len(found) == 1 and found[0] in (0, 1, 255, 65535) or len(found) == 2 and found[0] == 0 < found[1]:
        return values > 0, f"0 outside and {found[-1]:g} inside"
    largest = 65535 if found[-1] > 255 else 1 if found[-1] <= 1 else 255
    if not (found[0] >= 0 and found[0] < largest * _OUTSIDE / 255 and largest * _INSIDE / 255 <= found[-1] <= largest):
        raise ValueError(listed)
    grey = np.rint(values * (255 / largest)).astype(np.uint8)
    if _flat(grey, len(found)) or ((grey >= _OUTSIDE) & (grey < _INSIDE)).mean() > _MOST_GREY:
        raise ValueError(listed)
    return grey >= _HALF, f"grey edges from 0 to {largest}, cut at the half"


def _flat(grey: np.ndarray, values: int) -> bool:
    """Whether there are areas between black and white, as in a map of labels; edges have slopes."""
    square = np.ones((3, 3), np.uint8)
    flat = (cv2.dilate(grey, square) == cv2.erode(grey, square)) & (grey > 0) & (grey < 255)
    return bool(flat.sum() > (_FEW_FLAT if values <= _FEW_VALUES else _MOST_FLAT * (grey > 0).sum()))


class Part(NamedTuple):
    """The pixels of an object in a picture that may be much larger.

    Attributes:
        x: of the left edge of its box in pixels.
        y: of the upper edge.
        mask: (height, width of the box) bool.
    """

    x: int
    y: int
    mask: np.ndarray

    @property
    def polygons(self) -> list[list[float]]:
        """See `mask_to_polygons`, in coordinates of the picture."""
        return [(outline + (self.x, self.y)).ravel().tolist() for outline in _outlines(self.mask.view(np.uint8))]

    def runs(self, width: int, height: int) -> dict[str, Any]:
        """COCO's compressed run lengths in a picture of that size."""
        whole = np.zeros((height, width), np.uint8, order="F")
        rows, columns = self.mask.shape
        whole[self.y : self.y + rows, self.x : self.x + columns] = self.mask
        return {"size": [height, width], "counts": mask_util.encode(whole)["counts"].decode()}


def parts_of(labels: np.ndarray) -> list[Part]:
    """The objects in (H, W) labels of any type, one for each number but 0, in the order of the numbers."""
    if labels.dtype == bool:
        places = np.ascontiguousarray(labels).view(np.uint8)
    elif labels.dtype.kind in "iu" and labels.max() < _FEW_LABELS:
        places = labels
    else:
        numbers, places = np.unique(labels, return_inverse=True)
        places = places.reshape(labels.shape) + int(numbers[0] != 0)
    boxes = ndimage.find_objects(places)
    return [
        Part(box[1].start, box[0].start, np.ascontiguousarray(places[box] == number))
        for number, box in enumerate(boxes, start=1)
        if box is not None
    ]


def annotation_of(part: Part, category: int = 0) -> dict[str, Any]:
    """An object of Detectron2's standard format: its exact box along the pixel edges (XYXY_ABS) and its polygons."""
    x, y, mask = part
    height, width = mask.shape
    return {
        "bbox": [float(x), float(y), float(x + width), float(y + height)],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": part.polygons,
    }


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outline a binary mask along its pixel edges, as COCO polygons whose rasterised union is the mask again.

    COCO polygons know no holes, so a region with a hole is cut in two by a vertical line through that hole.

    Args:
        mask: (H, W), nonzero inside.

    Returns:
        Polygons [x0, y0, x1, y1, ...] in pixels, where pixel (i, j) covers x in [j, j + 1] and y in [i, i + 1].
    """
    # in its box alone: nuclei are small in large pictures
    return [polygon for part in parts_of(mask != 0) for polygon in part.polygons]


def runs_to_polygons(runs: dict[str, Any]) -> list[list[float]]:
    """`mask_to_polygons` of sound run lengths of COCO, without decoding more than the columns that they lie in.

    Raises:
        ValueError: they cannot be decoded.
    """
    counts, height = run_lengths(runs["counts"]), runs["size"][0]
    if counts is None:
        raise ValueError("These are no run lengths.")
    edges = np.concatenate([[0], counts.cumsum()])
    # runs go down the columns: every second one is inside
    used = np.flatnonzero(counts[1::2]) * 2 + 1
    if not len(used):
        return []
    left, right = edges[used[0]] // height, (edges[used[-1] + 1] - 1) // height + 1
    lengths = np.diff(edges.clip(left * height, right * height))
    columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(right - left, height)
    shift = [float(left), 0.0]
    return [
        (np.reshape(part, (-1, 2)) + shift).ravel().tolist()
        for part in mask_to_polygons(np.ascontiguousarray(columns.T))
    ]


def _outlines(binary: np.ndarray) -> list[np.ndarray]:
    # cv2 joins pixel centres; at twice the size those lie a quarter pixel inside the edge, which rasterising rounds off
    double = cv2.resize(binary, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parents: Any = hierarchy[0, :, 3] if contours else []
    holes = [contour for contour, parent in zip(contours, parents, strict=True) if parent >= 0]
    if not holes:
        return [(contour.reshape(-1, 2) + 0.5) / 2 for contour in contours]
    # a hole's contour runs over the pixels around it: the hole begins one column further right; the one in the middle,
    # so that a mask with thousands of holes is cut in two a few times only
    first_column = sorted(int(hole[:, 0, 0].min()) // 2 for hole in holes)[len(holes) // 2] + 1
    left, right = binary.copy(), binary.copy()
    left[:, first_column:] = 0
    right[:, :first_column] = 0
    return _outlines(left) + _outlines(right)
