"""Outlines of the eight evaluated classes, in units of their own height.

A silhouette stands on y = 0, is about 1 high, is centred on x = 0 and looks to the right; y points up. Each function
draws one at random: pose, proportions and type vary, so that no two are alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from shapely.affinity import scale
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box
from shapely.ops import unary_union

Rng = np.random.Generator


@dataclass(frozen=True)
class Silhouette:
    """An outline, and the parts within it that look different (windows, wheels), which are not part of the outline."""

    outline: Polygon
    details: list[Polygon] = field(default_factory=list)

    def mirrored(self) -> "Silhouette":
        """The same, looking to the left."""
        flip = lambda shape: scale(shape, -1, 1, origin=(0, 0))  # noqa: E731
        return Silhouette(flip(self.outline), [flip(part) for part in self.details])


def _limb(points: list[tuple[float, float]], thickness: float) -> Polygon:
    return LineString(points).buffer(thickness / 2, quad_segs=3)


def _disc(x: float, y: float, radius: float) -> Polygon:
    return Point(x, y).buffer(radius, quad_segs=6)


def _join(parts: list[Polygon]) -> Polygon:
    # The official format has one outline an object and no holes: what shows between two legs' knees is filled.
    union = unary_union(parts).buffer(0.004)
    largest = max(union.geoms, key=lambda part: part.area) if isinstance(union, MultiPolygon) else union
    return Polygon(largest.exterior).simplify(0.004)


def person(rng: Rng) -> Silhouette:
    """Head, torso, two arms, two legs, walking or standing."""
    stride, swing = rng.uniform(0.01, 0.17), rng.uniform(0.03, 0.2)
    stout, lean = rng.uniform(0.85, 1.3), rng.uniform(-0.04, 0.04)
    hip, neck = (0.0, 0.5), (lean, 0.82)
    parts = [
        _limb([hip, (lean, 0.74)], 0.19 * stout),
        _disc(lean * 1.3, 0.915, 0.075),
        _limb([neck, (lean, 0.9)], 0.07),
    ]
    for side in (-1, 1):
        knee = (side * stride * 0.7 + 0.02, 0.27)
        parts.append(_limb([(side * 0.035, 0.5), knee, (side * stride, 0.03)], 0.085 * stout))
        parts.append(_limb([(side * stride, 0.02), (side * stride + 0.07, 0.02)], 0.045))
        elbow = (lean - side * (0.06 + swing * 0.5), 0.62)
        hand = (lean - side * swing * 1.1 + rng.uniform(-0.03, 0.06), 0.47 + rng.uniform(0, 0.08))
        parts.append(_limb([(lean - side * 0.07, 0.78), elbow, hand], 0.06 * stout))
    if rng.random() < 0.3:
        parts.append(box(-0.2, 0.52, -0.06, 0.76).buffer(0.02))
    return Silhouette(_join(parts), [_disc(lean * 1.3, 0.915, 0.075), _limb([(0, 0.3), (0, 0.5)], 0.2)])


def bicycle(rng: Rng) -> Silhouette:
    """Two wheels, a diamond frame, saddle and handlebar."""
    radius, reach = rng.uniform(0.31, 0.36), rng.uniform(0.5, 0.6)
    pedals, saddle, head = (-0.05, radius), (-0.2, 0.78), (reach - 0.17, 0.8)
    tube = rng.uniform(0.05, 0.08)
    wheels = [_disc(-reach, radius, radius), _disc(reach, radius, radius)]
    frame = [
        _limb([(-reach, radius), pedals, head, saddle, (-reach, radius)], tube),
        _limb([pedals, saddle, (-0.22, 0.88)], tube),
        _limb([(reach, radius), (reach - 0.2, 0.95)], tube),
        _limb([(-0.34, 0.89), (-0.12, 0.9)], tube * 1.3),
        _limb([(reach - 0.27, 0.98), (reach - 0.13, 0.95)], tube),
    ]
    return Silhouette(_join(wheels + frame), [wheel.buffer(-0.06) for wheel in wheels])


def motorcycle(rng: Rng) -> Silhouette:
    """Two fat wheels, tank, seat and a fork with handlebar."""
    radius, reach = rng.uniform(0.27, 0.32), rng.uniform(0.55, 0.68)
    wheels = [_disc(-reach, radius, radius), _disc(reach, radius, radius)]
    body = Polygon(
        [(-reach, 0.62), (-0.85 * reach, 0.74), (0.0, 0.66), (0.25, 0.84), (0.5, 0.74), (0.3, 0.25), (-0.3, 0.22)]
    )
    fork = _limb([(reach, radius), (reach - 0.2, 0.9), (reach - 0.33, 0.98)], 0.09)
    parts = [*wheels, body.buffer(0.03), fork, _limb([(-reach, radius), (-0.1, 0.35)], 0.12)]
    if rng.random() < 0.4:
        parts.append(Polygon([(0.3, 0.7), (0.62, 0.62), (0.45, 1.05)]))
    return Silhouette(_join(parts), [wheels[0].buffer(-0.08), wheels[1].buffer(-0.08), box(-0.3, 0.25, 0.25, 0.5)])


def rider(rng: Rng) -> Silhouette:
    """A seated person who leans to a handlebar; in units of 1, its lowest point is a foot on the pedal."""
    lean, bent = rng.uniform(0.12, 0.34), rng.uniform(0.15, 0.32)
    hip, shoulder = (-0.2, 0.45), (-0.2 + lean, 0.8)
    parts = [
        _limb([hip, shoulder], 0.2),
        _disc(shoulder[0] + 0.05, 0.92, 0.082),
        _limb([shoulder, (shoulder[0] + 0.05, 0.9)], 0.08),
        _limb([shoulder, (shoulder[0] + 0.13, 0.6), (0.26, 0.56)], 0.075),
        _limb([hip, (0.1, bent), (-0.04, 0.04)], 0.11),
        _limb([hip, (0.12, bent + 0.12), (0.06, 0.14)], 0.1),
        _limb([(-0.04, 0.03), (0.06, 0.03)], 0.06),
    ]
    return Silhouette(_join(parts), [_disc(shoulder[0] + 0.05, 0.92, 0.082), _limb([hip, (0.1, bent)], 0.1)])


def _wheels(positions: list[float], radius: float) -> list[Polygon]:
    return [_disc(x, radius, radius) for x in positions]


def car(rng: Rng) -> Silhouette:
    """A saloon, hatchback or van from the side, or a car from behind."""
    if rng.random() < 0.3:
        return _car_from_behind(rng)
    half, radius = rng.uniform(1.15, 1.55), rng.uniform(0.2, 0.24)
    rear = rng.choice([-half + 0.05, -half + 0.5]) if rng.random() < 0.8 else -half + 0.02
    front, roof = rng.uniform(0.3, 0.5) * half, rng.uniform(0.94, 1.0)
    waist = rng.uniform(0.52, 0.6)
    body = Polygon(
        [(-half, 0.16), (-half + 0.02, waist), (half - 0.15, waist - 0.06), (half, 0.36), (half - 0.02, 0.16)]
    )
    cabin = Polygon([(rear, waist - 0.02), (rear + 0.25, roof), (front - 0.35, roof), (front + 0.1, waist - 0.03)])
    wheels = _wheels([-half * 0.62, half * 0.62], radius)
    window = cabin.buffer(-0.07, join_style="mitre")
    panes = [window.intersection(box(-9, 0, -0.08, 2)), window.intersection(box(-0.02, 0, 9, 2))]
    details = [
        *(pane for pane in panes if isinstance(pane, Polygon) and not pane.is_empty),
        *(w.buffer(-0.05) for w in wheels),
    ]
    return Silhouette(_join([body.buffer(0.04), cabin.buffer(0.03), *wheels]), details)


def _car_from_behind(rng: Rng) -> Silhouette:
    half = rng.uniform(0.56, 0.66)
    body = box(-half, 0.16, half, 0.62).buffer(0.04)
    cabin = Polygon([(-half + 0.04, 0.58), (-half + 0.18, 0.97), (half - 0.18, 0.97), (half - 0.04, 0.58)])
    tyres = [box(-half, 0.0, -half + 0.18, 0.3), box(half - 0.18, 0.0, half, 0.3)]
    lamps = [box(-half, 0.42, -half + 0.16, 0.52), box(half - 0.16, 0.42, half, 0.52)]
    return Silhouette(_join([body, cabin.buffer(0.03), *tyres]), [cabin.buffer(-0.06), *tyres, *lamps])


def truck(rng: Rng) -> Silhouette:
    """A cab, and behind it a box or an open bed, on two or three axles."""
    half, radius = rng.uniform(0.95, 1.4), rng.uniform(0.13, 0.16)
    split, cab = half - rng.uniform(0.5, 0.62), rng.uniform(0.66, 0.8)
    load = box(-half, 0.2, split - 0.07, rng.choice([1.0, 0.98, 0.5]))
    if load.bounds[3] < 0.6:
        load = unary_union([load, box(-half * 0.8, 0.45, split - 0.3, 0.72).buffer(0.04)])
        cab = 1.0
    nose = Polygon([(split, 0.16), (split, cab), (half - 0.16, cab), (half - 0.02, 0.45), (half, 0.16)])
    axles = [-half * 0.7, half * 0.72] + ([-half * 0.36] if rng.random() < 0.5 else [])
    wheels = _wheels(axles, radius)
    chassis = box(-half, 0.16, half - 0.02, 0.24)
    window = Polygon(
        [(split + 0.09, cab * 0.62), (split + 0.09, cab - 0.06), (half - 0.2, cab - 0.06), (half - 0.1, cab * 0.62)]
    )
    return Silhouette(_join([load, nose, chassis, *wheels]), [window, *(wheel.buffer(-0.03) for wheel in wheels)])


def bus(rng: Rng) -> Silhouette:
    """A long box with a row of windows, doors and two wheels."""
    half, radius = rng.uniform(1.2, 1.9), rng.uniform(0.13, 0.15)
    body = box(-half, 0.12, half, 0.97).buffer(0.03)
    wheels = _wheels([-half * 0.6, half * 0.68], radius)
    count = int(rng.integers(4, 8))
    edges = np.linspace(-half + 0.08, half - 0.08, count + 1)
    panes = [box(a + 0.02, 0.52, b - 0.02, 0.85) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return Silhouette(_join([body, *wheels]), [*panes, *(wheel.buffer(-0.03) for wheel in wheels)])


def train(rng: Rng) -> Silhouette:
    """A tram of two or three joined cars with a sloping nose, a pantograph, and no wheels to be seen."""
    half, slope = rng.uniform(2.0, 3.0), rng.uniform(0.15, 0.4)
    body = Polygon([(-half, 0.05), (-half + slope / 3, 0.84), (half - slope, 0.84), (half, 0.4), (half - 0.03, 0.05)])
    joints = np.linspace(-half, half, int(rng.integers(3, 5)))[1:-1]
    arm = _limb([(-0.25, 0.84), (0.05, 0.93), (-0.2, 1.0), (0.1, 1.0)], 0.03)
    edges = np.linspace(-half + 0.2, half - slope - 0.05, 9)
    panes = [box(a + 0.04, 0.45, b - 0.04, 0.7) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return Silhouette(_join([body.buffer(0.02), arm]), [*panes, *(box(x - 0.04, 0.05, x + 0.04, 0.84) for x in joints)])


SILHOUETTES: dict[str, Callable[[Rng], Silhouette]] = {
    "person": person,
    "rider": rider,
    "car": car,
    "truck": truck,
    "bus": bus,
    "train": train,
    "motorcycle": motorcycle,
    "bicycle": bicycle,
}

# Heights in metres, low and high.
HEIGHTS = {
    "person": (1.5, 1.9),
    "rider": (1.25, 1.45),
    "car": (1.4, 1.7),
    "truck": (2.6, 3.4),
    "bus": (2.8, 3.2),
    "train": (3.2, 3.7),
    "motorcycle": (1.1, 1.25),
    "bicycle": (1.0, 1.12),
}


def draw_silhouette(label: str, rng: Rng) -> Silhouette:
    """A silhouette of class `label`, to the left or right with equal chance."""
    silhouette = SILHOUETTES[label](rng)
    return silhouette.mirrored() if rng.random() < 0.5 else silhouette


def height_in_metres(label: str, rng: Rng) -> float:
    """A plausible height of an object of class `label`."""
    return float(rng.uniform(*HEIGHTS[label]))
