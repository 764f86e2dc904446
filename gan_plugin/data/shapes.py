"""Whether the mask and the box of an annotation are sound, decided before anything reaches pycocotools.

pycocotools takes whatever it is given: coordinates that are NaN or far outside make it take all memory, and run lengths
that do not add up to the picture are written beyond its end.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from operator import mul
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from . import kinds
from .findings import Kind

_NUMBERS = {int, float}
# x0, y0, x1, y1 in pixels
Extent = tuple[float, float, float, float]
Note = Callable[[Kind, str, str], None]


def examine_mask(segmentation: Any, width: int, height: int, note: Note) -> tuple[Any, Extent, float] | None:
    """Examine a mask in one of COCO's two forms.

    Args:
        segmentation: polygons or run lengths, or whatever is there instead.
        width, height: of the picture in pixels.
        note: is told kind, field and detail of each problem.

    Returns:
        The mask in the form that pycocotools takes, its extent, and its area in pixels, which is NaN of polygons; None
        if it cannot be used, and `note` knows why.
    """
    if isinstance(segmentation, dict) and segmentation:
        return _examine_runs(segmentation, width, height, note)
    if not isinstance(segmentation, list | tuple):
        note(kinds.NO_MASK if segmentation is None or segmentation == {} else kinds.NO_FORM, "segmentation", "")
    elif not segmentation or all(isinstance(part, list | tuple) and not part for part in segmentation):
        note(kinds.NO_MASK, "segmentation", "")
    else:
        return _examine_polygons(segmentation, width, height, note)
    return None


def _examine_polygons(parts: Sequence[Any], width: int, height: int, note: Note) -> tuple[Any, Extent, float] | None:
    sound, extents, flat = [], [], True
    for part in parts:
        if isinstance(part, np.ndarray):
            part = part.tolist()
        found = _examine_polygon(part, width, height)
        if not isinstance(found, Kind):
            sound.append(part)
            extents.append(found[0])
            flat = flat and found[1]
        elif found is not kinds.FEW_POINTS:
            note(found, "segmentation", "")
            return None
    if not sound:
        note(kinds.FEW_POINTS, "segmentation", "")
        return None
    if len(sound) < len(parts):
        note(kinds.FEW_POINTS_BESIDE, "segmentation", "")
    left, top, right, bottom = extents[0]
    for other in extents[1:]:
        left, top = min(left, other[0]), min(top, other[1])
        right, bottom = max(right, other[2]), max(bottom, other[3])
    if left >= width or right <= 0 or top >= height or bottom <= 0:
        note(kinds.OUTSIDE, "segmentation", "")
        return None
    # a figure of eight cancels itself out, so count its pixels
    area = area_of(sound, width, height) if flat else math.nan
    return sound, (left, top, right, bottom), area


def _examine_polygon(part: Any, width: int, height: int) -> tuple[Extent, bool] | Kind:
    """The extent of a polygon and whether it may be without area, or what is wrong with it."""
    if not isinstance(part, list | tuple):
        return kinds.NESTED
    if not set(map(type, part)) <= _NUMBERS and not all(map(is_number, part)):
        return kinds.NESTED if any(isinstance(value, list | tuple | np.ndarray) for value in part) else kinds.NO_NUMBER
    if not _is_finite_sum(part):
        return kinds.NO_NUMBER
    if len(part) % 2:
        return kinds.ODD
    if len(part) < 6:
        return kinds.FEW_POINTS
    xs, ys = list(part[::2]), list(part[1::2])
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    if not (-width <= left and right <= 2 * width and -height <= top and bottom <= 2 * height):
        return kinds.FAR
    # three points that are not in line are enough; only if these are, all of them are looked at
    x, y, second, third = xs[0], ys[0], len(xs) // 3, 2 * len(xs) // 3
    flat = (xs[second] - x) * (ys[third] - y) == (xs[third] - x) * (ys[second] - y) and not _signed_area(xs, ys)
    return (left, top, right, bottom), flat


def _signed_area(xs: list[float], ys: list[float]) -> float:
    """Twice the area of a polygon by the shoelace formula."""
    return sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, xs[1:] + xs[:1], ys))


def _examine_runs(runs: dict, width: int, height: int, note: Note) -> tuple[Any, Extent, float] | None:
    size = runs.get("size")
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(is_number(side) for side in size)):
        note(kinds.NO_FORM, "segmentation", "")
        return None
    if tuple(size) != (height, width):
        note(kinds.RUNS_SIZE, "segmentation", f" ({size[1]}x{size[0]} for {width}x{height})")
        return None
    counts = run_lengths(runs.get("counts"))
    if counts is None or counts.sum() != width * height:
        note(kinds.RUNS_BROKEN, "segmentation", "")
        return None
    if any(type(side) is not int for side in size):
        note(kinds.RUNS_SIZE_TYPE, "segmentation", "")
        runs["size"] = [height, width]
    ends = counts.cumsum()
    used = np.flatnonzero(counts[1::2]) * 2 + 1
    if not len(used):
        note(kinds.EMPTY, "segmentation", "")
        return None
    first, last = ends[used - 1], ends[used] - 1
    inside = first // height == last // height
    top = first % height if inside.all() else np.where(inside, first % height, 0)
    bottom = last % height if inside.all() else np.where(inside, last % height, height - 1)
    left, right = float(first[0] // height), float(last[-1] // height + 1)
    return runs, (left, float(top.min()), right, float(bottom.max() + 1)), float(counts[1::2].sum())


def run_lengths(counts: Any) -> np.ndarray | None:
    """The lengths (int64) that a `counts` of COCO holds, as a list or in its compressed form; None if it is neither."""
    if isinstance(counts, list):
        if not set(map(type, counts)) <= {int} or not counts or min(counts) < 0 or max(counts) > 2**40:
            return None
        return np.array(counts, np.int64)
    if isinstance(counts, str):
        counts = counts.encode("utf-8", "replace")
    if not isinstance(counts, bytes) or not counts:
        return None
    # groups of five bits, the least first; 32 says that another one follows, 16 in the last one is the sign
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    ends = np.flatnonzero(digits < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        return None
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((digits & 31) << shifts, starts)
    values -= ((digits[ends] >> 4) & 1) << (5 * lengths)
    # from the fourth on each is the difference to the last but one
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values if values.min() >= 0 else None


def examine_box(box: Any, extent: Extent | None, width: int, height: int, note: Note) -> list[float] | None:
    """Examine a box [x, y, width, height] in pixels.

    Args:
        box: or whatever is there instead.
        extent: of a sound mask, else None.
        width, height: of the picture in pixels.
        note: is told kind, field and detail of each problem.

    Returns:
        The box, which is the mask's where there is none; None if it cannot be used, and `note` knows why.
    """
    made = None if extent is None else [extent[0], extent[1], extent[2] - extent[0], extent[3] - extent[1]]
    if box is None or isinstance(box, list) and not box:
        note(kinds.BOX_MADE if made else kinds.NO_BOX, "bbox", "")
        return made
    plain = isinstance(box, list) and len(box) == 4 and set(map(type, box)) <= _NUMBERS and _is_finite_sum(box)
    if not plain and not (isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))):
        note(kinds.BOX_FORM, "bbox", f" ({short(box)})")
        return None
    x, y, w, h = box
    fault = kinds.BOX_NEGATIVE if w < 0 or h < 0 else _fault_of_box(x, y, w, h, extent, width, height)
    if fault is not None:
        note(fault, "bbox", f" ({short(box)})")
        return None
    if w > 0 and h > 0:
        return box
    if made and made[2] > 0 and made[3] > 0:
        note(kinds.BOX_MADE, "bbox", "")
        return made
    note(kinds.FLAT, "bbox", "")
    return box


def _fault_of_box(
    x: float, y: float, w: float, h: float, extent: Extent | None, width: int, height: int
) -> Kind | None:
    if extent is not None:
        left, top, right, bottom = extent
        off = max(abs(x - left), abs(y - top))
        if off <= 1 and max(abs(w - right), abs(h - bottom)) <= 1 < max(abs(x + w - right), abs(y + h - bottom)):
            return kinds.BOX_CORNERS
        across = min(x + w, right) - max(x, left)
        down = min(y + h, bottom) - max(y, top)
        # a box of an object that is partly hidden may be larger than what is seen of it, but not beside it
        if w > 0 and h > 0 and (2 * across < right - left - 2 or 2 * down < bottom - top - 2):
            return kinds.BOX_ELSEWHERE
    if x < -width or y < -height or x + w > 2 * width or y + h > 2 * height:
        return kinds.FAR
    return kinds.OUTSIDE if x >= width or y >= height or x + w < 0 or y + h < 0 else None


def area_of(mask: Any, width: int, height: int) -> float:
    """The pixels of a sound mask; overlapping polygons of it count once."""
    if isinstance(mask, list):
        return float(mask_util.area(mask_util.merge(mask_util.frPyObjects(mask, height, width))))
    counts = run_lengths(mask["counts"])
    return math.nan if counts is None else float(counts[1::2].sum())


def decode_mask(mask: Any, width: int, height: int) -> np.ndarray:
    """The pixels of a sound mask in one of COCO's forms, (height, width) bool."""
    if isinstance(mask, list):
        runs = mask_util.merge(mask_util.frPyObjects(mask, height, width))
    else:
        runs = mask_util.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask
    return mask_util.decode(runs).astype(bool)


def is_number(value: Any) -> bool:
    """Whether it is a number, which a truth value is not."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _is_finite_sum(numbers: Sequence[float]) -> bool:
    """Whether all `numbers` are finite; the sum of those that are is finite, too, unless they are huge."""
    try:
        return -math.inf < sum(numbers) < math.inf
    except OverflowError:
        # whole numbers of JSON may be too large for a float, but they are none the less far away
        return all(map(is_finite, numbers))


def is_finite(value: Any) -> bool:
    """Whether it is a finite number; whole numbers of JSON may be too large for a float."""
    return is_number(value) and -math.inf < value < math.inf


def short(value: Any) -> str:
    """`value` as it is written, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(value: Any) -> int | None:
    """`value` as a whole number, if it is one or was written as 3.0 or "3"; else None."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip().lstrip("-").isascii() and value.strip().lstrip("-").isdigit():
        return int(value) if len(value) < 20 else None
    return None
