"""From outlines to a picture: textures, shades, shadows, light and noise."""

from typing import Any

import cv2
import numpy as np

from .scene import Element
from .silhouettes import Rng

_SUPERSAMPLING = 2
_FIXED_POINT_BITS = 4
_CAMOUFLAGE = 0.2  # share of objects in nearly the colours behind them, so that a boundary can be wrong


def render(elements: list[Element], width: int, height: int, rng: Rng) -> np.ndarray:
    """Paint `elements` in order.

    Colours and textures come from one distribution whatever the label, so that only shape tells the classes apart.

    Returns:
        (height, width, 3) uint8, RGB.
    """
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.float32)
    for element in elements:
        if element.visible:
            _paint(canvas, element, rng)
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return _photograph(picture, rng)


def _paint(canvas: np.ndarray, element: Element, rng: Rng) -> None:
    if element.standing:
        _shadow(canvas, element.outline, rng)
    mask, (top, left) = _mask(canvas, element.outline)
    if not mask.any():
        return
    target = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    fill = _texture(rng, mask.shape)
    if element.standing and rng.random() < _CAMOUFLAGE:
        behind, own = (cv2.mean(part, mask.view(np.uint8))[:3] for part in (target, fill))
        fill += np.float32(np.subtract(behind, own) + rng.normal(0, 12, 3))
    np.copyto(target, fill, where=mask[..., None])
    # darker or brighter with equal chance: a shade must not become a colour cue
    factor = rng.choice([rng.uniform(0.45, 0.75), rng.uniform(1.3, 1.7)])
    for detail in element.details:
        part, (y, x) = _mask(canvas, detail)
        area = canvas[y : y + part.shape[0], x : x + part.shape[1]]
        area[part] = np.clip(area[part] * factor, 0, 255)


def _mask(canvas: np.ndarray, outline: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The outline as a boolean mask over its bounding box, and that box's top left corner on the canvas."""
    points = outline * _SUPERSAMPLING
    low = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, canvas.shape[1::-1])
    shape = np.maximum(high - low, 0)
    mask = np.zeros((shape[1], shape[0]), np.uint8)
    if mask.size:
        fixed = np.round((points - low) * 2**_FIXED_POINT_BITS).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1, shift=_FIXED_POINT_BITS)
    return mask.astype(bool), (int(low[1]), int(low[0]))


def _shadow(canvas: np.ndarray, outline: np.ndarray, rng: Rng) -> None:
    (x0, y0), (x1, y1) = outline.min(axis=0), outline.max(axis=0)
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    centre = np.array([(x0 + x1) / 2 + rng.uniform(-0.2, 0.2) * (x1 - x0), y1])
    radii = np.array([(x1 - x0) * 0.6, max(1.0, (y1 - y0) * 0.06)])
    mask, (top, left) = _mask(canvas, centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1))
    area = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    area[mask] *= rng.uniform(0.55, 0.8)


def _colour(rng: Rng) -> np.ndarray:
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0.05, 0.6), rng.uniform(0.2, 0.9)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _texture(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in [0, 255]: two colours mixed by a pattern, with a gradient from top to bottom."""
    first, second = _colour(rng), _colour(rng)
    step = np.float32((second - first) * rng.uniform(0.15, 0.6))
    fill = _pattern(rng, shape)[..., None] * step
    fill += first
    fill *= np.linspace(rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15), shape[0], dtype=np.float32)[:, None, None]
    return np.clip(fill, 0, 255, out=fill)


def _pattern(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 in [0, 1]: blotches, stripes, checks or nothing, and some grain."""
    period, angle = rng.uniform(5, 24), rng.uniform(0, np.pi)
    kind = rng.choice(["plain", "blotches", "stripes", "checks"], p=[0.3, 0.4, 0.18, 0.12])
    pattern = rng.standard_normal(shape, dtype=np.float32)
    pattern *= 0.12
    if kind == "blotches":
        cells = (max(2, int(shape[0] / period)), max(2, int(shape[1] / period)))
        blotches: Any = cv2.resize(rng.random(cells, dtype=np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
        pattern += blotches
    elif kind == "plain":
        pattern += 0.5
    else:
        bright = _waves(shape, period, angle)
        pattern += bright if kind == "stripes" else bright ^ _waves(shape, period, angle + np.pi / 2)
    return np.clip(pattern, 0, 1, out=pattern)


def _waves(shape: tuple[int, int], period: float, angle: float) -> np.ndarray:
    """(H, W) of bool, true on every other half of `period` pixels along `angle`."""
    rows, columns = (np.arange(side, dtype=np.float32) for side in shape)
    along = np.float32(np.sin(angle) * 2 / period) * rows[:, None] + np.float32(np.cos(angle) * 2 / period) * columns
    return np.floor(along).astype(np.int32) % 2 == 0


def _photograph(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Uneven light, a soft lens and sensor noise."""
    height, width = picture.shape[:2]
    light = np.linspace(rng.uniform(0.8, 1.15), rng.uniform(0.8, 1.15), width, dtype=np.float32)
    picture = picture * light[None, :, None]
    noise = rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(rng.uniform(2, 6))
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.35, 0.7)) + noise
    return np.clip(picture, 0, 255).astype(np.uint8)
