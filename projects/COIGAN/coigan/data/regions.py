"""One annotated object: its class, its place and its exact mask; and how a record stores it.

A record keeps a region as COCO's compressed run lengths, which are exact, or as polygons with holes, of which some
points may be left out. Severstal's table has run lengths of its own.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from gan_plugin.data.shapes import run_lengths

Encoding = Literal["rle", "polygons"]


@dataclass(frozen=True)
class Region:
    """An object in an image.

    Attributes:
        label: the class's index, 0 or more.
        x, y: the column and row of the mask's top left pixel in the image.
        mask: (h, w) bool, cropped to the object: its first and last row and column each hold at least one pixel.
    """

    label: int
    x: int
    y: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1), the last column and row included."""
        height, width = self.mask.shape
        return self.x, self.y, self.x + width - 1, self.y + height - 1

    @property
    def area(self) -> int:
        """In pixels."""
        return int(self.mask.sum())

    def painted(self, height: int, width: int) -> np.ndarray:
        """(height, width) bool: the mask at its place in the whole image."""
        canvas = np.zeros((height, width), bool)
        canvas[self.y : self.y + self.mask.shape[0], self.x : self.x + self.mask.shape[1]] = self.mask
        return canvas

    def cut(self, x0: int, y0: int, width: int, height: int) -> "Region | None":
        """What lies in the window of that size at (x0, y0), in the window's coordinates; None if nothing does."""
        left, top = max(x0 - self.x, 0), max(y0 - self.y, 0)
        part = self.mask[top : max(y0 + height - self.y, 0), left : max(x0 + width - self.x, 0)]
        return tight(part, self.label, max(self.x - x0, 0), max(self.y - y0, 0))


def tight(mask: np.ndarray, label: int, x: int = 0, y: int = 0) -> Region | None:
    """The region of `mask`, (h, w), whose top left pixel is at (x, y), cropped to what is set; None if nothing is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    return Region(label, x + left, y + top, np.ascontiguousarray(part, dtype=bool))


def components(mask: np.ndarray, label: int) -> list[Region]:
    """The connected parts of `mask`, (H, W), from top to bottom; pixels that touch by a corner are connected."""
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask, np.uint8), connectivity=8)
    regions = []
    for number in range(1, count):
        x, y, width, height = (int(value) for value in boxes[number, :4])
        regions.append(Region(label, x, y, numbers[y : y + height, x : x + width] == number))
    return regions


def to_record(region: Region, height: int, width: int, encoding: Encoding = "rle", keep_every: int = 1) -> dict:
    """`region` as a JSON object.

    Args:
        region: lies within the image.
        height, width: of the image.
        encoding: "rle" gives {"label", "rle": {"size", "counts"}}, COCO's compressed run lengths of the whole image;
            "polygons" gives {"label", "points", "holes"}: rings of (x, y) pixels, `holes` the numbers of those rings
            that bound a hole. A ring passes through pixels of the object.
        keep_every: of a ring with more than 25 points keep each so many-th (the thesis' code: 4); 1 is exact.
    """
    label = str(region.label)
    if encoding == "rle":
        return {"label": label, "rle": to_coco_rle(region.painted(height, width))}
    rings, holes = _rings(region, keep_every)
    return {"label": label, "points": rings, "holes": holes}


def from_record(record: dict[str, Any], height: int, width: int) -> Region | None:
    """The inverse of `to_record`; None if the record's mask is empty.

    Raises:
        KeyError, TypeError, ValueError: the record is not of that form, or does not fit the size.
    """
    label = int(record["label"])
    if "rle" in record:
        if list(record["rle"]["size"]) != [height, width]:
            raise ValueError(f"run lengths of size {record['rle']['size']} in an image of {[height, width]}")
        return tight(from_coco_rle(record["rle"]), label)
    canvas = np.zeros((height, width), np.uint8)
    for number, ring in enumerate(record["points"]):
        points = np.array(ring, np.int32).reshape(-1, 1, 2)
        if number not in record.get("holes", ()):
            cv2.fillPoly(canvas, [points], 1)
            continue
        cv2.fillPoly(canvas, [points], 0)
        # the ring of a hole runs through the object's own pixels
        cv2.polylines(canvas, [points], isClosed=True, color=1)
    return tight(canvas, label)


def to_coco_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of `mask`, (H, W), with text for `counts` so that JSON takes it."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def from_coco_rle(encoded: dict[str, Any]) -> np.ndarray:
    """(H, W) uint8 of 0 and 1, the inverse of `to_coco_rle`.

    Raises:
        KeyError, TypeError, ValueError: these are no run lengths of that size.
    """
    height, width = encoded["size"]
    # where runs end too early, pycocotools leaves the rest of the mask to whatever was in memory
    lengths = run_lengths(encoded["counts"])
    if lengths is None or lengths.sum() != height * width:
        raise ValueError(f"run lengths that do not cover {width}x{height} pixels")
    return coco_mask.decode(encoded)


def _rings(region: Region, keep_every: int) -> tuple[list[list[list[int]]], list[int]]:
    """Outer rings before the holes in them before the islands in those, so that painting in order is right."""
    contours, hierarchy = cv2.findContours(
        region.mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE, offset=(region.x, region.y)
    )
    parents = hierarchy[0, :, 3]
    depths = []
    for number in range(len(contours)):
        depth, above = 0, parents[number]
        while above >= 0:
            depth, above = depth + 1, parents[above]
        depths.append(depth)
    order = sorted(range(len(contours)), key=lambda number: depths[number])
    rings = [_thinned(contours[number].reshape(-1, 2), keep_every).tolist() for number in order]
    return rings, [place for place, number in enumerate(order) if depths[number] % 2]


def _thinned(points: np.ndarray, keep_every: int) -> np.ndarray:
    if len(points) > 25 and keep_every > 1:
        kept = points[::keep_every]
        # a ring that collapses to a line would lose the object
        if len(kept) >= 3 and (np.ptp(kept, axis=0) > 0).all():
            return kept
    return points


def decode_runs(text: str, height: int, width: int) -> np.ndarray:
    """The mask that `text` ("start length start length ...") describes.

    Args:
        text: starts are 1-based positions in the column-major image; "" is an empty mask.
        height, width: of the image in pixels.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: an odd count of numbers, something else than a whole number, or a run outside of the image.
    """
    numbers = np.array(text.split(), dtype=np.int64)
    if len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers do not make pairs of start and length")
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    if len(numbers) and (starts.min() < 0 or lengths.min() < 1 or (starts + lengths).max() > height * width):
        raise ValueError(f"a run leaves the image of {width}x{height} pixels")
    # +1 where a run begins and -1 behind its end: the running sum is the number of runs over a pixel
    steps = np.zeros(height * width + 1, np.int32)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + lengths, -1)
    return (np.cumsum(steps[:-1]) > 0).reshape(width, height).T


def encode_runs(mask: np.ndarray) -> str:
    """The run lengths of `mask`, (height, width), non-zero inside; "" for an empty one."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    return " ".join(f"{start} {length}" for start, length in zip(starts, ends - starts, strict=True))
