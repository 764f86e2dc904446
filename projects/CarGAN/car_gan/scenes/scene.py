"""A scene: a picture and the objects in it, whatever format they came in, and the terms that it is under."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from gan_plugin.errors import UserError

# x0, y0, x1, y1 in pixels along pixel edges: pixel (row i, column j) covers x in [j, j + 1] and y in [i, i + 1]
Box = tuple[float, float, float, float]
TERMS_CITYSCAPES = (
    "Derived from Cityscapes (cityscapes-dataset.com/license): non-commercial use only, and the data may not be "
    "passed on. The same holds for crops, weights, samples and scenes made from it."
)
TERMS_TOY = "Made from procedurally drawn toy scenes, in which nobody else has rights."
TERMS_COCO = (
    "Made from a data set in COCO's format. COCO's own annotations are under CC BY 4.0, its photographs under the "
    "terms of their owners on Flickr; for another data set its own terms hold."
)
TERMS_STANFORD = (
    "Derived from Stanford Cars (Krause et al. 2013): for research only; the photographs belong to their owners."
)
TERMS_FOLDER = (
    "Made from a folder of pictures whose terms are not known here; ask their owner before you pass anything on."
)


@dataclass(frozen=True)
class SceneObject:
    """One annotated object, or a group that the annotators did not take apart.

    Attributes:
        number: among the objects of its label in this image, as the data set counts them.
        label: its class.
        mask: (y1 - y0, x1 - x0) bool, the pixels where it is seen, over `corner` = (x0, y0).
        corner: the column and the row of the mask's first pixel.
        outline_area: pixels of its outline inside the picture, those that nearer objects hide included.
        outline: the box around its outline inside the picture, those parts included that nearer objects hide.
        group: whether it is a group.
        background: whether it is a surface or a building and not a thing that can stand in front of another.
        synthetic: whether it was pasted into the picture.
    """

    number: int
    label: str
    mask: np.ndarray
    corner: tuple[int, int]
    outline_area: int
    outline: Box
    group: bool = False
    background: bool = False
    synthetic: bool = False

    @property
    def box(self) -> Box:
        """The tight box around the pixels where it is seen."""
        x, y = self.corner
        return float(x), float(y), float(x + self.mask.shape[1]), float(y + self.mask.shape[0])

    @property
    def ground(self) -> float:
        """y in pixels of the lowest point of its outline: where it stands."""
        return self.outline[3]

    @property
    def area(self) -> int:
        """Pixels where it is seen."""
        return int(self.mask.sum())

    @property
    def visible(self) -> float:
        """The share of its outline that is seen, in [0, 1]."""
        return self.area / self.outline_area if self.outline_area else 0.0

    def full_mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Its mask over the whole picture: `shape` bool."""
        return self.mask_within((0, 0), shape)

    def mask_within(self, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """Its mask over a window of the picture: `shape` bool, from `corner` (x, y) on."""
        window = np.zeros(shape, bool)
        x, y = self.corner[0] - corner[0], self.corner[1] - corner[1]
        height, width = self.mask.shape
        left, top, right, bottom = max(0, x), max(0, y), min(shape[1], x + width), min(shape[0], y + height)
        if left < right and top < bottom:
            window[top:bottom, left:right] = self.mask[top - y : bottom - y, left - x : right - x]
        return window


@dataclass(frozen=True)
class Scene:
    """A picture's annotation.

    Attributes:
        objects: in painter's order, far to near, where the data set has one.
        shape: height and width of the picture in pixels.
        road: `shape` bool, where a car can stand; None if the data set does not say.
        broken: the label of each object that was left out because its annotation is unusable, and why that is so.
    """

    objects: list[SceneObject]
    shape: tuple[int, int]
    road: np.ndarray | None = None
    broken: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SceneFile:
    """Where a scene is.

    Attributes:
        name: unique in its source and fit for a file's name after "/" is replaced; such as "train/city/stem".
        image: path of the picture.
        city: the first-level grouping of the data set; "" if it has none.
        truth: path of the annotation, or what else the source needs to find it.
    """

    name: str
    image: Path
    city: str = ""
    truth: str = ""


class SceneSource(Protocol):
    """A data set of scenes."""

    title: str
    # where it is, as the user gave it
    place: str
    # the terms that everything made from it is under
    licence: str
    # id -> name of the classes whose objects are told apart
    categories: dict[int, str]
    # other classes of which single objects are told apart, which no detector is evaluated on
    more: tuple[str, ...]

    def files(self) -> Sequence[SceneFile]:
        """Its scenes in a fixed order; a UserError says what is missing."""
        ...

    def load(self, file: SceneFile) -> Scene:
        """The annotation of one of them; a UserError says what is broken."""
        ...


def check_category(category: str, known: Iterable[str]) -> None:
    """Raise a UserError that lists the classes of the scenes unless `category` is one of them."""
    names = list(known)
    if category not in names:
        raise UserError(f"The scenes have no class '{category}'; set CATEGORY to one of these: {', '.join(names)}.")


def digest(files: Sequence[SceneFile]) -> str:
    """A hash of the scenes' names and their order: work that was begun with other scenes must not go on."""
    return hashlib.sha256("\n".join(file.name for file in files).encode()).hexdigest()[:16]


def tight(mask: np.ndarray, offset: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, tuple[int, int]]:
    """A mask cut to its true pixels, and the corner (x, y) of what is left in a picture where it began at `offset`.

    An empty mask gives one of no pixels.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 0), bool), offset
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(part), (offset[0] + int(columns[0]), offset[1] + int(rows[0]))
