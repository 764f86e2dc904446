"""Which cars are good enough, and how one becomes a picture of its own."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from fvcore.common.config import CfgNode

from car_gan.pictures import Colour
from car_gan.scenes.scene import Box, SceneObject

# goes into every manifest line; raise it when a rule changes
FILTER_VERSION = "1"

# reason -> what it says in a report, in the order in which they are asked
REASONS = {
    "broken": "the annotation is unusable",
    "group": "a group that was not taken apart",
    "hidden": "no pixel of it is seen",
    "visible": "too much of it is hidden (FILTER.MIN_VISIBLE)",
    "parts": "it falls into parts (FILTER.MIN_LARGEST_PART)",
    "border": "it touches the border of the image (FILTER.BORDER)",
    "area": "too few pixels (FILTER.MIN_AREA)",
    "side": "its box is too small (FILTER.MIN_SIDE)",
    "aspect": "its box is too narrow or too wide (FILTER.MIN_ASPECT, MAX_ASPECT)",
    "undetected": "the detector sees none (DETECTOR)",
    "score": "the detector is not sure enough (DETECTOR.MIN_SCORE)",
    "cut": "the crop cuts too much of it off (FILTER.MAX_CUT)",
    "sharpness": "it is blurred (FILTER.MIN_SHARPNESS)",
}
_SHARPNESS_SIDE = 64
# mode -> what it is; (i) to (iv) are the experiments of the source document's section 2
MODES = {
    "green_crop": "(iv) the final one: the crop, RGB, everything outside the car in the key colour",
    "rgba_crop": "the crop with the car's mask as its alpha channel; without it the same as green_crop",
    "green_full": "(ii) the whole image, RGB, everything outside the car in the key colour",
    "rgba_full": "(i) the whole image, RGBA, everything outside the car transparent",
    "context": "(iii) the crop with its surroundings kept",
}


@dataclass(frozen=True)
class Facts:
    """What the rules look at, and the manifest keeps."""

    visible: float
    largest_part: float
    border: int
    area: int
    width: float
    height: float

    @property
    def aspect(self) -> float:
        """Width / height of the box."""
        return self.width / self.height


def facts_of(thing: SceneObject, shape: tuple[int, int]) -> Facts:
    """The facts of an object of which at least one pixel is seen, in an image of `shape`."""
    x0, y0, x1, y1 = thing.box
    # of the outline: Cityscapes has a frame of unrated pixels, so that no mask touches the border
    left, top, right, bottom = thing.outline
    border = int(min(left, top, shape[1] - right, shape[0] - bottom))
    return Facts(thing.visible, largest_part(thing.mask), border, thing.area, x1 - x0, y1 - y0)


def drop_before_detection(facts: Facts, rules: CfgNode) -> str | None:
    """The first reason to drop a car that its annotation gives; None if there is none.

    Args:
        facts: of the car.
        rules: the node FILTER of the build's options.
    """
    checks: dict[str, Callable[[], bool]] = {
        "visible": lambda: facts.visible < rules.MIN_VISIBLE,
        "parts": lambda: facts.largest_part < rules.MIN_LARGEST_PART,
        "border": lambda: facts.border < rules.BORDER,
        "area": lambda: facts.area < rules.MIN_AREA,
        "side": lambda: min(facts.width, facts.height) < rules.MIN_SIDE,
        "aspect": lambda: facts.aspect < rules.MIN_ASPECT or 0 < rules.MAX_ASPECT < facts.aspect,
    }
    return next((reason for reason, fails in checks.items() if fails()), None)


def largest_part(mask: np.ndarray) -> float:
    """The share of a mask's pixels that its largest 8-connected part has, in (0, 1]."""
    _, _, numbers, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = numbers[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if len(areas) else 0.0


def cut_share(thing: SceneObject, box: Box) -> float:
    """The share of the object's seen pixels that lie outside of `box`, in [0, 1]."""
    x, y = thing.corner
    x0, y0, x1, y1 = (int(edge) for edge in box)
    inside = thing.mask[max(0, y0 - y) : max(0, y1 - y), max(0, x0 - x) : max(0, x1 - x)]
    return 1 - float(inside.sum()) / thing.area


def sharpness(image: np.ndarray, thing: SceneObject) -> float:
    """The variance of the Laplacian inside the car, away from its outline, at one scale for all cars.

    Args:
        image: (H, W, 3) uint8, the scene.
        thing: the car, whose longer side is scaled to 64 pixels; grey values are in [0, 1].

    Returns:
        0 for a car without an inside.
    """
    x0, y0, x1, y1 = map(int, thing.box)
    scale = _SHARPNESS_SIDE / max(x1 - x0, y1 - y0)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grey = cv2.resize(cv2.cvtColor(image[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY), size, interpolation=way) / np.float32(255)
    mask = cv2.resize(thing.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inside = cv2.erode(mask, np.ones((5, 5), np.uint8), borderValue=0).astype(bool)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[inside].var()) if inside.any() else 0.0


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
