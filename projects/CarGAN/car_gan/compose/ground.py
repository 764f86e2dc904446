"""How large a car is at each place of a picture, learnt from the annotated cars.

On a flat street seen by an upright camera, an object of height H metres that stands at picture row y has
h = (H / camera height) * (y - horizon) pixels: a line through the horizon. Slope and horizon are fitted to annotated
cars by Theil and Sen's median of slopes, which a third of wrong pairs (hidden wheels, hills) does not move far.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from car_gan.scenes.scene import Scene
from gan_plugin.errors import UserError

# of a car whose height and base can be trusted
_LEAST_VISIBLE, _LEAST_HEIGHT, _MARGIN = 0.8, 8, 4
_LEAST_CARS = 8
# a scene's own horizon counts as much as the set's once it has this many cars
_WORTH = 2.0
_WIDEST_SPREAD = 0.2


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
