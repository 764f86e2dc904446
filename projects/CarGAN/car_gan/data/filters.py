"""Which cars are good enough: one rule a reason, asked in the order of REASONS."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from fvcore.common.config import CfgNode

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
