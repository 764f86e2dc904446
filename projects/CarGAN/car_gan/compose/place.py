"""Where a new car can stand, how large it is there, and what is in front of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from fvcore.common.config import CfgNode

from car_gan.scenes.scene import Box, Scene, SceneObject

from .ground import Ground
from .samples import Sprite

# how deep a car is on the ground, seen from the camera, as a share of its height in the picture
_FOOTPRINT = 0.3
# what of the base must be on the road: without the corners of the bumpers
_BASE = 0.8


@dataclass(frozen=True)
class Placement:
    """A car that has its place.

    Attributes:
        sprite: scaled to the picture.
        corner: column and row of the sprite's first pixel; the sprite lies inside of the picture.
        base: the row on which the car stands, in pixels.
        hidden: (h, w) bool over the sprite, where nearer objects are.
    """

    sprite: Sprite
    corner: tuple[int, int]
    base: float
    hidden: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """(h, w) bool: the car's pixels that nothing hides, which are its mask."""
        return (self.sprite.alpha >= 0.5) & ~self.hidden


def find_place(
    scene: Scene, sprite: Sprite, ground: Ground, horizon: float, rules: CfgNode, rng: np.random.Generator
) -> Placement | None:
    """Try places until one is plausible; None if none of PLACE.TRIES is.

    Args:
        scene: with the cars that were added before.
        sprite: at its own size.
        ground: the size of a car at each place.
        horizon: the row of the scene's horizon in pixels.
        rules: the node PLACE of the options.
        rng: decides all.
    """
    for _ in range(rules.TRIES):
        placement = _try(scene, sprite, ground, horizon, rules, rng)
        if placement is not None and _allowed(scene, placement, rules):
            return placement
    return None


def _try(
    scene: Scene, sprite: Sprite, ground: Ground, horizon: float, rules: CfgNode, rng: np.random.Generator
) -> Placement | None:
    rows, columns = scene.shape
    one = int(rng.integers(len(ground.depths)))
    depth = ground.depths[one] * rows * float(np.exp(rng.normal(0, 0.05)))
    base = horizon + depth
    tall = ground.slope * depth * float(np.exp(np.clip(rng.normal(0, ground.spread), -0.3, 0.3)))
    height, width = sprite.alpha.shape
    scale = tall / height
    size = (round(width * scale), round(tall))
    if tall < rules.MIN_HEIGHT or scale > rules.MAX_ENLARGE or size[0] < 2 or base > rows:
        return None
    centre = (ground.columns[one] + rng.normal(0, 0.1)) * columns if rng.random() < 0.5 else rng.uniform(0, columns)
    x, y = round(centre - size[0] / 2), round(base) - size[1]
    if x < 0 or y < 0 or x + size[0] > columns:
        return None
    scaled = scale_sprite(sprite, size)
    hidden = np.zeros(size[::-1], bool)
    for thing in nearer(scene.objects, base):
        hidden |= thing.mask_within((x, y), size[::-1])
    return Placement(scaled, (x, y), base, hidden)


def scale_sprite(sprite: Sprite, size: tuple[int, int]) -> Sprite:
    """A sprite of `size` (width, height); colours are weighted by alpha, or a rim of the key would creep in."""
    way = cv2.INTER_AREA if size[1] < sprite.alpha.shape[0] else cv2.INTER_LINEAR
    alpha = cv2.resize(sprite.alpha, size, interpolation=way)
    weighted = cv2.resize(sprite.colours * sprite.alpha[..., None], size, interpolation=way)
    return Sprite(sprite.name, weighted / np.maximum(alpha, 1e-3)[..., None], alpha)


def nearer(objects: Sequence[SceneObject], base: float) -> list[SceneObject]:
    """The objects in front of a car that stands on row `base`: those that stand lower in the picture."""
    return [thing for thing in objects if not thing.background and thing.area and thing.ground > base]


def _allowed(scene: Scene, placement: Placement, rules: CfgNode) -> bool:
    body, seen = placement.sprite.alpha >= 0.5, placement.seen
    if not body.any() or seen.sum() < max(1, rules.MIN_VISIBLE * body.sum()):
        return False
    (x, y), (height, width) = placement.corner, seen.shape
    if scene.road is not None and not _on_road(scene.road, placement, rules.ON_ROAD):
        return False
    own = _footprint((x, y, x + width, y + height), placement.base)
    for thing in scene.objects:
        if thing.background or not thing.area:
            continue
        if _overlap(own, _footprint(thing.outline, thing.ground)) > rules.MAX_OVERLAP:
            return False
        covered = int((thing.mask_within((x, y), (height, width)) & seen).sum())
        if covered > rules.MAX_HIDE * thing.area:
            return False
    return True


def _on_road(road: np.ndarray, placement: Placement, least: float) -> bool:
    (x, _), width = placement.corner, placement.hidden.shape[1]
    row = min(road.shape[0] - 1, round(placement.base))
    margin = round(width * (1 - _BASE) / 2)
    columns = slice(x + margin, max(x + margin + 1, x + width - margin))
    # behind a nearer object the road is not seen, but the car is not either
    fine = road[row, columns] | placement.hidden[-1, margin : max(margin + 1, width - margin)]
    return float(fine.mean()) >= least


def _footprint(box: Box | tuple[int, int, int, int], base: float) -> Box:
    return box[0], base - _FOOTPRINT * (box[3] - box[1]), box[2], base


def _overlap(a: Box, b: Box) -> float:
    """The shared area of two boxes as a share of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0.0, width) * max(0.0, height) / smaller if smaller > 0 else 0.0
