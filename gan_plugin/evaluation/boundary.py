"""How well two outlines agree: Boundary IoU (Cheng et al. 2021, arXiv:2103.16562)."""

import math

import cv2
import numpy as np

# the width of the band as a share of the image's diagonal (section 5.1)
DILATION_RATIO = 0.02


def boundary_iou(first: np.ndarray, second: np.ndarray, ratio: float = DILATION_RATIO) -> float:
    """IoU in [0, 1] of the bands inside two outlines (section 4); 0 for two empty masks.

    Boundary AP takes the smaller of this and the mask IoU, since it is 1 for masks that differ in their core alone.

    Args:
        first, second: (H, W) bool masks on the image's own grid.
        ratio: as for `boundary_band`.
    """
    one, other = boundary_band(first, ratio), boundary_band(second, ratio)
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def boundary_band(mask: np.ndarray, ratio: float = DILATION_RATIO) -> np.ndarray:
    """(H, W) bool, the pixels of `mask` that are close to its outline, which runs along the image's border as well.

    Args:
        mask: (H, W) bool.
        ratio: so many diagonals of the image, rounded and at least one pixel, is close.
    """
    pixels = max(1, round(ratio * math.hypot(*mask.shape)))
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    # nothing outside of the object's box can matter, and images are much larger than that
    own = mask[y : y + height, x : x + width].astype(np.uint8)
    core = cv2.erode(np.pad(own, 1), np.ones((3, 3), np.uint8), iterations=pixels)[1:-1, 1:-1]
    band = np.zeros(mask.shape, bool)
    band[y : y + height, x : x + width] = own > core
    return band
