"""One sheet of toy steel: its surface and its defects."""

import cv2
import numpy as np

from .defects import FREQUENCIES, SHAPES, Rng, apply_defect, smooth_noise

_DEFECTIVE = 0.53  # Severstal: 6,666 of 12,568
_BLACK_MARGIN = 0.15
_LEAST_PIXELS = 12
_TRIES = 50


def make_sheet(
    rng: Rng, height: int, width: int, wanted: int | None = None
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """A picture, (height, width, 3) uint8 with three equal channels, and for each class its mask or None.

    Args:
        rng: all draws come from it.
        height, width: in pixels.
        wanted: the class that the sheet has a defect of; None leaves it to the draws.
    """
    steel, margin = _surface(rng, height, width)
    masks: list[np.ndarray | None] = [None] * len(SHAPES)
    if wanted is not None:
        for _ in range(_TRIES):
            if masks[wanted] is None:
                _add_defect(wanted, steel, margin, masks, rng)
    elif rng.random() < _DEFECTIVE:
        kinds = [int(rng.choice(len(SHAPES), p=FREQUENCIES))]
        if rng.random() < 0.1:
            kinds.append(int(rng.choice(len(SHAPES), p=FREQUENCIES)))
        for kind in kinds:
            for _ in range(int(rng.integers(1, 4))):
                _add_defect(kind, steel, margin, masks, rng)
    steel = cv2.GaussianBlur(steel, (0, 0), 0.6) + rng.normal(0, 2.0, steel.shape)
    steel[margin] = np.abs(rng.normal(0, 2.0, int(margin.sum())))
    grey = np.clip(steel, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), masks


def _surface(rng: Rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Brightness, (height, width) float32 in about [40, 200], and the black margin beside the sheet."""
    steel = np.full((height, width), rng.uniform(65, 165), np.float32)
    steel *= 1 + 0.10 * smooth_noise(rng, height, width, height, 350)  # lamps
    steel *= 1 + 0.08 * smooth_noise(rng, height, width, 40, 500)  # bands along the direction of rolling
    steel *= 1 + 0.05 * smooth_noise(rng, height, width, 2, 60)  # fine marks of the rolls
    steel *= 1 + 0.03 * rng.standard_normal((height, width), dtype=np.float32)
    margin = np.zeros((height, width), bool)
    if rng.random() < _BLACK_MARGIN:
        edge = int(rng.uniform(0.05, 0.35) * width)
        margin[:, :edge] = True
        if rng.random() < 0.5:
            margin[:] = margin[:, ::-1].copy()
    return steel, margin


def _add_defect(kind: int, steel: np.ndarray, margin: np.ndarray, masks: list[np.ndarray | None], rng: Rng) -> None:
    taken = margin.copy()
    for other in masks:
        if other is not None:
            # a gap, so that two objects never become one
            taken |= cv2.dilate(other.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    mask = SHAPES[kind](rng, *steel.shape) & ~taken
    if mask.sum() < _LEAST_PIXELS:
        return
    apply_defect(kind, steel, mask, rng)
    before = masks[kind]
    masks[kind] = mask if before is None else before | mask
