"""Mini-masks: an instance's mask cut out by its box and squeezed into a small square (slides, section 1)."""

from collections.abc import Sequence

import cv2
import numpy as np

SIDE = 56


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tightest (x0, y0, x1, y1) around a (H, W) mask in pixels, x1 and y1 exclusive; zeros for an empty mask."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + w, y + h


def encode(mask: np.ndarray, box: Sequence[int] | None = None, side: int = SIDE) -> np.ndarray:
    """Cut `mask` out by its box and squeeze it into a square.

    Args:
        mask: (H, W) bool.
        box: x0, y0, x1, y1; by default the mask's own.
        side: of the square in pixels.

    Returns:
        (side, side) bool: whether at least half of what falls on a pixel is inside. All False for an empty box.
    """
    x0, y0, x1, y1 = box if box is not None else mask_box(mask)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((side, side), bool)
    cut = mask[y0:y1, x0:x1].astype(np.float32)
    # areas are averaged where they shrink; interpolation alone would look at four pixels and lose thin parts
    shrinks = cut.shape[0] > side or cut.shape[1] > side
    resized = cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized >= 0.5


def decode(mini: np.ndarray, box: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `encode`, up to what the square could not hold.

    Args:
        mini: (side, side) bool.
        box: x0, y0, x1, y1 within the image.
        shape: height and width of the image.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(shape, bool)
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return mask
    size = (x1 - x0, y1 - y0)
    mask[y0:y1, x0:x1] = cv2.resize(mini.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    return mask


def round_trip(mask: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(H, W) bool: what is left of a mask after `encode` and `decode`."""
    box = mask_box(mask)
    return decode(encode(mask, box, side), box, (mask.shape[0], mask.shape[1]))
