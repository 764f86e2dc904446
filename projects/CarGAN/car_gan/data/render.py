"""A car as a picture of its own, in the forms that the source document tried, and one more."""

import math

import numpy as np

from car_gan.colour import Colour
from car_gan.scenes.scene import Box

# mode -> what it is; (i) to (iv) are the experiments of the source document's section 2
MODES = {
    "green_crop": "(iv) the final one: the crop, RGB, everything outside the car in the key colour",
    "rgba_crop": "the crop with the car's mask as its alpha channel; without it the same as green_crop",
    "green_full": "(ii) the whole image, RGB, everything outside the car in the key colour",
    "rgba_full": "(i) the whole image, RGBA, everything outside the car transparent",
    "context": "(iii) the crop with its surroundings kept",
}


def green_sample(image: np.ndarray, mask: np.ndarray, key: Colour) -> np.ndarray:
    """The image with every pixel outside `mask` in exactly the key colour: (H, W, 3) uint8."""
    return np.where(mask[..., None], image, np.asarray(key, np.uint8))


def draw_sample(image: np.ndarray, mask: np.ndarray, box: Box, mode: str, key: Colour) -> np.ndarray:
    """The picture of one car.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool.
        box: the crop in whole pixels; what of it is outside of the image becomes the key colour.
        mode: a key of MODES.
        key: the key colour.

    Returns:
        (h, w, 3) uint8, or (h, w, 4) in the RGBA modes, which have the key colour under the transparent pixels.
    """
    pixels = image if mode == "context" else green_sample(image, mask, key)
    if mode.startswith("rgba"):
        pixels = np.concatenate([pixels, mask[..., None].astype(np.uint8) * 255], axis=-1)
    return pixels if mode.endswith("full") else cut(pixels, box, (*key, 0))


def cut(pixels: np.ndarray, box: Box, outside: tuple[int, ...]) -> np.ndarray:
    """`pixels` (H, W, C) within `box`, which is in whole pixels and may reach beyond them; `outside` is (>= C,)."""
    x0, y0, x1, y1 = map(int, box)
    height, width, channels = pixels.shape
    part = np.empty((y1 - y0, x1 - x0, channels), pixels.dtype)
    part[:] = outside[:channels]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left < right and top < bottom:
        part[top - y0 : bottom - y0, left - x0 : right - x0] = pixels[top:bottom, left:right]
    return part


def crop_box(box: Box, pad: float, square: bool) -> Box:
    """The crop around `box`: widened, made square about its middle, and rounded outward to whole pixels.

    Args:
        box: predicted or true.
        pad: on each side, as a share of its longer side.
        square: whether to widen the shorter side to the longer one.
    """
    x0, y0, x1, y1 = box
    margin = pad * max(x1 - x0, y1 - y0)
    low_x, low_y = math.floor(x0 - margin), math.floor(y0 - margin)
    width, height = max(1, math.ceil(x1 + margin) - low_x), max(1, math.ceil(y1 + margin) - low_y)
    if square:
        side = max(width, height)
        low_x, low_y, width, height = low_x - (side - width) // 2, low_y - (side - height) // 2, side, side
    return float(low_x), float(low_y), float(low_x + width), float(low_y + height)
