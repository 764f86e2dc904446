"""Pictures of binary masks, in whatever form they were saved."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gan_plugin.data.pictures import read_upright
from gan_plugin.errors import UserError

# grey values from 0 to 255: what is darker is surely outside, what is as bright surely inside, the rest are edges
_OUTSIDE, _INSIDE, _HALF = 64, 192, 128
# by how much colours inside may differ, at equal brightness
_HUE = 64
# a mask with no more values than these may be a map of labels, and has hardly a pixel amidst others of the same grey
_FEW_VALUES, _FEW_FLAT = 8, 8
_MOST_FLAT, _MOST_GREY = 0.05, 0.5


def read_mask(path: str | Path) -> np.ndarray:
    """The mask at `path`, (H, W) bool, turned as its EXIF orientation says.

    It may have 1, 8, 16 or 32 bits a value or floats, black (0) outside and one other value inside, or with grey edges,
    which are cut at the half; a palette or a colour, black outside; or it may be transparent outside.

    Raises:
        UserError: the file cannot be read, or what is inside is not clear.
    """
    try:
        return mask_of(read_upright(path))
    except ValueError as error:
        raise UserError(
            f"The mask {path} {error}, so that it is not clear what is inside; save it with 0 outside and 255 inside."
        ) from error


def mask_of(image: Image.Image) -> np.ndarray:
    """As `read_mask`, of a picture that is open.

    Raises:
        ValueError: what is inside is not clear; the text says what the mask has.
    """
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return _inside(_brightness(image))
    pixels = np.array(image.convert("RGBA"))
    if np.ptp(pixels[..., 3]) == 0 and pixels[0, 0, 3]:
        return _inside(_brightness(image.convert("RGB")))
    visible = _inside(pixels[..., 3])
    if not visible.any() or np.ptp(pixels[visible][:, :3], axis=0).max() <= _HUE:
        return visible
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


def _inside(values: np.ndarray) -> np.ndarray:
    found = np.unique(values)
    listed = f"has the values {', '.join(f'{value:g}' for value in found[:_FEW_VALUES].tolist())}"
    if len(found) > _FEW_VALUES:
        listed = f"has {len(found)} values from {found[0]:g} to {found[-1]:g}"
    if len(found) == 1 and found[0] in (0, 1, 255, 65535) or len(found) == 2 and found[0] == 0 < found[1]:
        return values > 0
    largest = 65535 if found[-1] > 255 else 1 if found[-1] <= 1 else 255
    if not (found[0] >= 0 and found[0] < largest * _OUTSIDE / 255 and largest * _INSIDE / 255 <= found[-1] <= largest):
        raise ValueError(listed)
    grey = np.rint(values * (255 / largest)).astype(np.uint8)
    if _flat(grey, len(found)) or ((grey >= _OUTSIDE) & (grey < _INSIDE)).mean() > _MOST_GREY:
        raise ValueError(listed)
    return grey >= _HALF


def _flat(grey: np.ndarray, values: int) -> bool:
    """Whether there are areas between black and white, as in a map of labels; edges have slopes."""
    square = np.ones((3, 3), np.uint8)
    flat = (cv2.dilate(grey, square) == cv2.erode(grey, square)) & (grey > 0) & (grey < 255)
    return bool(flat.sum() > (_FEW_FLAT if values <= _FEW_VALUES else _MOST_FLAT * (grey > 0).sum()))
