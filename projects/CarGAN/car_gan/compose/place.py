"""Where a new car can stand, how large it is there, what is in front of it, and the car in the picture.

On a flat street seen by an upright camera, an object of height H metres that stands at picture row y has
h = (H / camera height) * (y - horizon) pixels: a line through the horizon. Slope and horizon are fitted to annotated
cars by Theil and Sen's median of slopes, which a third of wrong pairs (hidden wheels, hills) does not move far.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
from fvcore.common.config import CfgNode
from scipy import stats

from car_gan.scenes.scene import Box, Scene, SceneObject, tight
from gan_plugin.errors import UserError

from .samples import Sprite

# of a car whose height and base can be trusted
_LEAST_VISIBLE, _LEAST_HEIGHT, _MARGIN = 0.8, 8, 4
_LEAST_CARS = 8
# a scene's own horizon counts as much as the set's once it has this many cars
_WORTH = 2.0
_WIDEST_SPREAD = 0.2
# how deep a car is on the ground, seen from the camera, as a share of its height in the picture
_FOOTPRINT = 0.3
# what of the base must be on the road: without the corners of the bumpers
_BASE = 0.8


@dataclass(frozen=True)
class Ground:
    """The line, and where cars are.

    Attributes:
        slope: pixels of height for each pixel below the horizon.
        horizon: its row, as a share of the picture's height.
        spread: standard deviation of the logarithm of a car's height over the line's.
        depths: of the annotated cars their rows below the horizon, as shares of the picture's height.
        columns: of the same cars their centres, as shares of the picture's width.
        brightness: the mean of the pictures, 0 to 255.
    """

    slope: float
    horizon: float
    spread: float
    depths: list[float]
    columns: list[float]
    brightness: float

    def to_dict(self) -> dict[str, Any]:
        """As ground.json holds it; `Ground(**content)` is the inverse."""
        return asdict(self)

    def horizon_of(self, scene: Scene, label: str) -> float:
        """The row of a scene's horizon in pixels: the set's, drawn to where the scene's own cars put it."""
        height = scene.shape[0]
        own = [base - tall / self.slope for base, tall, _ in trusted(scene, label)]
        if not own:
            return self.horizon * height
        weight = len(own) / (len(own) + _WORTH)
        row = weight * float(np.median(own)) + (1 - weight) * self.horizon * height
        return float(np.clip(row, (self.horizon - 0.15) * height, (self.horizon + 0.15) * height))


def trusted(scene: Scene, label: str) -> list[tuple[float, float, float]]:
    """Base row, height and centre column in pixels of the objects of `label` that are seen well and not cut off."""
    height, width = scene.shape
    found = []
    for thing in scene.objects:
        x0, y0, x1, y1 = thing.outline
        whole = min(x0, y0, width - x1, height - y1) >= _MARGIN
        seen = thing.visible >= _LEAST_VISIBLE and y1 - y0 >= _LEAST_HEIGHT
        if thing.label == label and not thing.group and whole and seen:
            found.append((y1, y1 - y0, (x0 + x1) / 2))
    return found


def fit_ground(scenes: Sequence[Scene], brightness: float, label: str) -> Ground:
    """Fit the line to the cars of `scenes`.

    Args:
        scenes: annotations.
        brightness: the mean of their pictures, 0 to 255.
        label: the class.

    Raises:
        UserError: too few cars are seen well, or they do not grow towards the bottom.
    """
    cars = [
        (base / scene.shape[0], tall / scene.shape[0], column / scene.shape[1])
        for scene in scenes
        for base, tall, column in trusted(scene, label)
    ]
    if len(cars) < _LEAST_CARS:
        raise UserError(
            f"Only {len(cars)} whole objects '{label}' in {len(scenes)} scenes: too few to learn their size from "
            f"({_LEAST_CARS} or more); give more scenes or raise PLACE.FIT_SCENES."
        )
    bases, heights, columns = np.array(cars).T
    # "joint": the median of the residuals, where the default takes the median height, which wrong cars move
    slope, intercept, *_ = stats.theilslopes(heights, bases, method="joint")
    if slope <= 0:
        raise UserError(
            f"The objects '{label}' do not grow towards the bottom of the pictures, as on a street; use scenes "
            "that are taken by an upright camera."
        )
    horizon = -float(intercept) / float(slope)
    depths = bases - horizon
    below = depths > 0
    ratios = np.log(heights[below] / (slope * depths[below]))
    spread = min(_WIDEST_SPREAD, 1.4826 * float(np.median(np.abs(ratios - np.median(ratios)))))
    return Ground(float(slope), horizon, spread, depths[below].tolist(), columns[below].tolist(), brightness)


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
