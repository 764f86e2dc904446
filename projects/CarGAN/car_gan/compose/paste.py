"""A placed car into the picture, and out of the masks of what it hides."""

from dataclasses import replace

import cv2
import numpy as np
from fvcore.common.config import CfgNode

from car_gan.scenes.scene import Scene, SceneObject, tight

from .place import Placement, nearer


def paste(
    image: np.ndarray, scene: Scene, placement: Placement, label: str, look: CfgNode, gain: float = 1.0
) -> tuple[np.ndarray, Scene]:
    """Add a car.

    Args:
        image: (H, W, 3) float32 in [0, 255].
        scene: its annotation.
        placement: the car and its place.
        label: its class.
        look: the node LOOK of the options.
        gain: factor of the car's brightness.

    Returns:
        The picture with the car, and its annotation: the car has the pixels where its alpha is 1/2 or more and nothing
        nearer is, and every other object loses them. `image` and `scene` stay as they are.
    """
    (x, y), seen = placement.corner, placement.seen
    height, width = seen.shape
    picture = _shade(image, scene, placement, look.SHADOW) if look.SHADOW else image.copy()
    window = picture[y : y + height, x : x + width]
    share = np.where(placement.hidden, 0, placement.sprite.alpha)[..., None]
    window[:] = window * (1 - share) + np.clip(placement.sprite.colours * gain, 0, 255) * share
    objects = [without(thing, seen, placement.corner) for thing in scene.objects]
    mask, corner = tight(seen, placement.corner)
    body, start = tight(placement.sprite.alpha >= 0.5, placement.corner)
    outline = (float(start[0]), float(start[1]), float(start[0] + body.shape[1]), float(start[1] + body.shape[0]))
    number = sum(thing.label == label and not thing.group for thing in scene.objects)
    added = SceneObject(number, label, mask, corner, int(body.sum()), outline, synthetic=True)
    return picture, replace(scene, objects=[*objects, added])


def without(thing: SceneObject, gone: np.ndarray, corner: tuple[int, int]) -> SceneObject:
    """`thing` without the pixels `gone` (h, w), which begin at `corner` (x, y); its mask may become empty."""
    x0, y0, x1, y1 = map(int, thing.box)
    (x, y), (height, width) = corner, gone.shape
    left, top, right, bottom = max(x0, x), max(y0, y), min(x1, x + width), min(y1, y + height)
    if left >= right or top >= bottom:
        return thing
    mask = thing.mask.copy()
    mask[top - y0 : bottom - y0, left - x0 : right - x0] &= ~gone[top - y : bottom - y, left - x : right - x]
    part, start = tight(mask, thing.corner)
    return replace(thing, mask=part, corner=start)


def _shade(image: np.ndarray, scene: Scene, placement: Placement, darkness: float) -> np.ndarray:
    """Darken the ground under the car, softly, but nothing that is in front of it."""
    (x, _), (height, width) = placement.corner, placement.seen.shape
    shade = np.zeros(image.shape[:2], np.float32)
    centre = (round(x + width / 2), round(placement.base - 0.03 * height))
    axes = (max(1, round(0.5 * width)), max(1, round(0.07 * height)))
    cv2.ellipse(shade, centre, axes, 0, 0, 360, darkness, -1)
    shade = cv2.GaussianBlur(shade, (0, 0), max(0.5, 0.04 * height))
    for thing in nearer(scene.objects, placement.base):
        shade[thing.full_mask(scene.shape)] = 0
    return image * (1 - shade[..., None])
