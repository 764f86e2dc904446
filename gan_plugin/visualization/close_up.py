"""One object from near: truth, two predictions, and where each is right and wrong, pixel by pixel."""

from collections.abc import Mapping

import cv2
import numpy as np

from . import panels
from .embed import photo
from .panels import AGREEMENT, INVENTED, MISSED, OUTLINE_LEGEND

_TILE = 240
# around the object, as a share of its longer side
_MARGIN = 0.2
_LEAST_SIDE = 24
_EMPTY = 128


def close_up(
    pixels: np.ndarray, truth: np.ndarray, predictions: Mapping[str, np.ndarray | None]
) -> list[dict[str, str]]:
    """Square pictures of the same window: image, truth, each prediction, the difference of each to the truth.

    Args:
        pixels: (H, W, 3) uint8 RGB, the whole image.
        truth: (H, W) bool.
        predictions: who -> the mask (H, W), or None for a miss.

    Returns:
        2 + 2 * len(predictions) embedded pictures.
    """
    masks = {who: np.zeros_like(truth) if mask is None else mask for who, mask in predictions.items()}
    rows, columns = _window(np.any([truth, *masks.values()], axis=0))
    image = _fitted(pixels[rows, columns])
    tiles = [
        photo(image, "Close-up of the image.", "image"),
        photo(_covered(image, truth[rows, columns], "truth"), "The same with the annotated mask.", "truth"),
    ]
    for who, mask in masks.items():
        missed = predictions[who] is None
        drawn = _covered(image, mask[rows, columns], "prediction")
        tiles.append(
            photo(drawn, f"The same with the mask of {who}.", f"{who}: nothing found" if missed else f"{who}: its mask")
        )
    for who, mask in masks.items():
        drawn = panels.draw_difference(image, _fitted(right_and_wrong(truth, mask)[rows, columns]))
        tiles.append(photo(drawn, f"The same, mask of {who} against the truth.", f"{who}: difference"))
    return tiles


def outlined(pixels: np.ndarray, first: np.ndarray | None, second: np.ndarray | None, side: int) -> np.ndarray:
    """A square (side, side, 3) around an object, with the outlines of two masks of it in the colours of OUTLINE_LEGEND.

    Args:
        pixels: (H, W, 3) uint8 RGB, the whole image.
        first: (H, W) bool, drawn like the truth; None for nothing.
        second: likewise, drawn thinner, like a prediction.
        side: in pixels.
    """
    masks = [np.zeros(pixels.shape[:2], bool) if mask is None else mask for mask in (first, second)]
    rows, columns = _window(masks[0] | masks[1])
    picture = _fitted(pixels[rows, columns], side)
    for mask, colour, width in zip(masks, OUTLINE_LEGEND.values(), (4, 2), strict=True):
        enlarged = _fitted(mask[rows, columns], side)
        for shade, thickness in (((0, 0, 0), width + 2), (colour, width)):
            panels.draw_outline(picture, enlarged, shade, thickness)
    return picture


def right_and_wrong(truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8: AGREEMENT (both cover the pixel), MISSED (the truth alone), INVENTED (the mask alone) or 0."""
    cases = [truth & mask, truth & ~mask, mask & ~truth]
    return np.select(cases, [AGREEMENT, MISSED, INVENTED], 0).astype(np.uint8)


def _window(area: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a square around `area`, as far as the image goes."""
    x, y, width, height = cv2.boundingRect(area.astype(np.uint8))
    side = max(_LEAST_SIDE, round((1 + 2 * _MARGIN) * max(width, height)))
    slices = []
    for start, length, limit in ((y, height, area.shape[0]), (x, width, area.shape[1])):
        first = max(0, min(start + (length - side) // 2, limit - side))
        slices.append(slice(first, min(limit, first + side)))
    return slices[0], slices[1]


def _fitted(picture: np.ndarray, side: int = _TILE) -> np.ndarray:
    """Enlarged to a square tile, with grey (or 0, for a map) beside what is not square."""
    scaled = panels.scale(picture, side)
    height, width = scaled.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    tile = np.full((side, side, *scaled.shape[2:]), _EMPTY if scaled.ndim == 3 else 0, scaled.dtype)
    tile[top : top + height, left : left + width] = scaled
    return tile


def _covered(image: np.ndarray, mask: np.ndarray, which: str) -> np.ndarray:
    return panels.draw_instances(image, [_fitted(mask)], [""], [OUTLINE_LEGEND[which]])
