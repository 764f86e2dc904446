"""What stands where: a street in perspective as a list of outlines in painter's order, far to near."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from shapely.geometry import Polygon, box
from shapely.ops import unary_union

from .toy_silhouettes import HEIGHTS, SILHOUETTES, Rng, Silhouette, draw_silhouette, height_in_metres

CLASSES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_FREQUENCIES = (0.2, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1)
_GROUPS = ("persongroup", "cargroup", "bicyclegroup")
_LEAST_VISIBLE = 20  # pixels of an object that nearer ones leave free
_LEAST_INSIDE = 4  # of them, those with all four neighbours; a sliver is no object to Detectron2's reader of polygons
_FARTHEST = 0.2  # of the way from the horizon to the lower edge; a person is about 32 pixels high there at 512x256
_CAMERA_HEIGHT = 1.6  # metres; with the horizon it fixes how large a metre looks at every depth


@dataclass
class Element:
    """One entry of the official polygon list, and what the renderer needs besides.

    Attributes:
        label: an official Cityscapes label name.
        outline: the polygon, (N, 2) pixels as floats; what the annotation rounds.
        details: parts of it drawn in another shade.
        visible: whether it is drawn at all; the ego vehicle is, the border region is not.
        standing: whether it casts a shadow on the ground.
    """

    label: str
    outline: np.ndarray
    details: list[np.ndarray] = field(default_factory=list)
    visible: bool = True
    standing: bool = False


@dataclass(frozen=True)
class Street:
    """The perspective of one picture: a flat ground and a horizon.

    Attributes:
        width, height: of the picture in pixels.
        horizon: its y in pixels.
    """

    width: int
    height: int
    horizon: float

    def pixels_per_metre(self, ground: float) -> float:
        """At depth `ground`, the y in pixels where an object stands."""
        return (ground - self.horizon) / _CAMERA_HEIGHT


def compose(rng: Rng, width: int, height: int) -> list[Element]:
    """A random street scene of `width` x `height` pixels."""
    street = Street(width, height, height * rng.uniform(0.36, 0.46))
    elements = _surroundings(rng, street)
    if rng.random() < 0.5:
        elements.append(_group(rng, street))
    elements += [element for _, element in sorted(_objects(rng, street), key=lambda pair: pair[0])]
    return _without_hidden(elements + _ignored(rng, street), width, height)


def _without_hidden(elements: list[Element], width: int, height: int) -> list[Element]:
    """Leave out the objects of which an annotator would see next to nothing."""
    owner = np.full((height, width), -1, np.int32)
    for index, element in enumerate(elements):
        cv2.fillPoly(owner, [np.round(element.outline).astype(np.int32)], index)
    middle = owner[1:-1, 1:-1]
    around = (owner[:-2, 1:-1], owner[2:, 1:-1], owner[1:-1, :-2], owner[1:-1, 2:])
    is_inside = np.logical_and.reduce([middle == side for side in around])
    seen, inside = (np.bincount(pixels[pixels >= 0], minlength=len(elements)) for pixels in (owner, middle[is_inside]))
    is_seen = (seen >= _LEAST_VISIBLE) & (inside >= _LEAST_INSIDE)
    return [e for e, visible in zip(elements, is_seen, strict=True) if e.label not in CLASSES or visible]


def _surroundings(rng: Rng, street: Street) -> list[Element]:
    w, h, horizon = street.width, street.height, street.horizon
    vanishing = w * rng.uniform(0.35, 0.65)
    elements = [Element("sky", _rectangle(0, 0, w, horizon + 2))]
    x = -rng.uniform(0, 0.1) * w
    while x < w:
        span = rng.uniform(0.08, 0.25) * w
        label = "vegetation" if rng.random() < 0.3 else "building"
        top = horizon * rng.uniform(0.05, 0.75)
        outline = (
            _crown(rng, x, top, span, horizon + 4)
            if label == "vegetation"
            else _rectangle(x, top, x + span, horizon + 4)
        )
        windows = _windows(rng, x, top, span, horizon) if label == "building" else []
        elements.append(Element(label, outline, windows))
        x += span * rng.uniform(0.8, 1.1)
    elements.append(Element("sidewalk", _rectangle(0, horizon, w, h)))
    left, right = w * rng.uniform(-0.4, 0.05), w * rng.uniform(0.95, 1.4)
    road = np.array([(vanishing - 0.02 * w, horizon), (vanishing + 0.02 * w, horizon), (right, h), (left, h)])
    elements.append(Element("road", road, _lane_marks(vanishing, (left + right) / 2, street)))
    for _ in range(int(rng.integers(1, 4))):
        elements += _pole(rng, street)
    return elements


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _crown(rng: Rng, x: float, top: float, span: float, bottom: float) -> np.ndarray:
    angles = np.linspace(np.pi, 2 * np.pi, 14)
    radii = rng.uniform(0.85, 1.15, 14)
    arc = np.stack(
        [x + span / 2 + np.cos(angles) * span / 2 * radii, bottom + np.sin(angles) * (bottom - top) * radii], 1
    )
    return np.concatenate([arc, [(x + span, bottom), (x, bottom)]])


def _windows(rng: Rng, x: float, top: float, span: float, horizon: float) -> list[np.ndarray]:
    step = max(6.0, horizon * rng.uniform(0.1, 0.16))
    columns = np.arange(x + step / 2, x + span - step, step).tolist()
    rows = np.arange(top + step / 2, horizon - step, step * 1.2).tolist()
    return [_rectangle(c, r, c + step * 0.5, r + step * 0.6) for c in columns for r in rows]


def _lane_marks(vanishing: float, bottom_x: float, street: Street) -> list[np.ndarray]:
    marks, depth = [], street.height - street.horizon
    for near, far in ((1.0, 0.75), (0.6, 0.47), (0.38, 0.3), (0.24, 0.19)):
        middle = [vanishing + (bottom_x - vanishing) * share for share in (near, far)]
        half = [street.width * 0.008 * share for share in (near, far)]
        y = [street.horizon + depth * share for share in (near, far)]
        corners = [(middle[0] - half[0], y[0]), (middle[0] + half[0], y[0])]
        marks.append(np.array([*corners, (middle[1] + half[1], y[1]), (middle[1] - half[1], y[1])]))
    return marks


def _pole(rng: Rng, street: Street) -> list[Element]:
    ground = street.horizon + (street.height - street.horizon) * rng.uniform(0.1, 0.5)
    metre = street.pixels_per_metre(ground)
    x, top, half = rng.uniform(0, street.width), ground - metre * rng.uniform(3, 5), max(0.06 * metre, 0.8)
    pole = Element("pole", _rectangle(x - half, top, x + half, ground), standing=True)
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    sign = np.stack([x + np.cos(angles) * 0.4 * metre, top + np.sin(angles) * 0.4 * metre], 1)
    return [pole, Element("traffic sign", sign)] if rng.random() < 0.6 else [pole]


def _objects(rng: Rng, street: Street) -> list[tuple[float, Element]]:
    """Objects with the y on which they stand, which orders them in depth."""
    placed: list[tuple[float, Element]] = []
    for label in rng.choice(CLASSES, size=int(rng.integers(4, 10)), p=_FREQUENCIES):
        ground, x = _ground(rng, street, label), rng.uniform(0.02, 0.98) * street.width
        if label == "rider":
            placed += _rider_on_cycle(rng, street, x, ground)
        else:
            placed.append((ground, _place(rng, street, str(label), x, ground)))
    if rng.random() < 0.55:
        placed += _crowd(rng, street)
    return placed


def _ground(rng: Rng, street: Street, label: str) -> float:
    # Square: most objects are far away, some are near; but none is higher than three fifths of the picture.
    depth = (street.height - street.horizon) * (_FARTHEST + (0.72 - _FARTHEST) * rng.random() ** 2)
    return street.horizon + min(depth, 0.6 * street.height * _CAMERA_HEIGHT / HEIGHTS[label][1])


def _place(rng: Rng, street: Street, label: str, x: float, ground: float) -> Element:
    return _project(
        draw_silhouette(label, rng), label, x, ground, height_in_metres(label, rng) * street.pixels_per_metre(ground)
    )


def _project(silhouette: Silhouette, label: str, x: float, ground: float, pixels: float) -> Element:
    def to_picture(shape: Polygon) -> np.ndarray:
        return np.asarray(shape.exterior.coords)[:-1] * (pixels, -pixels) + (x, ground)

    return Element(
        label, to_picture(silhouette.outline), [to_picture(part) for part in silhouette.details], standing=True
    )


def _rider_on_cycle(rng: Rng, street: Street, x: float, ground: float) -> list[tuple[float, Element]]:
    label = "bicycle" if rng.random() < 0.6 else "motorcycle"
    metre = street.pixels_per_metre(ground)
    cycle, rider = SILHOUETTES[label](rng), SILHOUETTES["rider"](rng)
    if rng.random() < 0.5:
        cycle, rider = cycle.mirrored(), rider.mirrored()
    size = height_in_metres("rider", rng) * metre
    lift = 0.22 * metre
    return [
        (ground, _project(cycle, label, x, ground, height_in_metres(label, rng) * metre)),
        (ground + 0.01, _project(rider, "rider", x, ground - lift, size)),
    ]


def _crowd(rng: Rng, street: Street) -> list[tuple[float, Element]]:
    """Three to six people, or parked cars, who hide one another."""
    label = "person" if rng.random() < 0.7 else "car"
    ground, x = _ground(rng, street, label), rng.uniform(0.15, 0.85) * street.width
    metre = street.pixels_per_metre(ground)
    spread = (0.55 if label == "person" else 2.2) * metre
    members = []
    for index in range(int(rng.integers(3, 7))):
        own = ground + rng.uniform(-0.12, 0.12) * (ground - street.horizon)
        members.append((own, _place(rng, street, label, x + spread * (index - 2) * rng.uniform(0.6, 1.1), own)))
    return members


def _group(rng: Rng, street: Street) -> Element:
    """A far cluster that an annotator would not take apart: one outline around all, one label for the group."""
    label = str(rng.choice(_GROUPS))
    ground = street.horizon + (street.height - street.horizon) * rng.uniform(0.09, 0.13)
    x, member = rng.uniform(0.1, 0.9) * street.width, label.removesuffix("group")
    metre = street.pixels_per_metre(ground)
    step = {"person": 0.5, "car": 2.4, "bicycle": 1.0}[member] * metre
    shapes = [
        Polygon(_place(rng, street, member, x + step * i, ground).outline).buffer(1.0)
        for i in range(int(rng.integers(4, 8)))
    ]
    union = unary_union([shape.buffer(0) for shape in shapes])
    union = union if isinstance(union, Polygon) else union.convex_hull
    return Element(label, np.asarray(union.exterior.coords)[:-1], standing=True)


def _ignored(rng: Rng, street: Street) -> list[Element]:
    """The bonnet of the own car and the border that rectification leaves, as in every official picture."""
    w, h = street.width, street.height
    xs = np.linspace(0.08 * w, 0.92 * w, 12)
    top = h * (1 - rng.uniform(0.05, 0.09)) + h * 0.05 * ((xs / w - 0.5) / 0.42) ** 2
    bonnet = np.concatenate([np.stack([xs, top], 1), [(0.92 * w, h), (0.08 * w, h)]])
    edge = max(1.0, round(w / 256))
    frame = box(0, 0, w, h).difference(box(edge, edge, w - edge, h))
    border = np.asarray(frame.exterior.coords)[:-1]
    return [Element("ego vehicle", bonnet), Element("out of roi", border, visible=False)]
